"""Stored values come back as they went in, and ids have one text each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine import ids, records
from statemachine.commands import NewMessage
from statemachine.records import FOR_EVER

TEXT = st.text(max_size=5)
MESSAGES = st.builds(
    NewMessage,
    body=st.binary(max_size=100),
    content_type=TEXT,
    headers=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple),
    zone=TEXT,
    priority=st.integers(0, 9),
    group=TEXT,
)
TIMES = st.integers(0, FOR_EVER)


@given(MESSAGES, TIMES, TIMES, st.sampled_from([0, records.TIMED]))
def test_messages_come_back(new: NewMessage, expires: int, enqueued: int, flags: int) -> None:
    record = records.encode_message(new, flags, expires, enqueued)
    stored = records.decode_message(record)
    assert (stored.body, stored.content_type, stored.headers, stored.zone) == (
        new.body,
        new.content_type,
        new.headers,
        new.zone,
    )
    assert (stored.priority, stored.group) == (new.priority, new.group)
    assert records.group_of(record) == new.group
    assert stored.enqueued_ms == enqueued
    assert stored.expires_ms == (None if expires == FOR_EVER else expires)
    header = records.times(record)
    assert (header.flags, header.expires_ms, header.bytes) == (flags, expires, len(new.body))


@given(st.binary(min_size=10, max_size=10), TIMES)
def test_ids_have_one_text_each(message_id: bytes, claim: int) -> None:
    assert ids.message_id_from_text(ids.message_id_text(message_id)) == message_id
    assert ids.claim_from_text(ids.claim_text(claim)) == claim


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 19,
        "0" * 21,
        "0" * 15 + "A" + "0" * 4,
        "0" * 19 + " ",
        "0x" + "0" * 18,
        "\u0660" * 20,
    ],
)
def test_other_texts_are_no_ids(text: str) -> None:
    assert ids.message_id_from_text(text) is None
    assert ids.claim_from_text(text[:16]) is None or text[:16] == "0" * 16


@given(st.integers(0, 2**32 - 1), TIMES, TEXT)
def test_small_values_come_back(deliveries: int, due_ms: int, error: str) -> None:
    returned = records.encode_returned(deliveries, error)
    assert records.decode_returned(returned) == (deliveries, error)
    delayed = records.encode_delayed(due_ms, deliveries, error)
    assert records.decode_delayed(delayed) == (due_ms, deliveries, error)
