"""What the core asks of the world, as values: the core itself does no IO and never waits.

Everything a client does is a generator of ``Steps``: it yields an effect, a driver
performs it and sends back what came of it. There are two drivers, one that blocks and
one for asyncio (``drivers``); they know nothing of queues. Between two effects a
generator runs alone, whatever the driver, so that the core needs no locks.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

T = TypeVar("T")


class Request(NamedTuple):
    """One request, for whichever replica."""

    method: str
    path: str
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body: bytes | None = None


class Answer(NamedTuple):
    """A complete answer; the names of headers are in lower case, or looked up without case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Broken(NamedTuple):
    """There was no answer. ``reached``: the request may have been read."""

    words: str
    reached: bool


class Event(Protocol):
    """Something that happens once."""

    def set(self) -> None:
        """It happens."""


class Send(NamedTuple):
    """Ask one replica; the reply is an ``Answer`` or ``Broken``."""

    url: str
    request: Request
    timeout_s: float


class Pause(NamedTuple):
    """Do nothing for a while."""

    seconds: float


class Wait(NamedTuple):
    """Until the event has happened, or the time is up."""

    event: Event
    timeout_s: float | None


class Spawn(NamedTuple):
    """Run these steps in the background."""

    steps: Steps[None]


class Resolve(NamedTuple):
    """Give futures their results, exceptions included."""

    results: tuple[tuple[Any, str | Exception], ...]


Effect: TypeAlias = Send | Pause | Wait | Spawn | Resolve
Steps: TypeAlias = Generator[Effect, Answer | Broken | None, T]


def send(url: str, request: Request, timeout_s: float) -> Steps[Answer | Broken]:
    """One try."""
    reply = yield Send(url, request, timeout_s)
    assert reply is not None, "a driver answers every Send"
    return reply


class Bell:
    """Wakes all who listen; who listens looks again whether it was for him."""

    def __init__(self, new_event: Callable[[], Event]) -> None:
        self._new_event = new_event
        self._listening: dict[int, Event] = {}
        self._count = 0

    def ring(self) -> None:
        """Something has changed."""
        for event in self._listening.values():
            event.set()

    def listen(self, timeout_s: float | None = None) -> Steps[None]:
        """Return when it rings, or the time is up.

        Each listener has an event of its own, made before anybody else can run: nobody
        can clear it for another, and no ring is lost.
        """
        self._count += 1
        number = self._count
        self._listening[number] = self._new_event()
        try:
            yield Wait(self._listening[number], timeout_s)
        finally:
            del self._listening[number]
