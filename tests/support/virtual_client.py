"""A third driver for the client's core: virtual time, scripted replicas, no IO, no waiting."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from raftq.client.effects import (
    Answer,
    Broken,
    Open,
    Opened,
    Pause,
    Receive,
    Reply,
    Request,
    Resolve,
    Send,
    Shut,
    Spawn,
    Steps,
    Wait,
)
from raftq.client.exchange import Options, Session
from raftq.client.replicas import Replicas

URLS = ["http://a:1", "http://b:2", "http://c:3"]
FOREVER = float("inf")


class Asked(NamedTuple):
    """One request, when and of whom."""

    at_s: float
    host: str
    request: Request


class VirtualEvent:
    def __init__(self) -> None:
        self.happened = False

    def set(self) -> None:
        self.happened = True


class VirtualFuture:
    """Holds what came of it."""

    result: str | Exception | None = None


class _Task:
    def __init__(self, steps: Steps[Any], wake_s: float) -> None:
        self.steps = steps
        self.wake_s = wake_s
        self.event: VirtualEvent | None = None
        self.reply: Reply | None = None

    def runs_at(self, now_s: float) -> bool:
        return self.wake_s <= now_s or (self.event is not None and self.event.happened)


def answer(status: int, body: object = None, **headers: object) -> Answer:
    named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return Answer(status, named, b"" if body is None else json.dumps(body).encode())


def refusal(status: int, reason: str, **headers: object) -> Answer:
    body = {"title": "No", "detail": "because", "reason": reason, "type": f"urn:{reason}"}
    return answer(status, body, **headers)


# What a replica does with a request, by a word.
BEHAVIOURS: dict[str, Callable[[], Answer | Broken]] = {
    "serves": lambda: answer(200, {}, raftq_applied_index=7),
    "has no leader": lambda: refusal(503, "no_leader"),
    "asks for patience": lambda: refusal(503, "overloaded", retry_after=3),
    "limits": lambda: refusal(429, "rate_limited", retry_after=3),
    "is stopping": lambda: refusal(503, "stopping", retry_after=1),
    "does not know": lambda: refusal(504, "outcome_unknown"),
    "fails": lambda: refusal(500, "internal_error"),
    "refuses": lambda: refusal(404, "no_queue"),
    "lost the claim": lambda: refusal(404, "no_claim"),
    "is down": lambda: Broken("connection refused", reached=False),
    "hangs up": lambda: Broken("reset", reached=True),
}


class Virtual:
    """The world: time, replicas that behave as told, and everything they were asked."""

    def __init__(
        self,
        *behaviours: str,
        zone: str | None = None,
        chance: float = 1.0,
        **options: Any,
    ) -> None:
        self.now_s = 100.0
        self.behaviours = dict(zip("abc", behaviours, strict=False))
        self.round_trips_s = dict.fromkeys("abc", 0.001)
        self.asked: list[Asked] = []
        self.answers: Callable[[Request], Answer | Broken | None] = lambda request: None
        """What whoever serves answers; None: an empty document."""
        self.streams: list[list[bytes | Broken]] = []
        """The pieces of each stream that will be opened; after the last one comes its end."""
        self.shut = 0
        self._tasks: list[_Task] = []
        known = Options(**{"discover": False, **options})
        self.session = Session(
            Replicas(URLS[: len(behaviours)], zone),
            known,
            clock=lambda: self.now_s,
            chance=lambda: chance,
        )

    @property
    def hosts(self) -> str:
        """Who was asked, in order."""
        return "".join(asked.host for asked in self.asked)

    def call(self, method: str = "POST", *, repeatable: bool = False, **more: Any) -> Answer:
        """One call of the session."""
        return self.run(self.session.call(Request(method, "/x"), repeatable=repeatable, **more))

    def run(self, steps: Steps[Any]) -> Any:
        """Until these steps end; what runs beside them goes on as far."""
        main = _Task(steps, self.now_s)
        self._tasks.append(main)
        try:
            while True:
                task = self._next()
                try:
                    effect = task.steps.send(task.reply)
                except StopIteration as done:
                    self._tasks.remove(task)
                    if task is main:
                        return done.value
                    continue
                self._perform(task, effect)
        finally:
            if main in self._tasks:
                self._tasks.remove(main)

    def pass_time(self, seconds: float) -> None:
        """Nothing happens in the foreground."""

        def idle() -> Steps[None]:
            yield Pause(seconds)

        self.run(idle())

    @property
    def idle(self) -> bool:
        """Whether nothing runs in the background."""
        return not self._tasks

    def _next(self) -> _Task:
        ready = [task for task in self._tasks if task.runs_at(self.now_s)]
        if not ready:
            self.now_s = min(task.wake_s for task in self._tasks)
            assert self.now_s < FOREVER, "everybody waits for somebody else"
            return self._next()
        # Fair: who has run goes to the end.
        self._tasks.remove(ready[0])
        self._tasks.append(ready[0])
        return ready[0]

    def _perform(self, task: _Task, effect: Any) -> None:
        task.reply, task.event, task.wake_s = None, None, self.now_s
        match effect:
            case Send():
                host = urlsplit(effect.url).hostname or ""
                self.asked.append(Asked(self.now_s, host, effect.request))
                task.wake_s = self.now_s + self.round_trips_s.get(host, 0.001)
                task.reply = self._reply(host, effect.request)
            case Open() | Receive() | Shut():
                task.reply = self._streaming(effect)
            case Pause(seconds):
                task.wake_s = self.now_s + seconds
            case Wait(event, timeout_s):
                assert isinstance(event, VirtualEvent)
                task.event = event
                task.wake_s = FOREVER if timeout_s is None else self.now_s + timeout_s
            case Spawn(steps):
                self._tasks.append(_Task(steps, self.now_s))
            case Resolve(results):
                for future, result in results:
                    future.result = result

    def _streaming(self, effect: Open | Receive | Shut) -> Reply | None:
        match effect:
            case Open(url, request, _):
                host = urlsplit(url).hostname or ""
                self.asked.append(Asked(self.now_s, host, request))
                reply = self._reply(host, request)
                if isinstance(reply, Answer) and reply.status == 200:
                    return Opened(200, reply.headers, self.streams.pop(0))
                return reply
            case Receive(pieces):
                return pieces.pop(0) if pieces else b""
            case Shut():
                self.shut += 1
                return None

    def _reply(self, host: str, request: Request) -> Answer | Broken:
        behaviour = self.behaviours.get(host, "is down")
        if behaviour == "serves":
            return self.answers(request) or BEHAVIOURS["serves"]()
        return BEHAVIOURS[behaviour]()
