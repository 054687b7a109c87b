"""What each account has used of its limits on this node, and what is beyond them.

Nothing is kept of accounts without limits, or for longer than it means something: an
account that has nothing under way and has paid off what it used is forgotten.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable

import msgspec
from starlette.types import Message, Send

from api.fairness.gcra import Meter, Rate
from api.fairness.shares import Shares
from api.ports import AccountLimits, Fairness
from api.problems import Problem

ALLOWANCES_MAX = 100_000
CONCURRENT_RETRY_S = 1

Header = tuple[str, str]


class Limit(enum.StrEnum):
    """What there can be too much of. The values are policies' names on the wire, and labels."""

    REQUESTS = "requests"
    BYTES = "bytes"
    CONCURRENT = "concurrent"
    PARKED = "parked"


UNITS = {
    Limit.REQUESTS: "requests",
    Limit.BYTES: "content-bytes",
    Limit.CONCURRENT: "concurrent-requests",
    Limit.PARKED: "concurrent-requests",
}
DETAILS = {
    Limit.REQUESTS: "more requests in a second than the account may send to a node",
    Limit.BYTES: "more bytes in a second than the account may exchange with a node",
    Limit.CONCURRENT: "more requests at once than the account may have on a node",
    Limit.PARKED: "more waiting claims and event streams than the account may have on a node",
}


class _Terms:
    """The limits of an account, in the forms in which they are needed."""

    def __init__(self, limits: AccountLimits) -> None:
        self.requests = _rate(limits.requests_per_s, limits.requests_burst)
        self.bytes = _rate(limits.bytes_per_s, limits.bytes_burst)
        self.concurrent_max = limits.concurrent_max or math.inf
        self.parked_max = limits.parked_max or math.inf
        rates = ((Limit.REQUESTS, self.requests), (Limit.BYTES, self.bytes))
        counts = ((Limit.CONCURRENT, limits.concurrent_max), (Limit.PARKED, limits.parked_max))
        self.policy = ", ".join(
            [
                *(
                    f'"{name}";q={r.burst};qu="{UNITS[name]}";w={r.window_s}'
                    for name, r in rates
                    if r
                ),
                *(f'"{name}";q={most};qu="{UNITS[name]}"' for name, most in counts if most),
            ]
        )


class Allowance:
    """One account's, while it has something under way or to pay off."""

    __slots__ = ("_bytes", "_clock", "_observe", "_requests", "_terms", "concurrent", "parked")

    def __init__(
        self, terms: _Terms, clock: Callable[[], float], observe: Callable[[Limit], None]
    ) -> None:
        self._terms = terms
        self._clock = clock
        self._observe = observe
        self._requests, self._bytes = Meter(), Meter()
        self.concurrent = 0  # Requests that are being served.
        self.parked = 0  # Those that wait for something to happen.

    def enter(self, size: int) -> None:
        """A request with so many bytes begins; raises the problem ``rate_limited``."""
        terms, now_s = self._terms, self._clock()
        if self.concurrent >= terms.concurrent_max:
            raise self._limited(Limit.CONCURRENT, CONCURRENT_RETRY_S)
        if terms.requests and (wait_s := self._requests.wait_s(terms.requests, now_s)):
            raise self._limited(Limit.REQUESTS, wait_s)
        if terms.bytes and (wait_s := self._bytes.wait_s(terms.bytes, now_s)):
            raise self._limited(Limit.BYTES, wait_s)
        if terms.requests:
            self._requests.charge(terms.requests, now_s, 1)
        self.charge(size)
        self.concurrent += 1

    def again_in_s(self) -> float:
        """Seconds until a request that goes on may do one more thing; 0: that is counted now."""
        terms, now_s = self._terms, self._clock()
        meters = ((terms.requests, self._requests), (terms.bytes, self._bytes))
        wait_s = max([meter.wait_s(rate, now_s) for rate, meter in meters if rate], default=0.0)
        if terms.requests and not wait_s:
            self._requests.charge(terms.requests, now_s, 1)
        return wait_s

    def leave(self) -> None:
        """It ends."""
        self.concurrent -= 1

    def park(self) -> None:
        """It begins to wait for something to happen; raises the problem ``rate_limited``."""
        if self.parked >= self._terms.parked_max:
            raise self._limited(Limit.PARKED, CONCURRENT_RETRY_S)
        self.parked += 1
        self.concurrent -= 1

    def unpark(self) -> None:
        """It goes on."""
        self.parked -= 1
        self.concurrent += 1

    def charge(self, size: int) -> None:
        """Count bytes that it exchanges: those of bodies, both ways."""
        if self._terms.bytes:
            self._bytes.charge(self._terms.bytes, self._clock(), size)

    def counting(self, send: Send) -> Send:
        """``send``, with the headers that tell of the limits, and what goes out counted."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = [(name.lower().encode(), value.encode()) for name, value in self.headers()]
                message["headers"] = [*message["headers"], *told]
            else:
                self.charge(len(message.get("body", b"")))
            await send(message)

        return counted

    def headers(self) -> tuple[Header, ...]:
        """RateLimit fields for HTTP: draft-ietf-httpapi-ratelimit-headers, version 10."""
        now_s = self._clock()
        meters = (
            (Limit.REQUESTS, self._terms.requests, self._requests),
            (Limit.BYTES, self._terms.bytes, self._bytes),
        )
        left = [
            f'"{name}";r={meter.left(rate, now_s)};t={math.ceil(meter.full_in_s(now_s))}'
            for name, rate, meter in meters
            if rate
        ]
        policy = ("RateLimit-Policy", self._terms.policy)
        return (policy, ("RateLimit", ", ".join(left))) if left else (policy,)

    def is_idle(self, now_s: float) -> bool:
        """Whether nothing is lost if it is forgotten."""
        due_s = max(self._requests.due_s, self._bytes.due_s)
        return not self.concurrent and not self.parked and due_s <= now_s

    def _limited(self, limit: Limit, wait_s: float) -> Problem:
        self._observe(limit)
        retry = ("Retry-After", str(math.ceil(wait_s)))
        return Problem("rate_limited", DETAILS[limit], headers=(retry, *self.headers()))


class Allowances:
    """Those of all accounts on this node."""

    def __init__(
        self, fairness: Fairness, clock: Callable[[], float], observe: Callable[[Limit], None]
    ) -> None:
        self._clock = clock
        self._observe = observe
        self._common = _terms(fairness)
        self._own = {
            account: _terms(msgspec.structs.replace(fairness, **limits))
            for account, limits in fairness.accounts.items()
        }
        self.are_any = self._common is not None or bool(self._own)
        """Whether any account has limits."""
        self._kept: Shares[Allowance] = Shares(
            ALLOWANCES_MAX, lambda allowance: allowance.is_idle(clock())
        )

    def __len__(self) -> int:
        return len(self._kept)

    def enter(self, account: str, size: int) -> Allowance | None:
        """A request with so many bytes begins, and ends with ``leave``.

        None if the account has no limits; raises the problem ``rate_limited``.
        """
        allowance = self._of(account)
        if allowance is not None:
            allowance.enter(size)
        return allowance

    def _of(self, account: str) -> Allowance | None:
        """The account's. Accounts beyond ``ALLOWANCES_MAX`` share one: see ``Shares``."""
        found = self._kept.get(account)
        if found is not None:
            return found
        terms = self._own.get(account, self._common)
        if terms is None:
            return None
        return self._kept.begin(account, lambda: Allowance(terms, self._clock, self._observe))


def _terms(limits: AccountLimits) -> _Terms | None:
    numbers = [getattr(limits, name) for name in AccountLimits.__struct_fields__]
    return _Terms(limits) if any(numbers) else None


def _rate(per_s: int, burst: int) -> Rate | None:
    return Rate(per_s, burst or per_s) if per_s else None
