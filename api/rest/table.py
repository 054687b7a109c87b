"""Every route there is. Paths are tried in this order: the busy ones come first."""

from __future__ import annotations

from typing import Any

from api.rest import (
    accounts,
    claims,
    cluster,
    console,
    messages,
    openapi,
    queues,
    subscriptions,
)
from api.rest.operations import Operation

_OPERATIONS: tuple[Operation[Any], ...] = (
    *messages.OPERATIONS,
    *claims.OPERATIONS,
    *queues.OPERATIONS,
    *subscriptions.OPERATIONS,
    *accounts.OPERATIONS,
    *cluster.OPERATIONS,
    *console.OPERATIONS,
)
TABLE: tuple[Operation[Any], ...] = (*_OPERATIONS, openapi.operation(_OPERATIONS))
