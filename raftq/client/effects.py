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
    after_unknown: bool = False
    """Whether an earlier try of the same call may have taken effect."""


class Broken(NamedTuple):
    """There was no answer. ``reached``: the request may have been read."""

    words: str
    reached: bool


class Opened(NamedTuple):
    """The head of an answer whose body comes in pieces, and what the driver knows it by."""

    status: int
    headers: Mapping[str, str]
    stream: Any


class Event(Protocol):
    """Something that happens once."""

    def set(self) -> None:
        """It happens."""


class Send(NamedTuple):
    """Ask one replica; the reply is an ``Answer`` or ``Broken``."""

    url: str
    request: Request
    timeout_s: float


class Open(NamedTuple):
    """Ask for a stream; the reply is ``Opened``, or an ``Answer`` that is not 200, or ``Broken``.

    ``silence_s``: no piece for so long, and it counts as broken.
    """

    url: str
    request: Request
    silence_s: float


class Receive(NamedTuple):
    """Wait for the next piece; the reply is ``bytes``, none at its end, or ``Broken``.

    A stream that has ended or broken off needs no ``Shut``.
    """

    stream: Any


class Shut(NamedTuple):
    """End a stream before its end."""

    stream: Any


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


Effect: TypeAlias = Send | Open | Receive | Shut | Pause | Wait | Spawn | Resolve
Reply: TypeAlias = Answer | Opened | Broken | bytes
Steps: TypeAlias = Generator[Effect, Reply | None, T]


def send(url: str, request: Request, timeout_s: float) -> Steps[Answer | Broken]:
    """One try."""
    reply = yield Send(url, request, timeout_s)
    assert isinstance(reply, Answer | Broken), "a driver answers every Send"
    return reply


def open_stream(url: str, request: Request, silence_s: float) -> Steps[Answer | Opened | Broken]:
    """One try."""
    reply = yield Open(url, request, silence_s)
    assert isinstance(reply, Answer | Opened | Broken), "a driver answers every Open"
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
