"""Who waits is woken in order, once, and costs nothing afterwards."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memory_kv import MemoryKV
from raftq.replica.waiters import Place, QueueKey, Waiters
from statemachine import commands as c
from statemachine.commands import Command, NewMessage, QueueSettings
from statemachine.machine import Machine

Q, R = ("a", "q"), ("a", "r")
IN_Q, IN_R = ("a", "q", ""), ("a", "r", "")


class Room:
    """Waiters by number, and which of them were woken."""

    def __init__(self) -> None:
        self.waiters = Waiters()
        self.woken: list[int] = []
        self.forget: dict[int, Callable[[], None]] = {}
        self.gone: set[int] = set()

    def wait(self, key: QueueKey, *numbers: int) -> None:
        for number in numbers:
            self.forget[number] = self.waiters.when_ready(key, self.waker(number))

    def reach(self, index: int, number: int) -> None:
        self.forget[number] = self.waiters.when_applied(index, self.waker(number))

    def waker(self, number: int) -> Callable[..., bool]:
        def wake(_: str = "") -> bool:
            if number not in self.gone:
                self.woken.append(number)
            return number not in self.gone

        return wake


WAKES = [
    # (what became ready, who of 1, 2, 3 at Q and 4 at R is woken)
    ("nothing", {}, []),
    ("one message", {IN_Q: 1}, [1]),
    ("two messages", {IN_Q: 2}, [1, 2]),
    ("more messages than waiters", {IN_Q: 9}, [1, 2, 3]),
    ("another queue", {IN_R: 1}, [4]),
    ("both", {IN_R: 1, IN_Q: 1}, [4, 1]),
    ("a queue where nobody waits", {("b", "q", ""): 5}, []),
    ("no message after all", {IN_Q: 0}, []),
]


@pytest.mark.parametrize(("ready", "woken"), [w[1:] for w in WAKES], ids=[w[0] for w in WAKES])
def test_each_message_wakes_one_who_waits_in_order(
    ready: dict[Place, int], woken: list[int]
) -> None:
    room = Room()
    room.wait(Q, 1, 2, 3)
    room.wait(R, 4)
    room.waiters.wake(ready, 0)
    assert room.woken == woken
    assert room.waiters.parked == 4 - len(woken)
    room.waiters.wake({IN_Q: 9, IN_R: 9}, 0)
    assert sorted(room.woken) == [1, 2, 3, 4]
    assert room.waiters.parked == 0


def test_who_was_forgotten_is_passed_over() -> None:
    room = Room()
    room.wait(Q, 1, 2, 3)
    room.forget[1]()
    room.forget[2]()
    assert room.waiters.parked == 1
    room.waiters.wake({IN_Q: 1}, 0)
    assert room.woken == [3]


def test_a_wake_that_nobody_took_is_for_the_next() -> None:
    room = Room()
    room.wait(Q, 1, 2, 3)
    room.gone = {1}
    room.waiters.wake({IN_Q: 1}, 0)
    assert room.woken == [2]
    assert room.waiters.parked == 1


def test_the_last_waiter_may_forget_itself_when_it_is_woken() -> None:
    waiters = Waiters()

    def wake(_: str) -> bool:
        forget()
        return True

    forget = waiters.when_ready(Q, wake)
    waiters.wake({IN_Q: 1}, 0)
    assert waiters.parked == 0


def test_who_no_longer_waits_for_an_index_is_forgotten() -> None:
    room = Room()
    room.reach(5, 1)
    room.reach(5, 2)
    room.forget[1]()
    room.waiters.wake({}, 5)
    assert room.woken == [2]


def test_forgetting_does_no_harm_twice_or_after_the_wake() -> None:
    room = Room()
    room.wait(Q, 1)
    room.waiters.wake({IN_Q: 1}, 0)
    room.wait(Q, 2)
    room.forget[1]()
    room.forget[1]()
    assert room.waiters.parked == 1
    room.waiters.wake({IN_Q: 1}, 0)
    assert room.woken == [1, 2]


def test_a_late_forget_does_not_touch_who_waits_in_the_same_place_now() -> None:
    room = Room()
    room.wait(Q, 1, 2)
    room.forget[1]()
    room.forget[2]()
    room.wait(Q, 3)
    room.forget[1]()
    room.waiters.wake({IN_Q: 1}, 0)
    assert room.woken == [3]


def test_an_index_that_is_reached_calls_back_once() -> None:
    room = Room()
    room.reach(5, 1)
    room.reach(3, 2)
    room.reach(5, 3)
    for applied, woken in ((2, []), (3, [2]), (4, [2]), (7, [2, 1, 3]), (9, [2, 1, 3])):
        room.waiters.wake({}, applied)
        assert room.woken == woken


def test_who_waits_for_an_index_is_not_parked_at_a_queue() -> None:
    room = Room()
    room.reach(5, 1)
    assert room.waiters.parked == 0


def test_a_snapshot_lets_everybody_look() -> None:
    room = Room()
    room.wait(Q, 1, 2)
    room.wait(R, 3)
    room.reach(8, 4)
    room.reach(9, 5)
    room.waiters.wake_everybody(8)
    assert room.woken == [1, 2, 3, 4]
    assert room.waiters.parked == 0


def test_who_waits_again_when_woken_is_woken_by_the_next_message() -> None:
    room = Room()

    def wait_again(_: str) -> bool:
        room.wait(Q, 2)
        return True

    room.waiters.when_ready(Q, wait_again)
    room.waiters.wake_everybody(0)
    assert room.woken == []
    room.waiters.wake({IN_Q: 1}, 0)
    assert room.woken == [2]


def test_who_watches_subscriptions_hears_of_the_next_change() -> None:
    waiters, heard = Waiters(), list[str]()
    waiters.when_subscriptions_change(lambda: heard.append("once"))
    forget = waiters.when_subscriptions_change(lambda: heard.append("never"))
    forget()
    waiters.subscriptions_changed()
    waiters.subscriptions_changed()
    assert heard == ["once"]
    assert waiters.subscription_changes == 2


def test_a_snapshot_may_have_changed_subscriptions() -> None:
    waiters, heard = Waiters(), list[str]()
    waiters.when_subscriptions_change(lambda: heard.append("changed"))
    waiters.wake_everybody(1)
    assert heard == ["changed"]


def test_a_snapshot_may_have_changed_keys() -> None:
    waiters = Waiters()
    before = waiters.key_changes
    waiters.wake_everybody(1)
    assert waiters.key_changes > before


ZONES = [
    # (what became ready where, who is woken)
    # 1 takes from any zone, 2 and 3 from y, 4 from z; 3 also hears of others.
    ("for any and its own", {"y": 2}, [1, 2]),
    ("its own alone", {"z": 9}, [1, 4, 3]),
    ("of no zone: for all, in order", {"": 3}, [1, 2, 3]),
    ("of a zone that nobody is in", {"x": 1}, [1]),
    ("more than whoever takes any can have", {"x": 2}, [1, 3]),
    ("of several", {"z": 1, "x": 1}, [1, 3]),
]


@pytest.mark.parametrize(("ready", "woken"), [z[1:] for z in ZONES], ids=[z[0] for z in ZONES])
def test_who_can_not_take_it_is_not_woken_by_it(ready: dict[str, int], woken: list[int]) -> None:
    room = Room()
    waiting = [(1, None, False), (2, "y", False), (3, "y", True), (4, "z", False)]
    for number, zone, others in waiting:
        room.forget[number] = room.waiters.when_ready(
            Q, room.waker(number), zone=zone, others=others
        )
    room.waiters.wake({(*Q, zone): count for zone, count in ready.items()}, 0)
    assert room.woken == woken
    assert room.waiters.parked == 4 - len(woken)
    room.waiters.wake_everybody(0)
    assert sorted(room.woken) == [1, 2, 3, 4]
    assert room.waiters.parked == 0


PLAIN = NewMessage(b"x", "text/plain")


def put(*messages: NewMessage) -> c.Enqueue:
    return c.Enqueue(*Q, messages)


EXPECTED = [
    # (what is about to be done, who of 1, 2, 3 is told of it)
    ("one message", put(PLAIN), [1]),
    ("two", put(PLAIN, PLAIN), [1, 2]),
    ("more than wait", put(*[PLAIN] * 5), [1, 2, 3]),
    ("under a key", c.Once("a", "key", b"", 1_000, put(PLAIN)), [1]),
    ("a message that is delayed", put(NewMessage(b"x", "t/p", delay_ms=5)), []),
    ("one that says when", put(NewMessage(b"x", "t/p", not_before_ms=5)), []),
    ("one that may be behind others", put(NewMessage(b"x", "t/p", group="g")), []),
    ("one that may be there already", put(NewMessage(b"x", "t/p", dedup_id="d")), []),
    ("one of several", put(NewMessage(b"x", "t/p", delay_ms=5), PLAIN), [1]),
    ("another queue", c.Enqueue("a", "elsewhere", (PLAIN,)), []),
    ("something else", c.Purge(*Q), []),
]


@pytest.mark.parametrize(
    ("command", "told"), [one[1:] for one in EXPECTED], ids=[one[0] for one in EXPECTED]
)
def test_who_waits_is_told_of_what_is_about_to_be_put(command: Command, told: list[int]) -> None:
    room, machine = Room(), Machine(MemoryKV())
    assert not room.waiters.expect(command, machine), "nobody waits"
    room.wait(Q, 1, 2, 3)
    assert room.waiters.expect(command, machine) == bool(told)
    assert room.woken == told
    assert room.waiters.parked == 3 - len(told)


def test_nobody_is_told_of_what_the_queue_delays() -> None:
    room, machine = Room(), Machine(MemoryKV())
    run(machine, c.PutQueue(*Q, QueueSettings(delay_ms=5)))
    room.wait(Q, 1)
    assert not room.waiters.expect(put(PLAIN), machine)


def test_what_the_same_entry_has_claimed_wakes_nobody() -> None:
    room, machine = Room(), Machine(MemoryKV())
    room.wait(Q, 1, 2, 3)
    run(machine, put(PLAIN), c.Claim(*Q, 1))
    room.waiters.applied(machine)
    assert room.woken == []
    run(machine, put(PLAIN, PLAIN), c.Claim(*Q, 1))
    room.waiters.applied(machine)
    assert room.woken == [1]


def run(machine: Machine, *done: Command) -> None:
    """All in the next entry."""
    batch = c.Batch(0, 0, 0, done)
    machine.apply(machine.applied_index + 1, 1, c.Entry(c.ENTRY_VERSION, 1_000, (batch,)))
