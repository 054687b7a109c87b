"""What the blocking and the asynchronous classes have in common: all but how one waits."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar
from urllib.parse import quote

import msgspec

from raftq.client.answers import Message, QueueEvent
from raftq.client.claims import ClaimCore, Wanted, ZoneMode
from raftq.client.consuming import Consume, Held
from raftq.client.events import EventsCore
from raftq.client.exchange import Options, Session
from raftq.client.replicas import Replicas, split
from raftq.client.transactions import Named

D = TypeVar("D")
M = TypeVar("M", bound="HeldMessage")
C = TypeVar("C")
P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")

_decode_event = msgspec.json.Decoder(QueueEvent).decode


class HeldMessage(Message, frozen=True, kw_only=True, eq=False):
    """A message, and the claim that holds it."""

    _driver: Any
    _core: Held

    def _named(self) -> Named:
        """As a part of a transaction."""
        return (self._core.claim, [self.id])

    @property
    def settled(self) -> bool:
        """Whether it was acked or released, or is known to be lost."""
        return self._core.settled

    @property
    def lost(self) -> bool:
        """Whether its lease is known to be lost: the server said so, or the time is over."""
        return self._core.lost


class Shell(Generic[D, C]):
    """A core and the driver that runs it."""

    def __init__(self, driver: D, core: C) -> None:
        self._driver = driver
        self._core = core


class AnyClaim(Shell[D, ClaimCore], Generic[D, M]):
    """Messages under one lease; empty, and false, if there was nothing to claim."""

    def __init__(self, driver: D, core: ClaimCore, kind: type[M]) -> None:
        super().__init__(driver, core)
        self.messages: tuple[M, ...] = tuple(
            held_message(driver, Held(core, message), kind) for message in core.messages
        )

    def _named(self) -> Named:
        """As a part of a transaction: all that is held."""
        return (self._core, None)

    @property
    def id(self) -> str:
        """As the API knows it."""
        return self._core.id

    @property
    def lease_until(self) -> datetime | None:
        """When the lease ends, by the cluster's clock; None for an empty claim."""
        return self._core.lease_until

    def __bool__(self) -> bool:
        return bool(self.messages)


def held_message(driver: object, held: Held, kind: type[M]) -> M:
    """The message as ``kind``."""
    fields = {name: getattr(held.message, name) for name in Message.__struct_fields__}
    return kind(_driver=driver, _core=held, **fields)


def with_signature_of(
    settings: Callable[P, Consume],
) -> Callable[[Callable[[S, Consume], T]], Callable[Concatenate[S, P], T]]:
    """Lets a method be called with what makes its one argument; documented there."""

    def decorate(method: Callable[[S, Consume], T]) -> Callable[Concatenate[S, P], T]:
        def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
            return method(self, settings(*args, **kwargs))

        functools.update_wrapper(call, settings)
        call.__name__, call.__qualname__ = method.__name__, method.__qualname__
        return call

    return decorate


def session(
    urls: str | Sequence[str], zone: str | None, timeout: float, try_timeout: float
) -> Session:
    """What a client begins with."""
    given = [urls] if isinstance(urls, str) else urls
    options = Options(timeout_s=timeout, try_timeout_s=try_timeout)
    # Spreads clients in time; nobody could gain anything by guessing it.
    chance = random.random
    return Session(Replicas(split(given), zone), options, clock=time.monotonic, chance=chance)


def how_to_consume(
    limit: int = 1,
    *,
    lease: float = 30.0,
    wait: float = 20.0,
    zone: str | None = None,
    auto_ack: bool = True,
    drain: bool = False,
    prefetch: bool = True,
    extend_for: float = 3600.0,
    zone_mode: ZoneMode | None = None,
    locality_wait: float | None = None,
    consumer: str | None = None,
) -> Consume:
    """A loop over messages: each is acked when the loop comes back for the next one.

    ``limit``: messages to a claim. ``lease``: seconds, extended by itself while the work
    lasts, for ``extend_for`` seconds at most. ``wait``: how long one request waits for a
    message. ``auto_ack=False``: only ``message.ack()`` and ``with message:`` settle.
    ``drain``: end when nothing came within ``wait``. ``prefetch=False``: claim nothing
    ahead, for work that takes long. ``zone``, ``zone_mode``, ``locality_wait`` and
    ``consumer`` as for ``claim``.
    """
    wanted = Wanted(
        limit=limit,
        lease=lease,
        wait=wait,
        zone=zone,
        zone_mode=zone_mode,
        locality_wait=locality_wait,
        consumer=consumer,
    )
    return Consume(
        wanted=wanted,
        lease=lease,
        auto_ack=auto_ack,
        drain=drain,
        prefetch=prefetch,
        extend_for=extend_for,
    )


def account_path(account: str) -> str:
    """Where the API has it."""
    return f"/v1/{quote(account, safe='')}"


def events_of(
    session: Session, path: str, from_: str | int, kinds: Sequence[str], after: str
) -> EventsCore[QueueEvent]:
    """A reader of typed events."""
    query = {"from": str(from_)} | ({"kind": ",".join(kinds)} if kinds else {})
    core = EventsCore(session, f"{path}/events", query, _decode_event)
    core.last_id = after
    return core
