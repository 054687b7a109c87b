"""Keys sort as their parts do, and no name can be taken for another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine import keys

NUMBERS = st.integers(0, keys.U64_MAX)
# Names that are close to the escapes and to the end marks.
NAMES = st.text(alphabet="\x00\x01a\xff", max_size=4) | st.text(max_size=4)
IDS = st.builds(keys.message_id, NUMBERS, st.sampled_from([0, 5, keys.PARKED, 5 | keys.GROUPED]))

PARKED = keys.message_id(7, 5 | keys.PARKED)

TABLE = [
    (keys.account("a"), "61 61 00 01"),
    (keys.queue("a", "b\x00"), "71 61 00 01 62 00 ff 00 01"),
    (keys.once("a", ""), "6b 61 00 01 00 01"),
    (keys.session(1), "73 0000000000000001"),
    (keys.outcomes(1, 2), "6f 0000000000000001 0000000000000002"),
    (keys.of_queue(b"m", 3), "6d 0000000000000003"),
    (keys.claim(3, 4), "63 0000000000000003 0000000000000004"),
    (keys.returned(3, PARKED), "72 0000000000000003 0005 0000000000000007 8005"),
    (keys.returned_from(3, 5, 7), "72 0000000000000003 0005 0000000000000007"),
    (keys.lane(3, 5), "6c 0000000000000003 0005"),
    (keys.group(3, "a"), "77 0000000000000003 61 00 01"),
    (keys.member(3, "a", PARKED[2:]), "67 0000000000000003 61 00 01 0000000000000007"),
    (keys.delayed(3, PARKED), "7a 0000000000000003 8005 0000000000000007"),
    (keys.delayed(3, keys.message_id(7)), "7a 0000000000000003 0000 0000000000000007"),
    (keys.deleted(3, keys.message_id(7)), "78 0000000000000003 0000 0000000000000007"),
    (keys.deadline(3, 5, 2, b"x"), "64 0000000000000003 0000000000000005 02 78"),
    (keys.timer(5, 2, b"x"), "74 0000000000000005 02 78"),
    (keys.job(3), "6a 0000000000000003"),
    (keys.dedup(3, b"id"), "69 0000000000000003 6964"),
    (keys.bindings("a", "b"), "62 61 00 01 62 00 01"),
    (keys.schedule("a", "b"), "65 61 00 01 62 00 01"),
    (keys.tick(5, keys.schedule("a", "b")), "66 0000000000000005 61 00 01 62 00 01"),
    (keys.tick(5), "66 0000000000000005"),
    (keys.POSITION, "70"),
]


@pytest.mark.parametrize(("key", "expected"), TABLE)
def test_layout_is_frozen(key: bytes, expected: str) -> None:
    assert key == bytes.fromhex(expected)


def test_every_space_is_below_the_end() -> None:
    assert all(key < keys.END for key, _ in TABLE)


@given(st.lists(NAMES, max_size=3), st.lists(NAMES, max_size=3))
def test_names_sort_as_their_bytes_and_can_be_told_apart(left: list[str], right: list[str]) -> None:
    def joined(names: list[str]) -> bytes:
        return b"".join(map(keys.name, names))

    assert keys.split_names(joined(left)) == left

    def order(names: list[str]) -> list[bytes]:
        return [name.encode() for name in names]

    assert (joined(left) < joined(right)) == (order(left) < order(right))
    assert (joined(left) == joined(right)) == (left == right)


@given(NUMBERS, NUMBERS)
def test_numbers_sort_as_bytes(left: int, right: int) -> None:
    assert (keys.u64(left) < keys.u64(right)) == (left < right)
    assert keys.number(keys.u64(left)) == left


@given(NUMBERS, IDS, IDS)
def test_returned_messages_sort_by_lane_and_age(queue: int, left: bytes, right: bytes) -> None:
    first, second = keys.returned(queue, left), keys.returned(queue, right)
    assert keys.returned_id(first) == left
    order = [(keys.lane_number(one), one[2:]) for one in (left, right)]
    if order[0] != order[1]:
        assert (first < second) == (order[0] < order[1])


@given(NUMBERS, NUMBERS, st.integers(0, 255), st.binary(max_size=10))
def test_times_can_be_split_from_what_is_due(
    queue: int, due_ms: int, kind: int, subject: bytes
) -> None:
    assert keys.split_timer(keys.timer(due_ms, kind, subject)) == (due_ms, kind, subject)
    key = keys.deadline(queue, due_ms, kind, subject)
    assert keys.split_deadline(key) == (due_ms, kind, subject)
    assert keys.timer(due_ms) <= keys.timer(due_ms, kind, subject)


@given(NUMBERS, NAMES, NAMES)
def test_ticks_can_be_split_from_the_schedule(due_ms: int, account: str, schedule: str) -> None:
    key = keys.tick(due_ms, keys.schedule(account, schedule))
    assert keys.split_tick(key) == (due_ms, account, schedule)


@given(NUMBERS, st.integers(0, keys.LANE_MASK), st.sampled_from([0, keys.PARKED, keys.GROUPED]))
def test_flags_do_not_change_the_lane(seq: int, number: int, flag: int) -> None:
    message_id = keys.message_id(seq, number | flag)
    assert len(message_id) == keys.ID_BYTES
    assert keys.lane_number(message_id) == number
