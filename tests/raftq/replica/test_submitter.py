"""Every command gets one answer, whatever becomes of leaders, batches and sessions."""

from __future__ import annotations

import pytest

from fake_runtime import FakeRuntime, QuietMeter
from raftq.replica import submitter
from raftq.replica.gathering import WAIT_MAX_S
from raftq.replica.submitter import Accepted, Answer, NotSubmitted, Submitter, Unknown
from statemachine import commands
from statemachine.commands import (
    Barrier,
    Batch,
    Command,
    Enqueue,
    NewMessage,
    OpenSession,
    Purge,
)
from statemachine.outcomes import Deleted, Done, Outcome, Reason, Refused, SessionOpened

SESSION = 7
TIMEOUT_S = 10.0
PENDING_MAX = 20_000
PENDING_BYTES_MAX = 1 << 27
EXPIRED = (Refused(Reason.SESSION_EXPIRED, ""),)
STALE = (Refused(Reason.STALE_BATCH, ""),)
LOST = Unknown("the node's session expired")


def command(number: int) -> Command:
    return Purge("a", str(number))


class Node:
    """A submitter and the leader it talks to."""

    def __init__(
        self, *, pending_max: int = PENDING_MAX, pending_bytes_max: int = PENDING_BYTES_MAX
    ) -> None:
        self.runtime = FakeRuntime()
        self.meter = QuietMeter()
        self.sent: list[Batch] = []
        self.told: list[bool] = []  # Whether the leader is to say that it has taken it.
        self.requests: list[int] = []  # That the batches are of.
        self.reachable = True
        self.wishes: list[Command] = []  # Of who is told of each command, and asks in his turn.
        self.submitter = Submitter(
            self,
            self.runtime,
            self.meter,
            name="n1",
            pending_max=pending_max,
            pending_bytes_max=pending_bytes_max,
            timeout_s=TIMEOUT_S,
            expect=self.expect,
        )

    def expect(self, _command: Command) -> bool:
        """Whoever waits for it submits when it is his turn."""
        if not self.wishes:
            return False
        wish = self.wishes.pop()
        self.runtime.call_soon(lambda: self.submitter.submit(wish, 100, lambda _answer: None))
        return True

    def offer(self, batch: Batch, encoded: bytes, *, tell: bool, requests: int) -> bool:
        assert commands.decode_batch(encoded) == batch
        if self.reachable:
            self.told.append(tell)
            self.sent.append(batch)
            self.requests.append(requests)
        return self.reachable

    def open_session(self, session: int = SESSION) -> None:
        """The last OpenSession that was sent is applied."""
        opened = [one for one in self.sent if one.session == 0][-1].commands[0]
        assert isinstance(opened, OpenSession)
        self.submitter.session_opened(opened.node, SessionOpened(session))
        self.runtime.turn()
        self.sent = [one for one in self.sent if one.session]

    def submit(self, *numbers: int, size: int = 100) -> list[Answer]:
        """The answers of all, in the order in which they come."""
        answers: list[Answer] = []
        for number in numbers:
            self.submitter.submit(command(number), size, answers.append)
        return answers

    def submit_early(self, number: int) -> list[Answer]:
        """What an answer before the outcome is enough for."""
        answers: list[Answer] = []
        self.submitter.submit(command(number), 100, answers.append, early=True)
        return answers

    def submit_in_turns(self, *numbers: int) -> list[Answer]:
        """Each in its own turn of the loop."""
        answers: list[Answer] = []
        for number in numbers:
            self.submitter.submit(command(number), 100, answers.append)
            self.runtime.turn()
        return answers

    def apply(self, seq: int, *outcomes: Outcome, session: int = SESSION) -> None:
        self.submitter.applied(session, seq, outcomes)
        self.runtime.turn()

    def answer_three(self, after_s: float = 0.0) -> None:
        """The commands 1 to 3 are in one batch, which is applied after so long."""
        self.submit(1, 2, 3)
        self.runtime.turn()
        self.runtime.pass_time(after_s)
        self.apply(1, Deleted(1), Deleted(2), Deleted(3))
        self.take_sent()

    def wait(self) -> None:
        """As long as anybody is waited for."""
        self.runtime.pass_time(WAIT_MAX_S)
        self.runtime.turn()

    def take_sent(self) -> list[tuple[int, int, list[str]]]:
        """(sequence number, floor, the numbers of the commands) of each batch sent since."""
        taken = [
            (one.seq, one.floor, [c.queue for c in one.commands if isinstance(c, Purge)])
            for one in self.sent
        ]
        self.sent = []
        return taken

    def take_seqs(self) -> list[int]:
        return [seq for seq, _, _ in self.take_sent()]


@pytest.fixture
def node() -> Node:
    """With a session open."""
    node = Node()
    node.runtime.pass_time(submitter.WATCH_S)
    node.open_session()
    assert node.take_sent() == []
    return node


def test_what_is_submitted_in_one_turn_of_the_loop_is_one_batch(node: Node) -> None:
    answers = node.submit(1, 2, 3)
    assert len(node.runtime.soon) == 1
    assert node.sent == []
    node.runtime.turn()
    assert node.take_sent() == [(1, 1, ["1", "2", "3"])]
    node.apply(1, Deleted(1), Deleted(2), Deleted(3))
    assert answers == [Deleted(1), Deleted(2), Deleted(3)]
    assert node.submitter.pending == 0


def test_what_is_submitted_together_is_in_one_batch_however_full_that_is(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitter, "BATCH_COMMANDS_MAX", 2)
    first = node.submit(1)
    answers: list[Answer] = []
    node.submitter.submit_all([(command(n), 100, answers.append) for n in (2, 3)])
    rest = node.submit(4)
    node.runtime.turn()
    assert node.sent[0].commands == tuple(command(n) for n in (1, 2, 3))
    node.submitter.applied(SESSION, 1, (Deleted(1), Deleted(2), Deleted(3)))
    assert (first, answers) == ([Deleted(1)], [Deleted(2), Deleted(3)])
    assert node.sent[1].commands == (command(4),)
    assert not rest


def test_what_is_submitted_together_is_refused_together() -> None:
    node = Node(pending_max=2)
    node.runtime.pass_time(submitter.WATCH_S)
    node.open_session()
    answers = node.submit(1)
    both: list[Answer] = []
    node.submitter.submit_all([(command(n), 100, both.append) for n in (2, 3)])
    assert both == [NotSubmitted("overloaded")] * 2
    node.runtime.turn()
    assert node.sent[-1].commands == (command(1),)
    node.submitter.stop()
    node.submitter.submit_all([(command(n), 100, both.append) for n in (2, 3)])
    assert both[2:] == [NotSubmitted("stopping")] * 2
    assert not answers


def test_two_batches_are_in_flight_and_the_rest_is_the_third(node: Node) -> None:
    answers = node.submit_in_turns(1, 2, 3, 4)
    assert node.take_sent() == [(1, 1, ["1"]), (2, 1, ["2"])]
    assert node.submitter.pending == 4
    node.apply(1, Deleted(1))
    assert node.take_sent() == [(3, 2, ["3", "4"])]
    node.apply(2, Deleted(2))
    node.apply(3, Deleted(3), Deleted(4))
    assert answers == [Deleted(1), Deleted(2), Deleted(3), Deleted(4)]


def test_the_floor_is_the_lowest_batch_in_flight_whatever_comes_back_first(node: Node) -> None:
    node.submit_in_turns(1, 2)
    node.apply(2, Deleted(1))
    node.submit_in_turns(3)
    node.wait()
    assert node.take_sent() == [(1, 1, ["1"]), (2, 1, ["2"]), (1, 1, ["1"]), (3, 1, ["3"])]
    node.apply(1, Deleted(1))
    node.apply(3, Deleted(1))
    node.submit_in_turns(4)
    node.wait()
    assert node.take_sent() == [(4, 4, ["4"])]


MIB = submitter.BATCH_BYTES_MAX
CUTS = [
    # (sizes, how many commands are in each of the first batches)
    ("all fit exactly", [MIB - 200, 100, 100], [3]),
    ("one byte too many", [MIB - 199, 100, 100], [2, 1]),
    ("one alone may be larger", [MIB + 1, 100, 100], [1, 2]),
    ("a large one does not go along", [100, MIB, 100], [1, 1]),
    ("the most commands", [1] * submitter.BATCH_COMMANDS_MAX, [submitter.BATCH_COMMANDS_MAX]),
    ("one too many", [1] * (submitter.BATCH_COMMANDS_MAX + 1), [submitter.BATCH_COMMANDS_MAX, 1]),
]


@pytest.mark.parametrize(("sizes", "counts"), [c[1:] for c in CUTS], ids=[c[0] for c in CUTS])
def test_a_batch_ends_at_its_bytes_or_its_commands(
    node: Node, sizes: list[int], counts: list[int]
) -> None:
    for number, size in enumerate(sizes):
        node.submit(number, size=size)
    node.runtime.turn()
    sent = node.take_sent()
    assert [len(numbers) for _, _, numbers in sent] == counts
    order = [number for _, _, numbers in sent for number in numbers]
    assert order == [str(number) for number in range(len(order))]


def test_a_new_leader_gets_what_is_in_flight_again_unchanged_and_in_order(node: Node) -> None:
    node.submit_in_turns(1, 2, 3)
    before = list(node.sent)
    node.submitter.leader_changed()
    node.runtime.turn()
    assert node.sent == before * 2


def test_patience_doubles_with_each_time_that_a_batch_is_sent(node: Node) -> None:
    node.submit_in_turns(1)
    began = node.runtime.now
    sent_after = []
    while node.runtime.now - began < 32:
        seen = len(node.sent)
        node.runtime.pass_time(submitter.WATCH_S)
        if len(node.sent) > seen:
            sent_after.append(node.runtime.now - began)
    assert {one.seq for one in node.sent} == {1}
    gaps = [late - early for early, late in zip([0.0, *sent_after], sent_after, strict=False)]
    assert len(gaps) == 4
    for gap, patience_s in zip(gaps, (2, 4, 8, 16), strict=True):
        assert patience_s <= gap <= patience_s + 2 * submitter.WATCH_S


def test_patience_has_an_end_however_long_it_lasts(node: Node) -> None:
    node.submit_in_turns(1)
    node.runtime.pass_time(20 * submitter.RESEND_MAX_S)
    for _ in range(3):
        node.take_sent()
        node.runtime.pass_time(submitter.RESEND_MAX_S + 2 * submitter.WATCH_S)
        assert node.take_seqs() == [1]


def test_patience_begins_anew_with_a_new_leader(node: Node) -> None:
    node.submit_in_turns(1)
    node.runtime.pass_time(submitter.RESEND_S + 2 * submitter.RESEND_S + 4 * submitter.WATCH_S)
    node.submitter.leader_changed()
    node.take_sent()
    node.runtime.pass_time(submitter.RESEND_S + 2 * submitter.WATCH_S)
    assert node.take_seqs() == [1]


def test_what_was_overtaken_is_lost_and_goes_out_at_once_with_its_first_patience(
    node: Node,
) -> None:
    node.submit_in_turns(1)
    node.runtime.pass_time(submitter.RESEND_S + submitter.WATCH_S)
    node.submit_in_turns(2)
    assert node.take_seqs() == [1, 1, 2]
    node.apply(2, Deleted(1))
    assert node.take_seqs() == [1]
    node.runtime.pass_time(submitter.RESEND_S + 2 * submitter.WATCH_S)
    assert node.take_seqs() == [1]


def test_what_was_sent_later_is_not_overtaken(node: Node) -> None:
    node.submit_in_turns(1, 2)
    node.apply(1, Deleted(1))
    node.submit_in_turns(3)
    node.wait()
    assert node.take_seqs() == [1, 2, 3]
    node.runtime.pass_time(submitter.RESEND_S + submitter.WATCH_S)
    assert node.take_seqs() == [2, 3]
    node.apply(2, Deleted(1))
    assert node.take_seqs() == []


def test_what_was_not_even_sent_goes_out_at_the_next_look_without_losing_patience(
    node: Node,
) -> None:
    node.reachable = False
    node.submit_in_turns(1)
    node.runtime.pass_time(5)
    node.reachable = True
    node.runtime.pass_time(submitter.WATCH_S)
    assert node.take_seqs() == [1]
    node.runtime.pass_time(submitter.RESEND_S - submitter.WATCH_S)
    assert node.take_seqs() == []
    node.runtime.pass_time(2 * submitter.WATCH_S)
    assert node.take_seqs() == [1]


def test_after_the_timeout_the_client_hears_unknown_and_the_batch_stays(node: Node) -> None:
    answers = node.submit_in_turns(1)
    node.runtime.pass_time(TIMEOUT_S)
    assert answers == []
    node.runtime.pass_time(2 * submitter.WATCH_S)
    assert answers == [Unknown("no majority answered in time")]
    node.take_sent()
    # It keeps its place: the floor must not pass it, and it is still sent to whoever leads.
    node.submit_in_turns(2)
    assert node.take_sent() == [(2, 1, ["2"])]
    node.submitter.leader_changed()
    node.runtime.turn()
    assert node.take_seqs() == [1, 2]
    node.apply(1, Deleted(1))
    assert answers == [Unknown("no majority answered in time")]
    node.submit_in_turns(3)
    node.wait()
    assert node.take_sent() == [(3, 2, ["3"])]


def test_what_was_given_up_is_answered_once_however_long_it_stays(node: Node) -> None:
    answers = node.submit(1, 2)
    node.runtime.pass_time(5 * TIMEOUT_S)
    assert answers == [Unknown("no majority answered in time")] * 2
    assert node.submitter.pending == 0


def test_what_never_left_the_queue_is_refused_for_want_of_a_leader() -> None:
    node = Node()
    node.reachable = False
    answers = node.submit(1)
    node.runtime.pass_time(TIMEOUT_S)
    assert answers == []
    node.runtime.pass_time(2 * submitter.WATCH_S)
    assert answers == [NotSubmitted("no_leader")]
    assert node.submitter.pending == 0


def test_behind_batches_that_are_stuck_the_queue_hears_that_nothing_was_done(node: Node) -> None:
    answers = node.submit_in_turns(1, 2, 3)
    node.runtime.pass_time(TIMEOUT_S + 2 * submitter.WATCH_S)
    assert sorted(map(type, answers), key=str) == [NotSubmitted, Unknown, Unknown]


def test_a_full_node_refuses_until_something_is_settled() -> None:
    node = Node(pending_max=3)
    node.open_session()
    assert node.submit_in_turns(1, 2, 3) == []
    assert node.submit(4) == [NotSubmitted("overloaded")]
    node.apply(1, Deleted(1))
    assert node.submit(5) == []
    assert node.submitter.pending == 3


def test_who_fills_the_node_is_refused_before_there_is_no_room_for_anybody_else() -> None:
    node = Node(pending_max=90)
    answers = node.submit(*range(90))
    assert answers == [NotSubmitted("overloaded")] * 10
    others: list[Answer] = []
    node.submitter.submit(Purge("b", "1"), 100, others.append)
    assert others == []


def test_a_node_whose_pending_commands_are_too_large_takes_no_more() -> None:
    node = Node(pending_bytes_max=1_000)
    assert node.submit(1, size=800) == []
    assert node.submit(2, size=101) == [NotSubmitted("overloaded")]
    assert node.submit(3, size=100) == []
    assert node.submitter.pending == 2


@pytest.mark.parametrize(
    ("whose", "accounts"),
    [(None, {"b"}), ("a", {"a"})],
    ids=["as the command says", "as the caller says"],
)
def test_who_comes_to_a_queue_full_of_one_account_is_in_the_next_batch(
    node: Node, whose: str | None, accounts: set[str]
) -> None:
    node.submit_in_turns(1, 2)  # The two batches that may be under way.
    node.submit(*range(100), size=MIB // 8)
    node.submitter.submit(Purge("b", "x"), 100, lambda _: None, account=whose)
    node.take_sent()
    node.apply(1, Deleted(1))
    assert {one.account for one in node.sent[-1].commands if isinstance(one, Purge)} == accounts


def test_those_who_were_answered_together_are_sent_together(node: Node) -> None:
    node.answer_three()
    node.submit_in_turns(4, 5)
    assert node.take_sent() == []
    node.submit_in_turns(6)
    assert node.take_sent() == [(2, 2, ["4", "5", "6"])]


def test_who_has_asked_for_two_things_at_once_is_waited_for_once(node: Node) -> None:
    for first in (1, 3):
        both = (first, first + 1)
        node.submitter.submit_all([(command(n), 100, lambda _: None) for n in both])
    node.runtime.turn()
    assert node.take_sent() == [(1, 1, ["1", "2", "3", "4"])]
    node.apply(1, *[Deleted(n) for n in range(4)])
    node.submit_in_turns(5)
    assert node.take_sent() == []
    node.submit_in_turns(6)
    assert node.take_sent() == [(2, 2, ["5", "6"])]
    assert node.requests[-2:] == [2, 2]


def test_who_does_not_come_again_is_waited_for_a_moment_only(node: Node) -> None:
    node.answer_three()
    node.submit_in_turns(4, 5)
    node.wait()
    assert node.take_sent() == [(2, 2, ["4", "5"])]


def test_the_moment_is_short_after_a_short_commit(node: Node) -> None:
    node.answer_three(after_s=0.001)
    node.runtime.pass_time(1)
    node.submit_in_turns(4)
    node.runtime.pass_time(0.0025)
    node.runtime.turn()
    assert node.take_sent() == [(2, 2, ["4"])]


def test_the_moment_begins_when_the_first_of_them_comes_again(node: Node) -> None:
    node.answer_three()
    node.wait()
    node.submit_in_turns(4)
    assert node.take_sent() == []
    node.wait()
    assert node.take_sent() == [(2, 2, ["4"])]


def test_with_a_new_session_nobody_of_the_old_one_is_waited_for(node: Node) -> None:
    node.submit(1, 2, 3)
    node.runtime.turn()
    node.apply(1, *EXPIRED * 3)
    node.open_session(SESSION + 1)
    node.submit_in_turns(4)
    assert [queues for _, _, queues in node.take_sent()][-1] == ["4"]


def test_while_several_accounts_come_little_is_under_way_and_alone_one_has_large_batches(
    node: Node,
) -> None:
    def sizes(*accounts: str) -> list[int]:
        """Commands in each of the two batches that are sent; all are settled then."""
        for account in accounts:
            for _ in range(40):
                node.submitter.submit(Purge(account, "q"), 8 << 10, lambda _: None)
        node.runtime.turn()
        sent, node.sent = node.sent, []
        first = [len(one.commands) for one in sent[:2]]
        while sent:
            for one in sent:
                node.apply(one.seq, *[Deleted(1)] * len(one.commands))
            sent, node.sent = node.sent, []
        return first

    assert sizes("a") == [40]
    assert sizes("a", "b") == [8, 8]
    assert sizes("b") == [8, 8]  # The other one may come again at any moment.
    node.runtime.pass_time(submitter.SHARED_S + 0.1)
    assert sizes("b") == [40]


def test_while_several_accounts_come_only_others_follow_what_is_large_until_it_is_settled(
    node: Node,
) -> None:
    def put(account: str, size: int) -> None:
        command = Enqueue(account, "q", (NewMessage(b"x" * size, "text/plain"),))
        node.submitter.submit(command, size, lambda _: None)
        node.runtime.turn()

    large = submitter.SHARED_BATCH_BYTES_MAX
    for account, size in (("a", large), ("a", large), ("b", 10)):
        put(account, size)
    assert node.take_seqs() == [1, 2]  # One account alone has two under way.
    node.apply(1, Deleted(1))
    assert node.take_seqs() == [3]  # That of b: a has filled the other one.
    node.apply(2, Deleted(1))
    node.apply(3, Deleted(1))
    put("b", large)
    assert node.take_seqs() == [4]
    put("b", 10)
    assert node.take_seqs() == []
    put("a", 10)
    assert node.take_seqs() == [5]
    node.apply(4, Deleted(1))
    assert node.take_seqs() == [6]


def test_a_stopping_node_takes_nothing_more_and_settles_what_it_took(node: Node) -> None:
    answers = node.submit_in_turns(1, 2, 3)
    node.submitter.stop()
    assert node.submit(4) == [NotSubmitted("stopping")]
    node.apply(1, Deleted(1))
    node.apply(2, Deleted(2))
    node.wait()
    node.apply(3, Deleted(3))
    assert answers == [Deleted(1), Deleted(2), Deleted(3)]


@pytest.mark.parametrize("outcomes", [EXPIRED, STALE], ids=["expired", "stale"])
def test_a_lost_session_answers_unknown_and_another_one_is_opened(
    node: Node, outcomes: tuple[Outcome, ...]
) -> None:
    answers = node.submit_in_turns(1, 2)
    queued = node.submit_in_turns(3)
    node.take_sent()
    node.apply(1, *outcomes)
    assert answers == [LOST, LOST]
    assert not node.submitter.has_session
    # What was not sent yet is not lost: it waits for the new session.
    assert queued == []
    assert node.submitter.pending == 1
    node.open_session(8)
    assert [(one.session, one.seq, one.floor) for one in node.sent] == [(8, 3, 3)]
    node.apply(3, Deleted(3), session=8)
    assert queued == [Deleted(3)]


def test_each_session_is_asked_for_under_a_token_of_its_own(node: Node) -> None:
    node.submit_in_turns(1)
    node.apply(1, *EXPIRED)
    first = Node()
    asked = [one.commands[0] for one in (*first.sent, *node.sent) if one.session == 0]
    assert len(asked) == 2
    assert len(set(asked)) == 2


def test_a_refused_command_is_not_a_lost_session(node: Node) -> None:
    refused = Refused(Reason.NO_QUEUE, "")
    answers = node.submit_in_turns(1)
    node.apply(1, refused)
    assert answers == [refused]
    assert node.submitter.has_session


def test_a_second_copy_of_a_settled_batch_is_ignored(node: Node) -> None:
    answers = node.submit_in_turns(1)
    node.apply(1, Deleted(1))
    node.apply(1, Deleted(9))
    node.apply(1, *STALE)
    assert answers == [Deleted(1)]
    assert node.submitter.has_session
    assert node.submitter.pending == 0


def test_batches_of_other_sessions_are_nobodys(node: Node) -> None:
    answers = node.submit_in_turns(1)
    node.apply(1, Deleted(1), session=SESSION + 1)
    node.apply(1, *EXPIRED, session=SESSION + 1)
    assert answers == []
    assert node.submitter.has_session


def test_only_the_session_that_was_asked_for_is_taken() -> None:
    node = Node()
    node.submitter.session_opened("n2/0000000000000001", SessionOpened(3))
    assert not node.submitter.has_session
    node.open_session(4)
    opened = OpenSession("n1/0000000000000001")
    node.submitter.session_opened(opened.node, SessionOpened(5))
    node.submit(1)
    node.runtime.turn()
    assert [one.session for one in node.sent] == [4]


def test_an_idle_session_is_kept_alive_by_a_batch_now_and_then(node: Node) -> None:
    node.runtime.pass_time(submitter.KEEP_SESSION_S / 2)
    node.submit_in_turns(1)
    node.apply(1, Deleted(1))
    node.take_sent()
    node.runtime.pass_time(submitter.KEEP_SESSION_S - 1)
    assert node.sent == []
    node.runtime.pass_time(2)
    assert [(one.seq, one.commands) for one in node.sent] == [(2, (Barrier(),))]
    node.apply(2, Done())
    assert node.submitter.pending == 0
    node.runtime.pass_time(submitter.KEEP_SESSION_S - 5)
    assert len(node.sent) == 1


def test_a_session_is_asked_for_again_only_after_a_while_or_of_a_new_leader() -> None:
    node = Node()
    assert len(node.sent) == 1
    node.submit(1)
    node.runtime.pass_time(submitter.OPEN_AGAIN_S / 2)
    assert len(node.sent) == 1
    node.submitter.leader_changed()
    node.runtime.turn()
    assert len(node.sent) == 2
    node.runtime.pass_time(submitter.OPEN_AGAIN_S + submitter.WATCH_S)
    assert len(node.sent) == 3
    assert {one.commands for one in node.sent} == {node.sent[0].commands}


def test_a_session_that_could_not_be_asked_for_is_asked_for_at_the_next_look() -> None:
    node = Node()
    node.sent = []
    node.reachable = False
    node.submitter.leader_changed()
    node.runtime.pass_time(submitter.WATCH_S)
    node.reachable = True
    node.runtime.pass_time(submitter.WATCH_S)
    assert len(node.sent) == 1


def test_who_asked_for_less_is_answered_when_the_leader_has_taken_it(node: Node) -> None:
    early, late = node.submit_early(1), node.submit(2)
    node.runtime.turn()
    assert node.told[-1]
    node.submitter.accepted(SESSION, 1)
    node.submitter.accepted(SESSION, 1)
    assert (early, late) == ([Accepted()], [])
    assert node.submitter.pending == 2
    node.submitter.leader_changed()
    assert not node.told[-1]
    node.apply(1, Deleted(1), Deleted(2))
    assert (early, late) == ([Accepted()], [Deleted(2)])
    assert node.submitter.pending == 0


def test_an_outcome_that_comes_first_is_the_answer(node: Node) -> None:
    early = node.submit_early(1)
    node.runtime.turn()
    node.apply(1, Deleted(1))
    node.submitter.accepted(SESSION, 1)
    assert early == [Deleted(1)]


def test_nobody_is_told_of_what_another_session_s_batch_came_to(node: Node) -> None:
    early = node.submit_early(1)
    node.runtime.turn()
    node.submitter.accepted(SESSION + 1, 1)
    node.submitter.accepted(SESSION, 2)
    assert early == []


def test_what_was_taken_and_then_lost_is_not_heard_of_again(node: Node) -> None:
    early = node.submit_early(1)
    node.runtime.turn()
    node.submitter.accepted(SESSION, 1)
    node.runtime.pass_time(TIMEOUT_S + 2 * submitter.WATCH_S)
    node.apply(1, *EXPIRED)
    assert early == [Accepted()]


def test_the_meter_hears_how_long_a_batch_took(node: Node) -> None:
    node.submit_in_turns(1)
    node.runtime.pass_time(0.5)
    node.apply(1, Deleted(1))
    node.apply(1, Deleted(1))
    assert node.meter.commit_seconds == [pytest.approx(0.5)]


@pytest.mark.parametrize("earlier", [(), (7,)], ids=["alone", "behind another one"])
def test_who_is_told_of_a_command_gets_into_its_batch(earlier: tuple[int, ...]) -> None:
    node = Node()
    node.open_session()
    node.submit(*earlier)
    node.wishes = [command(2)]
    node.submit(1)
    node.runtime.turn()
    node.runtime.turn()
    (batch,) = node.sent
    assert batch.commands == tuple(command(number) for number in (*earlier, 1, 2))


def test_commands_are_not_held_up_however_many_are_told_of_them() -> None:
    node = Node()
    node.open_session()
    node.wishes = [command(number) for number in range(100)]
    node.submit(100)
    node.runtime.turn()
    node.runtime.turn()
    (first,) = node.sent
    assert first.commands == (command(100), command(99), command(98))
