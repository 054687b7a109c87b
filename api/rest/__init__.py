"""The native REST API: a front end like any other.

Start reading at ``table`` for what there is, and at ``operations`` for what happens
to a request. Each noun has a module with its types, its handlers and its rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute

from api.ports import Service
from api.rest.operations import routes
from api.rest.table import TABLE


class Rest:
    """The front end ``rest``."""

    name = "rest"

    def routes(self, service: Service) -> Sequence[BaseRoute]:
        """See ``api.frontends.Frontend``."""
        return routes(TABLE, service)


FRONTEND = Rest()
