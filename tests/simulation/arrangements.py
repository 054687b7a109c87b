"""What stands, as the log tells of it: which tick has to follow which, and who was given what.

The model says what an arrangement does once it ticks, matches or runs. When the next tick
is, nothing in the log but the leader says: here it is reckoned again, without a calendar.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from queue_model import HookNames, Model, Names
from simulation.agreement import Store
from simulation.standing import PERIODS_MS
from statemachine import commands as c
from statemachine.ids import message_id_text
from statemachine.outcomes import Claimed, Done, Enqueued, Outcome, Place, Refused, Settled
from statemachine.records import decode_message

LATE_MS = 60_000
CATCH_UP_MAX = 100
Posting = tuple[str, str, int]  # Queue, id and which delivery it is.


class Arrangements:
    """Looks at what is about to be told to the model."""

    def __init__(self, model: Model, sometimes: Callable[[str], None]) -> None:
        self._model, self._sometimes = model, sometimes
        self._behind: dict[Names, int] = defaultdict(int)
        self._ticked_in: dict[Names, int] = {}  # The term.
        self._ran: dict[HookNames, str] = {}  # The last node that did.
        self.given: dict[Posting, tuple[str, bytes]] = {}
        """What nodes claimed for subscriptions: who it was, and the body."""
        self.delivered: set[tuple[str, str]] = set()  # Queue and id of what a receiver has.

    def command(self, command: c.Command, outcome: Outcome, store: Store) -> None:
        """A command is about to be told to the model."""
        match command, outcome:
            case c.Enqueue(), Enqueued(routed=routed) if routed:
                self._copied(command.queue, routed)
            case c.Claim(), Claimed() if "@" in command.consumer:
                for one in outcome.messages:
                    key = (command.queue, message_id_text(one.id), one.deliveries)
                    assert key not in self.given, f"{key} was delivered twice"
                    self.given[key] = command.consumer, decode_message(one.record).body
            case c.Ack(), Settled():
                self._acknowledged(command, outcome)
            case c.PutSchedule(), _:
                self._scheduled(command)
            case c.PutSubscription(), _:
                names = (command.account, command.queue, command.name)
                self._model.revisions.setdefault(names, []).append(store.revision(names))
            case c.DisableSubscription(), Done() if command.reason.endswith("Gone"):
                self._sometimes("a receiver wanted no more")
            case c.TakeSubscriptions(), _ if command.lease_ms > 0:
                self._taken(command)

    def _copied(self, queue: str, routed: tuple[tuple[Place, ...], ...]) -> None:
        for places in routed:
            targets = [place.queue for place in places]
            if len(targets) > 1:
                self._sometimes("a message was copied to several queues")
            elif targets == [queue]:
                self._sometimes("what no binding matched stayed")

    def _acknowledged(self, command: c.Ack, outcome: Settled) -> None:
        """What a node acknowledges for a subscription is what the receiver said it has."""
        consumers = self._model.queues[command.account, command.queue].consumers
        if "@" not in consumers.get(command.claim, ""):
            return
        assert command.ids is not None
        for one in dict.fromkeys(command.ids):
            key = command.queue, message_id_text(one)
            assert one in outcome.stale or key in self.delivered, f"{key} was not delivered"

    def _scheduled(self, command: c.PutSchedule) -> None:
        names = (command.account, command.schedule)
        before = self._model.schedules.get(names)
        if before is None or before.next_ms is None:
            self._behind[names] = 0
        elif before.put.timing == command.timing and before.put.message == command.message:
            self._sometimes("a schedule was put again as it was")
        else:
            self._behind[names] = 0

    def tick(self, command: c.Tick, outcome: Outcome, term: int) -> None:
        """A leader tells of a tick, and of the next one."""
        names = (command.account, command.schedule)
        schedule = self._model.schedules.get(names)
        if isinstance(outcome, Refused):
            self._sometimes("two leaders told of one tick")
            return
        assert schedule is not None, "a tick of what is not there"
        is_over = outcome == Enqueued(()) and not command.skip
        self._sometimes("a tick found no room" if is_over else "a schedule ticked")
        if self._ticked_in.setdefault(names, term) != term:
            self._sometimes("a schedule ticked on under another leader")
        self._ticked_in[names] = term
        now_ms, timing = self._model.now_ms, schedule.put.timing
        if command.skip:
            assert timing.missed == "skip", "a tick was skipped"
            assert now_ms - command.due_ms > LATE_MS, "a tick was skipped that was not late"
        soonest = after(timing, command.due_ms)
        if timing.missed == "all" and self._behind[names] < CATCH_UP_MAX:
            assert command.next_ms == soonest, f"{command} leaves out {soonest}"
        else:
            latest = after(timing, max(command.due_ms, now_ms))
            allowed = f"from {soonest} to {latest}"
            assert _or_never(soonest) <= _or_never(command.next_ms), f"{command}, not {allowed}"
            assert _or_never(command.next_ms) <= _or_never(latest), f"{command}, not {allowed}"
            if command.next_ms is not None:
                assert after(timing, command.next_ms - 1) == command.next_ms, f"{command} is none"
        is_behind = command.next_ms is not None and command.next_ms <= now_ms
        self._behind[names] = self._behind[names] + 1 if is_behind else 0
        if is_behind:
            self._sometimes("ticks that were missed are made up for")

    def _taken(self, command: c.TakeSubscriptions) -> None:
        """Somebody says that he runs subscriptions, and which ones he takes."""
        model = self._model
        for names in command.take:
            hook = model.hooks.get(names)
            if hook is None:
                continue
            running = model.node_of(hook)
            if running and running != command.node:
                self._sometimes("a subscription was taken that another node has")
            elif not running and self._ran.get(names, command.node) != command.node:
                self._sometimes("a subscription moved to another node")
            if not running:
                self._ran[names] = command.node
        if command.drop:
            self._sometimes("a subscription was given back for another node")

    def late(self, now_ms: int) -> list[Names]:
        """Schedules whose tick is due."""
        return [
            names
            for names, one in self._model.schedules.items()
            if one.next_ms is not None and one.next_ms <= now_ms
        ]


def after(timing: c.Timing, time_ms: int) -> int | None:
    """The first tick later than that."""
    period_ms = timing.every_ms or PERIODS_MS[timing.cron]
    origin_ms = timing.start_ms or 0
    count = max((time_ms - origin_ms) // period_ms + 1, 0)
    found = origin_ms + count * period_ms
    return None if timing.end_ms is not None and found > timing.end_ms else found


def _or_never(time_ms: int | None) -> float:
    return float("inf") if time_ms is None else time_ms
