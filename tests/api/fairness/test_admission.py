"""A node says no while it still can, and to the right ones."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from api.fairness import admission
from api.fairness.admission import (
    CALM_S,
    INTERVAL_S,
    READING_S,
    SHARE,
    Admission,
    Kind,
    Place,
    kind_of,
)
from api.rest.operations import Operation
from api.rest.table import TABLE

ACTIVE_MIN = 64
WAIT_TARGET_S = 0.5
ACTIVE_MAX = 20_000
BYTES_MAX = 1_000_000
PUT = "/v1/{}/queues/q/messages"
ACK = "/v1/{}/queues/q/claims/0123/ack"


@pytest.fixture(autouse=True)
def enough_to_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "ACTIVE_MIN", ACTIVE_MIN)


class Node:
    """An admission with a clock of the test's."""

    def __init__(self, *, active_max: int = ACTIVE_MAX) -> None:
        self.now_s = 50.0
        self.shed: Counter[str] = Counter()
        self.admission = Admission(
            wait_target_s=WAIT_TARGET_S,
            active_max=active_max,
            bytes_max=BYTES_MAX,
            clock=lambda: self.now_s,
            observe=lambda kind: self.shed.update([kind.value]),
        )
        self.places: list[Place] = []

    def ask(self, path: str = PUT, account: str = "a", size: int = 0) -> bool:
        """Whether a request is let in; it stays, and is read at once."""
        place = self.admission.ask(*kind_of(path.format(account)), size)
        if place is not None:
            place.read()
            self.places.append(place)
        return place is not None

    def fill(self, count: int, *, accounts: int = 1) -> None:
        for number in range(count):
            assert self.ask(account=f"a{number % accounts}")

    def serve(self, count: int) -> None:
        for place in self.places[:count]:
            place.leave()
        del self.places[:count]

    def stand(self) -> None:
        """Let a queue stand for as long as it takes to be too long."""
        assert self.ask(account="witness")
        self.now_s += INTERVAL_S


def test_a_burst_is_let_in_and_a_queue_that_stands_is_not() -> None:
    node = Node()
    node.fill(3 * ACTIVE_MIN, accounts=100)
    node.now_s += INTERVAL_S - 0.01
    assert node.ask()
    node.now_s += 0.02
    assert not node.ask()
    assert node.shed == {"work": 1}


def test_a_request_that_goes_on_waits_where_a_new_one_would_be_turned_away() -> None:
    node = Node()
    stream = node.admission.ask(*kind_of(PUT.format("s")), 1_000)
    assert stream is not None
    assert stream.begin()
    stream.end()
    assert node.admission.active == 0
    node.fill(3 * ACTIVE_MIN)
    node.now_s += INTERVAL_S + 0.01
    assert not node.ask(account="a0")
    assert stream.begin()  # It is of another account, which has an equal part.
    stream.end()
    flooding = node.places[0]
    assert not flooding.begin()
    assert node.shed == {"work": 2}
    stream.leave()


def test_what_goes_on_counts_each_time_as_answered() -> None:
    node = Node()
    stream = node.admission.ask(*kind_of(PUT.format("s")), 0)
    assert stream is not None
    for _ in range(20):  # A thousand in a second make room for five hundred.
        for _ in range(100):
            assert stream.begin()
            stream.end()
        node.now_s += 0.1
    node.fill(400, accounts=400)
    node.stand()
    assert node.ask(account="another")


def test_what_a_stream_holds_is_what_it_has_in_memory() -> None:
    node = Node()
    stream = node.admission.ask(*kind_of(PUT.format("s")), 400_000)
    assert stream is not None
    assert stream.hold(1_000)
    assert node.admission.held_bytes == 1_000
    assert node.ask(account="other", size=BYTES_MAX - 2_000)
    assert not stream.hold(3_000)
    assert stream.hold(1_500)
    assert node.admission.held_bytes == BYTES_MAX - 500
    stream.leave()
    node.serve(1)
    assert node.admission.held_bytes == 0


def test_a_queue_that_was_worked_off_in_between_does_not_stand() -> None:
    node = Node()
    for _ in range(5):
        node.fill(2 * ACTIVE_MIN, accounts=100)
        node.now_s += INTERVAL_S - 0.01
        assert node.ask()
        node.serve(2 * ACTIVE_MIN + 1)
        assert node.ask()
        node.serve(1)


def test_once_it_stood_the_number_is_kept_to_until_nobody_had_to_be_turned_away() -> None:
    node = Node()
    node.fill(ACTIVE_MIN, accounts=100)
    node.stand()
    assert not node.ask()
    for _ in range(3):
        # Places that become free are given away, and no more than these.
        node.serve(ACTIVE_MIN // 4)
        while node.ask(account="b"):
            pass
        assert 0.8 * ACTIVE_MIN <= node.admission.active <= ACTIVE_MIN
    node.serve(ACTIVE_MIN)
    while node.ask(account="b"):
        pass
    assert node.admission.active < ACTIVE_MIN
    node.serve(ACTIVE_MIN)
    node.now_s += CALM_S
    node.fill(2 * ACTIVE_MIN, accounts=100)


@pytest.mark.parametrize("rate_per_s", [4 * ACTIVE_MIN, 40 * ACTIVE_MIN])
@pytest.mark.parametrize("lump_s", [0.01, 0.3], ids=["one by one", "by the log entry"])
def test_of_three_times_too_much_as_many_wait_as_are_answered_in_the_time_that_one_may(
    rate_per_s: int, lump_s: float
) -> None:
    node = Node()
    waiting: list[int] = []
    rounds = int(8 / lump_s)
    for number in range(rounds):
        for place in range(int(3 * rate_per_s * lump_s)):
            node.ask(account=f"a{place % 10}")
        if number > rounds // 2:
            waiting.append(node.admission.active)
            # Nobody waits for long, and the node is never without work.
            assert node.admission.active <= 1.5 * rate_per_s * WAIT_TARGET_S
            assert node.admission.active >= min(0.5 * WAIT_TARGET_S, lump_s) * rate_per_s
        node.serve(int(rate_per_s * lump_s))
        node.now_s += lump_s
    assert sum(waiting) / len(waiting) == pytest.approx(rate_per_s * WAIT_TARGET_S, rel=0.3)


def test_what_a_node_can_do_is_known_again_soon_after_a_pause() -> None:
    node = Node()
    rate_per_s = 100 * ACTIVE_MIN
    node.now_s += 1_000.0
    # Clients that wait for each other's answers: as many as are answered in a third of a second.
    node.fill(rate_per_s // 3, accounts=1)
    for _ in range(300):
        node.now_s += 0.01
        node.serve(rate_per_s // 100)
        for _ in range(rate_per_s // 100):
            assert node.ask(account="a0")


def test_a_second_without_answers_does_not_make_a_node_take_less() -> None:
    node = Node()
    rate_per_s = 40 * ACTIVE_MIN
    for _ in range(500):
        node.now_s += 0.01
        node.fill(rate_per_s // 100, accounts=100)
        node.serve(rate_per_s // 100)
    for _ in range(10):
        node.now_s += 0.1
        node.ask()  # Somebody has to come for the node to look at itself.
    node.fill(int(rate_per_s * WAIT_TARGET_S), accounts=100)
    node.stand()
    assert not node.ask()
    node.serve(rate_per_s)
    while node.ask(account=f"a{node.admission.active % 100}"):
        pass
    assert node.admission.active > 0.7 * rate_per_s * WAIT_TARGET_S


def test_what_finishes_work_is_let_in_twice_as_long() -> None:
    node = Node()
    node.fill(ACTIVE_MIN, accounts=100)
    node.stand()
    assert not node.ask(PUT, "b")
    let_in = 0
    while node.ask(ACK, f"c{let_in % 10}"):
        let_in += 1
    assert 0.8 * ACTIVE_MIN <= let_in <= ACTIVE_MIN
    assert node.shed == {"work": 1, "finishing": 1}


def test_how_the_node_is_can_always_be_asked() -> None:
    node = Node(active_max=10)
    for path in ("/livez", "/readyz", "/metrics", "/cluster", "/cluster/members"):
        for _ in range(30):
            assert node.ask(path, size=BYTES_MAX)


def test_who_floods_the_node_is_shed_and_who_does_not_is_not() -> None:
    node = Node()
    while node.admission.active < 3 * ACTIVE_MIN:
        assert node.ask(account="noisy")
    node.stand()
    assert not node.ask(account="noisy")
    # Worked off in order; the noisy one comes again at once, the quiet one now and then.
    for number in range(4 * ACTIVE_MIN):
        node.serve(1)
        node.ask(account="noisy")
        if number > 2.2 * ACTIVE_MIN and number % 20 == 0:
            assert node.ask(account="quiet")
    assert node.shed["work"] > 2 * ACTIVE_MIN


def test_who_comes_to_a_node_that_somebody_has_filled_is_served_at_once() -> None:
    node = Node()
    while node.admission.active < 3 * ACTIVE_MIN:
        assert node.ask(account="noisy")
    node.stand()
    assert not node.ask(account="noisy")
    let_in = 0
    while node.ask(account="quiet"):
        let_in += 1
    assert 0.2 * ACTIVE_MIN < let_in < 0.5 * ACTIVE_MIN


def test_names_without_end_get_no_more_than_there_is() -> None:
    node = Node()
    node.fill(ACTIVE_MIN, accounts=100)
    node.stand()
    let_in = sum(node.ask(account=f"invented{number}") for number in range(10_000))
    assert let_in <= ACTIVE_MIN


def test_nothing_is_remembered_of_who_asks_how_the_node_is() -> None:
    node = Node()
    for _ in range(1_000):
        place = node.admission.ask(*kind_of("/livez"), 10)
        assert place is not None
        place.leave()
        node.now_s += 0.1
    assert len(node.admission._reading) < 20


def test_however_short_they_stay_there_is_an_end() -> None:
    node = Node(active_max=50)
    node.fill(50, accounts=100)
    assert not node.ask()
    assert node.ask(ACK)


def test_who_takes_long_to_say_what_he_wants_keeps_nobody_out() -> None:
    node = Node(active_max=10)
    slow = [node.admission.ask(*kind_of(PUT.format("a")), 10) for _ in range(9)]
    assert node.admission.active == 9
    node.now_s += READING_S + 0.1
    node.fill(9)
    assert node.admission.active == 9
    for place in slow:
        assert place is not None
        place.read()
    assert node.admission.active == 18
    assert not node.ask()
    for place in slow:
        assert place is not None
        place.leave()
    node.serve(9)
    assert (node.admission.active, node.admission.held_bytes) == (0, 0)


def test_a_slow_client_is_stepped_aside_also_while_there_is_no_room_for_anybody() -> None:
    node = Node()
    assert node.admission.ask(*kind_of(PUT.format("a")), 10) is not None
    node.now_s += READING_S + 0.1
    assert not node.ask(size=BYTES_MAX)
    assert node.admission.active == 0


def test_who_was_read_in_time_or_has_left_is_not_stepped_aside_later() -> None:
    node = Node()
    assert node.ask(size=10)
    gone = node.admission.ask(*kind_of(PUT.format("a")), 10)
    assert gone is not None
    gone.leave()
    node.now_s += READING_S + 0.1
    assert node.ask()
    assert node.admission.active == 2


def test_who_waits_for_something_keeps_nobody_out() -> None:
    node = Node(active_max=10)
    node.fill(9)
    for place in node.places:
        place.step_aside()
        place.step_aside()
    assert node.admission.active == 0
    node.fill(9)
    assert node.admission.active == 9


def test_bodies_are_counted_together_before_they_are_read() -> None:
    node = Node()
    assert node.ask(account="a", size=BYTES_MAX // 2)
    assert not node.ask(account="b", size=BYTES_MAX // 2 + 1)
    assert node.ask(account="b", size=BYTES_MAX // 2)
    assert not node.ask(account="c", size=1)
    assert node.ask(ACK, "c", size=100)
    node.serve(1)
    assert node.ask(account="c", size=100)


def test_one_account_alone_cannot_have_all_bytes() -> None:
    node = Node()
    while node.ask(account="a", size=BYTES_MAX // 100):
        pass
    assert node.admission.held_bytes <= BYTES_MAX * (SHARE + 0.2) / (SHARE + 1)
    assert node.ask(account="b", size=BYTES_MAX // 20)


def test_who_has_left_is_forgotten() -> None:
    node = Node()
    for number in range(1_000):
        assert node.ask(account=f"a{number}", size=10)
        node.serve(1)
    assert (node.admission.active, node.admission.held_bytes) == (0, 0)
    assert node.admission._accounts == {}


FINISHING = {
    "ack_messages",
    "nack_messages",
    "inspect_claim",
    "extend_claim",
    "extend_claims",
    "release_claim",
    "transact",
}
ALWAYS = {"live", "ready", "show_metrics", "show_cluster", "show_zones", "list_members"}


@pytest.mark.parametrize("operation", TABLE, ids=lambda operation: operation.id)
def test_each_route_is_shed_in_its_turn(operation: Operation[Any]) -> None:
    path = operation.path.replace("{account}", "shop").replace("{queue}", "claims")
    kind, account = kind_of(path)
    assert account == ("shop" if "{account}" in operation.path else "")
    if operation.id in ALWAYS:
        assert kind is Kind.ALWAYS
    elif account:
        assert kind is (Kind.FINISHING if operation.id in FINISHING else Kind.WORK)


@pytest.mark.parametrize("path", ["", "/", "/v1", "/nothing/here/at/all", "//", "/v1//queues", "*"])
def test_what_is_no_route_is_shed_like_work(path: str) -> None:
    assert kind_of(path)[0] is Kind.WORK
