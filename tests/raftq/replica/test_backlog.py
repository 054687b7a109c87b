"""Accounts are served in fair shares, each in its order, and none takes up all the room."""

from __future__ import annotations

from collections import Counter, defaultdict, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from raftq.replica.backlog import COMMAND_COST, QUANTUM, SHARE, Backlog, Waiting
from statemachine.commands import Purge

COMMANDS_MAX = 1_000_000
BYTES_MAX = 1 << 40
BATCH = 64  # Commands: small, so that batches end in the middle of turns.
BATCH_BYTES = 4 * QUANTUM
SIZES = st.one_of(st.integers(0, 300), st.integers(0, 3 * QUANTUM))
DEAREST = 3 * QUANTUM + COMMAND_COST
ACCOUNTS = ("a", "b", "c")


def backlog(*, commands_max: int = COMMANDS_MAX, bytes_max: int = BYTES_MAX) -> Backlog[object]:
    return Backlog(commands_max=commands_max, bytes_max=bytes_max)


def waiting(account: str, number: int = 0, size: int = 100, since: float = 0) -> Waiting[object]:
    return Waiting(Purge(account, str(number)), size, lambda _: None, since, False, account)


def cost(one: Waiting[object]) -> int:
    return one.size + COMMAND_COST


def take(
    queue: Backlog[object], commands: int = BATCH, size: int = BATCH_BYTES
) -> list[Waiting[object]]:
    return queue.take(commands_max=commands, bytes_max=size)


@given(
    sizes=st.lists(st.lists(SIZES, min_size=1, max_size=20), min_size=3, max_size=3),
    held_up=st.lists(st.sets(st.sampled_from(ACCOUNTS)).map(frozenset), max_size=30),
)
def test_who_is_held_up_is_given_nothing_and_owed_nothing(
    sizes: list[list[int]], held_up: list[frozenset[str]]
) -> None:
    queue = backlog()
    left = {account: deque(range(len(own))) for account, own in zip(ACCOUNTS, sizes, strict=True)}
    for account, own in zip(ACCOUNTS, sizes, strict=True):
        for number, size in enumerate(own):
            queue.add([waiting(account, number, size)], 0)
    for others in held_up:
        taken = queue.take(commands_max=BATCH, bytes_max=BATCH_BYTES, held_up=others)
        assert bool(taken) == any(own for account, own in left.items() if account not in others)
        for one in taken:
            assert one.account not in others
            assert one.command == Purge(one.account, str(left[one.account].popleft()))
        # Below nought: it has spent a part of the quantum that it gave back when passed over.
        # Above that, it has saved up for its next command, and begun its turn.
        assert all(-QUANTUM <= flow.deficit <= DEAREST + QUANTUM for flow in queue._turns)
    while queue:
        assert take(queue)


@given(
    joined=st.lists(st.tuples(st.sampled_from(ACCOUNTS), st.integers(1, 3)), max_size=60),
    commands=st.integers(1, 8),
    batch_bytes=st.integers(1, 1_000),
)
def test_what_goes_along_is_in_the_same_batch_and_all_is_given_in_order(
    joined: list[tuple[str, int]], commands: int, batch_bytes: int
) -> None:
    queue = backlog()
    left: defaultdict[str, deque[Waiting[object]]] = defaultdict(deque)
    for number, (account, count) in enumerate(joined):
        ones = [waiting(account, number) for _ in range(count)]
        ones[:-1] = [replace(one, is_joined=True) for one in ones[:-1]]
        assert queue.add(ones, 0)
        left[account].extend(ones)
    while queue:
        taken = take(queue, commands, batch_bytes)
        # No more than the rest of the last ones goes beyond what fits.
        assert len(taken) <= commands + 2
        for one in taken:
            assert left[one.account].popleft() is one
        for account in ACCOUNTS:
            own = [one for one in taken if one.account == account]
            assert not own or not own[-1].is_joined
        assert len(queue) == sum(map(len, left.values()))
        assert queue.size == sum(one.size for own in left.values() for one in own)
        whole = [one for own in left.values() for one in own if not one.is_joined]
        assert queue.requests == len(whole)
    assert not any(left.values())


def test_what_goes_along_needs_room_for_all_of_it() -> None:
    queue = backlog(commands_max=3, bytes_max=1_000)
    assert queue.add([waiting("a")], 0)
    assert not queue.add([waiting("b") for _ in range(3)], 0)
    assert not queue.add([waiting("b", size=400), waiting("b", size=501)], 0)
    assert len(queue) == 1
    assert queue.add([waiting("b"), waiting("b")], 0)


@given(
    sizes=st.lists(st.lists(SIZES, min_size=1, max_size=60), min_size=2, max_size=3),
    commands=st.integers(1, BATCH),
    batch_bytes=st.integers(1, BATCH_BYTES),
)
def test_while_two_accounts_wait_neither_is_given_a_quantum_and_a_command_more(
    sizes: list[list[int]], commands: int, batch_bytes: int
) -> None:
    queue = backlog()
    left = Counter({account: len(own) for account, own in zip(ACCOUNTS, sizes, strict=False)})
    for account, own in zip(ACCOUNTS, sizes, strict=False):
        for number, size in enumerate(own):
            assert queue.add([waiting(account, number, size)], 0)
    dearest = max(size for own in sizes for size in own) + COMMAND_COST
    given_to: Counter[str] = Counter()
    busy = set(left)  # Those that have had something to send all the time.
    while queue:
        for one in take(queue, commands, batch_bytes):
            given_to[one.account] += cost(one)
            left[one.account] -= 1
            if not left[one.account]:
                busy.discard(one.account)
        shares = [given_to[account] for account in busy]
        assert not shares or max(shares) - min(shares) <= QUANTUM + dearest


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.sampled_from(ACCOUNTS), SIZES),
            st.tuples(st.integers(1, BATCH), st.integers(1, BATCH_BYTES)),
        ),
        max_size=200,
    )
)
def test_each_account_is_served_in_its_order_and_nothing_is_lost(
    steps: list[tuple[str, int] | tuple[int, int]],
) -> None:
    queue = backlog()
    model: defaultdict[str, deque[Waiting[object]]] = defaultdict(deque)
    for number, (what, size) in enumerate([*steps, *[(BATCH, BATCH_BYTES)] * len(steps)]):
        if isinstance(what, str):
            one = waiting(what, number, size)
            assert queue.add([one], 0)
            model[what].append(one)
            continue
        taken = take(queue, what, size)
        assert bool(taken) == any(model.values())
        assert len(taken) <= what
        assert len(taken) == 1 or sum(one.size for one in taken) <= size
        for one in taken:
            assert model[one.account].popleft() is one
        assert len(queue) == sum(map(len, model.values()))
        assert queue.size == sum(one.size for own in model.values() for one in own)
    assert not any(model.values())


def test_who_comes_to_a_crowd_of_one_has_his_turn_in_the_next_batch() -> None:
    queue = backlog()
    for number in range(1_000):
        queue.add([waiting("noisy", number, 10 * QUANTUM)], 0)
    assert len(take(queue)) == 1
    queue.add([waiting("quiet")], 0)
    assert "quiet" in [one.account for _ in range(2) for one in take(queue)]


def test_who_was_away_has_saved_up_nothing() -> None:
    queue = backlog()
    queue.add([waiting("a", size=3 * QUANTUM)], 0)  # Needs several turns, so that it saves.
    queue.add([waiting("b")], 0)
    while queue:
        take(queue)
    for number in range(1_000):
        queue.add([waiting("a", number)], 0)
        queue.add([waiting("b", number)], 0)
    given_to: Counter[str] = Counter()
    for one in take(queue, 3 * QUANTUM // (100 + COMMAND_COST), BYTES_MAX):
        given_to[one.account] += cost(one)
    assert abs(given_to["a"] - given_to["b"]) <= QUANTUM + 100 + COMMAND_COST


@pytest.mark.parametrize(
    ("account", "alone_fits"),
    [("first", False), ("second", True)],
    ids=["who fills it has no more room", "somebody else has"],
)
def test_an_account_alone_cannot_take_up_all_the_room(account: str, alone_fits: bool) -> None:
    for queue in (
        backlog(commands_max=9 * SHARE),
        backlog(bytes_max=900 * SHARE),
    ):
        added = 0
        while queue.add([waiting("first", added)], 0):
            added += 1
        assert abs(added - SHARE * SHARE) <= SHARE
        assert queue.add([waiting(account)], 0) == alone_fits


def test_accounts_that_all_want_everything_find_equal_room() -> None:
    queue = backlog(commands_max=10_000)
    while any([queue.add([waiting(account)], 0) for account in ACCOUNTS]):
        pass
    found: Counter[str] = Counter()
    while queue:
        found.update(one.account for one in take(queue))
    assert max(found.values()) - min(found.values()) <= 1
    assert sum(found.values()) > 9_000


@pytest.mark.parametrize(
    ("taken", "size", "fits"),
    [(0, 1_000, True), (0, 1_001, False), (9, 0, True), (10, 0, False)],
    ids=["all the bytes", "a byte too many", "the last place", "no place"],
)
def test_what_comes_first_may_have_all_there_is(taken: int, size: int, fits: bool) -> None:
    assert backlog(commands_max=10, bytes_max=1_000).add([waiting("a", size=size)], taken) == fits


def test_room_that_became_free_is_free() -> None:
    queue = backlog(commands_max=20, bytes_max=10_000)
    for _ in range(3):
        added = 0
        while queue.add([waiting("a")], 0):
            added += 1
        assert added == 18
        while queue:
            take(queue, 4)
        assert queue.size == 0


def test_what_has_waited_too_long_is_taken_out_of_all_accounts_and_no_more_than_that() -> None:
    queue = backlog()
    for since in range(6):
        for account in ACCOUNTS[: 3 if since < 3 else 2]:
            queue.add([waiting(account, since, since=since)], 0)
    expired = queue.expired(3)
    assert sorted((one.account, one.since) for one in expired) == [
        (account, since) for account in ACCOUNTS for since in range(3)
    ]
    assert len(queue) == queue.requests == 6
    assert queue.size == 600
    left = [(one.account, one.since) for one in take(queue)]
    assert sorted(left) == [(account, since) for account in "ab" for since in (3, 4, 5)]
    assert not queue
