"""Every route there is. Paths are tried in this order: the busy ones come first."""

from __future__ import annotations

from typing import Any

from api.rest import (
    accounts,
    auditing,
    bindings,
    claims,
    cluster,
    console,
    consuming,
    encryption,
    events,
    jobs,
    keys,
    messages,
    openapi,
    putting,
    queues,
    quotas,
    schedules,
    sharing,
    subscriptions,
    transactions,
)
from api.rest.operations import Operation

_OPERATIONS: tuple[Operation[Any], ...] = (
    *putting.OPERATIONS,
    *transactions.OPERATIONS,
    *claims.OPERATIONS,
    *messages.OPERATIONS,
    *consuming.OPERATIONS,
    *queues.OPERATIONS,
    *sharing.OPERATIONS,
    *jobs.OPERATIONS,
    *bindings.OPERATIONS,
    *schedules.OPERATIONS,
    *subscriptions.OPERATIONS,
    *accounts.OPERATIONS,
    *keys.OPERATIONS,
    *encryption.OPERATIONS,
    *quotas.OPERATIONS,
    *auditing.OPERATIONS,
    *events.OPERATIONS,
    *cluster.OPERATIONS,
    *console.OPERATIONS,
)
TABLE: tuple[Operation[Any], ...] = (*_OPERATIONS, openapi.operation(_OPERATIONS))
