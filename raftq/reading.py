"""Properties that only read what another object knows."""

from __future__ import annotations

from operator import attrgetter
from typing import Any


def reading(path: str) -> Any:
    """A property that is ``self.path``, where ``path`` may have dots.

    It is no function of ours, so that to ask for it is no call: of those of the consensus and
    the log each entry asks two hundred times.
    """
    return property(attrgetter(path))
