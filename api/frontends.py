"""Front ends are plug-ins: each protocol registers under an entry point and is chosen by name.

Entry points of the group ``raftq.frontends`` load to an object with the shape of
``Frontend``. The native REST API is one more entry point; it is written down here
because a source tree that was never installed has no entry points of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

from starlette.routing import BaseRoute

from api.ports import Service

GROUP = "raftq.frontends"
BUILT_IN = (EntryPoint(name="rest", value="api.rest:FRONTEND", group=GROUP),)


class Frontend(Protocol):
    """One protocol over the service port."""

    name: str

    def routes(self, service: Service) -> Sequence[BaseRoute]:
        """What it answers. Routes are tried in the order of the configuration."""
        ...


class UnknownFrontend(ValueError):
    """The configuration names a front end that is not installed."""


def load(names: Iterable[str]) -> list[Frontend]:
    """The named front ends, in order."""
    installed = {point.name: point for point in (*entry_points(group=GROUP), *BUILT_IN)}
    found: list[Frontend] = []
    for name in names:
        if name not in installed:
            known = ", ".join(sorted(installed)) or "none"
            raise UnknownFrontend(f"front end {name!r} is not installed; installed: {known}")
        frontend: Frontend = installed[name].load()
        found.append(frontend)
    return found
