"""One call: whom to ask, when to ask again, when to give up. Pure: time and chance come in.

What a failed try means:

- not connected, 429 or 503: nothing was done. The next replica is asked, at once while one
  is left in this round, then after a pause (full jitter). Who said ``Retry-After`` is not
  asked before that, and some time later: not together with all others who were told so.
- broken off, timed out, or any other 5xx: it may have happened. A call that may be
  repeated (``repeatable``) goes on in the same way, any other ends there.
- everything else is final.

A retry after a try that a replica had to deal with is paid for from the ``Budget``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec

from raftq.client.answers import Cluster
from raftq.client.budget import Budget
from raftq.client.effects import (
    Answer,
    Broken,
    Opened,
    Pause,
    Request,
    Steps,
    open_stream,
    send,
)
from raftq.client.errors import (
    Closed,
    Forbidden,
    LeaseLost,
    OutcomeUnknown,
    Problem,
    QuotaExceeded,
    RaftqError,
    Refused,
    Unauthorized,
    Unavailable,
    problem,
)
from raftq.client.replicas import Replica, Replicas

REFRESH_S = 30.0
REFRESH_AFTER_FAILURE_S = 1.0
PROBE_TIMEOUT_S = 0.5
PAUSE_FIRST_S = 0.1
PAUSE_MAX_S = 2.0
RETRY_AFTER_MAX_S = 60.0
RETRY_SPREAD = 0.5
UNSERVED = (429, 503)
KINDS: dict[str, type[Refused]] = {
    **dict.fromkeys(("no_claim", "stale_claim", "stale_transaction"), LeaseLost),
    "quota_exceeded": QuotaExceeded,
    "unauthorized": Unauthorized,
    "forbidden": Forbidden,
}

T = TypeVar("T")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How patient a client is. ``discover``: learn of replicas that were not given.

    ``persistent``: go on when no replica at all can be reached.
    """

    timeout_s: float = 10.0
    try_timeout_s: float = 4.0
    discover: bool = True
    persistent: bool = True


class Closes(Protocol):
    """Something with work in the background."""

    def close(self) -> Steps[None]:
        """End it properly."""


class Session:
    """What a client knows of its cluster, and the way each of its calls goes."""

    def __init__(
        self,
        replicas: Replicas,
        options: Options,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self.replicas = replicas
        self.options = options
        self.clock = clock
        self.seen_index = 0
        """The highest log index that this client was given: what its reads must include."""
        self.users: set[Closes] = set()
        """Consumers and producers with something in the background."""
        self._closed = False
        self._chance = chance
        self._budget = Budget(clock())
        self._refresh_at_s = clock()

    def close(self) -> Steps[None]:
        """End what runs in the background; no call after this."""
        while self.users:
            yield from self.users.pop().close()
        self._closed = True

    def cluster(self) -> Steps[Cluster]:
        """All replicas, as the one that answers sees them."""
        answer = yield from self.call(Request("GET", "/cluster"), repeatable=True)
        return decoded(answer, Cluster)

    def read(self, request: Request, *, consistency: str = "session") -> Steps[Answer]:
        """A call that changes nothing; by default it sees whatever this client has seen."""
        headers = dict(request.headers)
        if consistency != "session":
            headers["raftq-consistency"] = consistency
        elif self.seen_index:
            headers["raftq-min-index"] = str(self.seen_index)
        return self.call(request._replace(headers=headers), repeatable=True)

    def change(self, request: Request, key: str | None = None) -> Steps[Answer]:
        """A call that may be repeated, since it carries a key."""
        headers = {**request.headers, "idempotency-key": key or uuid.uuid4().hex}
        return self.call(request._replace(headers=headers), repeatable=True)

    def call(
        self,
        request: Request,
        *,
        repeatable: bool,
        wait_s: float = 0.0,
        timeout_s: float | None = None,
    ) -> Steps[Answer]:
        """The successful answer, or a ``RaftqError``; ``wait_s`` is for the server to use."""
        if self._closed:
            raise Closed("the client is closed")
        patience_s = self.options.timeout_s if timeout_s is None else timeout_s
        attempts = _Attempts(request, repeatable, self.clock() + patience_s + wait_s)

        def ask(url: str) -> Steps[Answer | Broken]:
            left_s = attempts.deadline_s - self.clock()
            limit_s = min(left_s, self.options.try_timeout_s + wait_s)
            return send(url, request, max(limit_s, 0.001))

        _, answer = yield from self._attempt(attempts, ask)
        assert isinstance(answer, Answer)
        return answer._replace(after_unknown=attempts.is_unknown)

    def stream(self, request: Request, silence_s: float) -> Steps[tuple[Replica, Any]]:
        """An open stream for ``Receive``, and who serves it; ``silence_s`` as in ``Open``."""
        if self._closed:
            raise Closed("the client is closed")
        attempts = _Attempts(request, True, self.clock() + self.options.timeout_s)
        replica, opened = yield from self._attempt(
            attempts, lambda url: open_stream(url, request, silence_s)
        )
        assert isinstance(opened, Opened)
        return replica, opened.stream

    def _attempt(
        self,
        attempts: _Attempts,
        ask: Callable[[str], Steps[Answer | Opened | Broken] | Steps[Answer | Broken]],
    ) -> Steps[tuple[Replica, Answer | Opened]]:
        """Try until there is a successful answer, or raise."""
        self._budget.pay_in(self.clock())
        while True:
            if self.options.discover and not attempts.asked:
                yield from self._refresh_if_due(attempts.deadline_s)
            replica = self._next(attempts)
            yield from self._before_asking(replica, attempts)
            reply = yield from ask(replica.url)
            if isinstance(reply, Broken):
                replica.failed(self.clock())
                attempts.broken(replica, reply)
            elif isinstance(reply, Opened) or reply.status < 300:
                self._note(replica, reply)
                return replica, reply
            elif reply.status in UNSERVED:
                later = 1.0 + RETRY_SPREAD * self._chance()
                replica.not_before_s = self.clock() + later * _retry_after_s(reply)
                attempts.unserved(replica, reply)
            else:
                attempts.answered(replica, reply)
            self._refresh_at_s = min(self._refresh_at_s, self.clock() + REFRESH_AFTER_FAILURE_S)
            if attempts.hopeless(len(self.replicas.order(self.clock())), self.options.persistent):
                raise attempts.error()

    def _next(self, attempts: _Attempts) -> Replica:
        """The best that was not asked in this round, or the best of all in a new one."""
        order = self.replicas.order(self.clock())
        for replica in order:
            if replica.url not in attempts.asked:
                return replica
        attempts.asked.clear()
        attempts.rounds += 1
        return order[0]

    def _before_asking(self, replica: Replica, attempts: _Attempts) -> Steps[None]:
        """Wait as long as it takes; raises when that is longer than the call has."""
        now_s = self.clock()
        pause_s = replica.not_before_s - now_s
        if attempts.rounds and not attempts.asked:
            longest_s = min(PAUSE_FIRST_S * 2.0 ** min(attempts.rounds, 10), PAUSE_MAX_S)
            pause_s = max(pause_s, longest_s * self._chance())
        attempts.asked.add(replica.url)
        while pause_s > 0 or attempts.unpaid:
            if attempts.failures and now_s + pause_s >= attempts.deadline_s:
                raise attempts.error()
            if pause_s > 0:
                yield Pause(min(pause_s, attempts.deadline_s - now_s))
            now_s = self.clock()
            pause_s = self._budget.take(now_s) if attempts.unpaid else 0.0
            attempts.unpaid = attempts.unpaid and pause_s > 0
        if attempts.failures and now_s >= attempts.deadline_s:
            raise attempts.error()

    def _note(self, replica: Replica, answer: Answer | Opened) -> None:
        headers = answer.headers
        replica.served(headers.get("raftq-node", ""), headers.get("raftq-zone", ""))
        index = headers.get("raftq-applied-index", "")
        if index.isdigit():
            self.seen_index = max(self.seen_index, int(index))

    def _refresh_if_due(self, deadline_s: float) -> Steps[None]:
        """Look who is there and how far away they are, as far as somebody answers."""
        if self.clock() < self._refresh_at_s:
            return
        # Said first: calls that run beside this one go ahead with what is known.
        self._refresh_at_s = self.clock() + REFRESH_S
        for replica in self.replicas.order(self.clock()):
            answer = yield from self._probe(replica, "/cluster", deadline_s)
            if answer is not None and (cluster := _cluster(answer)) is not None:
                if self.replicas.learn(cluster):
                    self.seen_index = 0  # A log of its own.
                break
        for replica in self.replicas.to_measure(self.clock()):
            yield from self._probe(replica, "/livez", deadline_s)

    def _probe(self, replica: Replica, path: str, deadline_s: float) -> Steps[Answer | None]:
        """What the replica says, measured; None if it does not."""
        # The first request may have had to connect; only the second is measured.
        for _ in range(2 if replica.round_trip_s is None else 1):
            began_s = self.clock()
            limit_s = min(PROBE_TIMEOUT_S, deadline_s - began_s)
            if limit_s <= 0:
                return None
            reply = yield from send(replica.url, Request("GET", path), limit_s)
            if isinstance(reply, Broken):
                break
        now_s = self.clock()
        if isinstance(reply, Broken) or reply.status != 200:
            replica.failed(now_s)
            return None
        node = reply.headers.get("raftq-node", "")
        if not replica.given and node != replica.node:
            self.replicas.drop(replica)
            return None
        replica.measured(now_s, now_s - began_s)
        replica.served(node, reply.headers.get("raftq-zone", ""))
        return reply


class _Attempts:
    """What became of the tries of one call."""

    def __init__(self, request: Request, repeatable: bool, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self.asked: set[str] = set()  # In this round.
        self.rounds = 0
        self.failures: dict[str, str] = {}
        self.unpaid = False
        self._is_read = request.method == "GET"
        self._repeatable = repeatable
        self.is_unknown = False  # Whether a try may have taken effect.
        self._reached = False

    def broken(self, replica: Replica, reply: Broken) -> None:
        """There was no answer."""
        if not reply.reached:
            self.failures[replica.url] = f"cannot reach {replica.url}: {reply.words}"
            return
        self._may_have_happened(replica, f"{replica.url} broke off: {reply.words}")

    def unserved(self, replica: Replica, answer: Answer) -> None:
        """Nothing was done."""
        self._reached = self.unpaid = True
        self.failures[replica.url] = f"{replica.url}: {_words(answer)}"

    def answered(self, replica: Replica, answer: Answer) -> None:
        """An error; raises if it is final."""
        if answer.status >= 500:
            self._may_have_happened(replica, f"{replica.url}: {_words(answer)}")
            return
        refused = refusal(answer.status, problem(answer.body))
        refused.after_unknown = self.is_unknown
        raise refused

    def hopeless(self, replicas: int, persistent: bool) -> bool:
        """Whether nobody was there and the client does not want to wait for somebody."""
        return not (persistent or self._reached) and len(self.failures) >= replicas

    def error(self) -> OutcomeUnknown | Unavailable:
        """The end, in the words of all that were asked."""
        said = "; ".join(self.failures.values())
        if self.is_unknown:
            return OutcomeUnknown(f"{said}; it may have happened or not")
        return Unavailable(said, unreached=not self._reached)

    def _may_have_happened(self, replica: Replica, words: str) -> None:
        self._reached = self.unpaid = True
        self.is_unknown = not self._is_read
        self.failures[replica.url] = words
        if not self._repeatable:
            raise self.error()


def refusal(status: int, found: Problem) -> Refused:
    """What is raised for a problem that is final."""
    return KINDS.get(found.reason, Refused)(status, found)


def failed(found: Problem, done: object) -> RaftqError:
    """What is raised for a problem that comes with what was done before."""
    error: RaftqError
    if found.status in UNSERVED:
        error = Unavailable(str(found))
    else:
        is_known = found.status < 500
        error = refusal(found.status, found) if is_known else OutcomeUnknown(str(found))
    error.done = done
    return error


def decoded(answer: Answer, kind: type[T]) -> T:
    """The body of an answer; ``Refused`` if it cannot come from a raftq server."""
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        said = msgspec.structs.replace(
            problem(b""), title=f"the answer is not what the API answers ({error})", reason="alien"
        )
        raise Refused(answer.status, said) from None


def _cluster(answer: Answer) -> Cluster | None:
    try:
        return decoded(answer, Cluster)
    except Refused:
        return None


def _retry_after_s(answer: Answer) -> float:
    """Seconds; a date, which the API does not send, counts as nothing."""
    text = answer.headers.get("retry-after", "")
    return min(float(text), RETRY_AFTER_MAX_S) if text.isdigit() else 0.0


def _words(answer: Answer) -> str:
    return str(problem(answer.body)) or f"HTTP {answer.status}"
