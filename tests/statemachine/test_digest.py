"""A digest sees every byte, whichever way it is taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_kv import MemoryKV
from statemachine.digest import DIGEST_BYTES, ROWS_AT_ONCE, Digest, digest

ROWS = st.dictionaries(st.binary(max_size=3).map(b"m".__add__), st.binary(max_size=3), max_size=6)


@given(ROWS, st.integers(1, 3))
def test_slices_give_the_same_digest(rows: dict[bytes, bytes], count: int) -> None:
    sliced, steps = Digest(MemoryKV(rows)), 0
    while not sliced.step(count):
        steps += 1
    assert steps == len(rows) // count
    assert sliced.step(count)
    assert sliced.result() == digest(MemoryKV(rows))
    assert len(sliced.result()) == DIGEST_BYTES


@given(ROWS, ROWS)
def test_states_that_differ_have_digests_that_differ(
    left: dict[bytes, bytes], right: dict[bytes, bytes]
) -> None:
    assert (digest(MemoryKV(left)) == digest(MemoryKV(right))) == (left == right)


def test_many_rows_are_no_different() -> None:
    rows = {b"m%d" % one: b"" for one in range(ROWS_AT_ONCE + 1)}
    sliced = Digest(MemoryKV(rows))
    assert sliced.step(len(rows) + 1)
    assert digest(MemoryKV(rows)) == sliced.result()


def test_a_byte_that_moves_from_key_to_value_is_seen() -> None:
    assert digest(MemoryKV({b"ma": b"b"})) != digest(MemoryKV({b"m": b"ab"}))


def test_a_digest_under_way_has_no_result() -> None:
    with pytest.raises(AssertionError):
        Digest(MemoryKV({b"m": b""})).result()


def test_the_digest_of_nothing_is_frozen() -> None:
    assert digest(MemoryKV()).hex() == "cae66941d9efbd404e4d88758ea67670"
