"""Messages between text and requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftq.cli.failure import Exit, Failure
from raftq.cli.messages import (
    BATCH_BYTES_MAX,
    BATCH_MESSAGES_MAX,
    JSON,
    Attributes,
    Item,
    batches,
    body_text,
    ndjson,
    texts,
    whole,
)

ITEMS = st.lists(
    st.builds(
        Item,
        st.integers(0, BATCH_BYTES_MAX // 2).map(bytes),
        st.sampled_from([JSON, JSON, JSON, "text/plain"]),
    ),
    max_size=20,
)


@given(ITEMS)
def test_batches_keep_the_order_and_the_bounds(items: list[Item]) -> None:
    found = list(batches(items))
    assert [item for batch in found for item in batch] == items
    for batch in found:
        assert len(batch) == 1 or all(item.content_type == JSON for item in batch)
        assert len(batch) == 1 or sum(len(item.content) for item in batch) <= BATCH_BYTES_MAX


def test_small_messages_fill_batches_to_the_bound() -> None:
    items = [Item(b"{}")] * (2 * BATCH_MESSAGES_MAX + 1)
    assert [len(batch) for batch in batches(items)] == [BATCH_MESSAGES_MAX, BATCH_MESSAGES_MAX, 1]


def test_a_message_that_is_too_large_for_a_batch_goes_alone() -> None:
    large = Item(bytes(BATCH_BYTES_MAX + 1))
    assert [len(batch) for batch in batches([Item(b"{}"), large, Item(b"{}")])] == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "as_json", "body"),
    [
        ("hello", False, "hello"),
        ('{"a": 1}', False, '{"a": 1}'),
        ('{"a": 1}', True, {"a": 1}),
        ("1e400", False, "1e400"),
        ("\u00e9\n", False, "\u00e9\n"),
    ],
)
def test_text_is_a_string_unless_it_is_said_to_be_json(
    text: str, as_json: bool, body: object
) -> None:
    (item,) = texts([text], Attributes(), as_json=as_json)
    assert json.loads(item.content) == {"body": body}


def test_attributes_are_fields_of_the_message() -> None:
    (item,) = texts(["x"], Attributes(1.5, 2, "b", {"k": "v"}), as_json=False)
    wanted = {"body": "x", "ttl": 1.5, "delay": 2, "zone": "b", "headers": {"k": "v"}}
    assert json.loads(item.content) == wanted


def test_text_that_is_said_to_be_json_but_is_not_is_named() -> None:
    with pytest.raises(Failure, match="message 2") as caught:
        list(texts(["1", "{"], Attributes(), as_json=True))
    assert caught.value.code == Exit.USAGE


@pytest.mark.parametrize(
    ("line", "item"),
    [
        (b'{"body": {"a": 1.0}}', Item(b'{"body":{"a": 1.0}}')),
        (b'{"body": null, "id": "0a", "state": "ready"}', Item(b'{"body":null}')),
        (b'{"body": 1, "zone": "b", "ttl": null}', Item(b'{"body":1,"zone":"b"}')),
        (
            b'{"body_text": "\\u00e9", "content_type": "text/plain", "headers": {"k": "v"}}',
            Item("\u00e9".encode(), "text/plain", Attributes(headers={"k": "v"})),
        ),
        (
            b'{"body_base64": "AP8=", "content_type": "image/png", "zone": "c"}',
            Item(b"\x00\xff", "image/png", Attributes(zone="c", headers={})),
        ),
    ],
)
def test_a_line_that_was_printed_can_be_put_again(line: bytes, item: Item) -> None:
    assert list(ndjson([line + b"\n", b"\n"])) == [item]


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b'{"bodie": 1}', b'{"body": 1, "ttl": "x"}', b"\xff"]
)
def test_a_line_that_is_no_message_is_named(line: bytes) -> None:
    with pytest.raises(Failure, match="line 2"):
        list(ndjson([b'{"body": 1}\n', line]))


@pytest.mark.parametrize(
    ("content", "given_type", "content_type"),
    [
        (b"abc", None, "text/plain; charset=utf-8"),
        (b"\xff", None, "application/octet-stream"),
        (b"\xff", "image/png", "image/png"),
    ],
)
def test_standard_input_is_kept_byte_for_byte(
    content: bytes, given_type: str | None, content_type: str
) -> None:
    item = whole(content, given_type, Attributes())
    assert (item.content, item.content_type) == (content, content_type)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"body": "hello"}, "hello"),
        ({"body": {"a": 1}}, '{"a":1}'),
        ({"body": None}, "null"),
        ({"body_text": "hello"}, "hello"),
        ({"body_base64": "AP8=", "content_type": "image/png"}, "<2 bytes of image/png>"),
        ({"body_base64": "AAEC", "content_type": "image/png"}, "<3 bytes of image/png>"),
    ],
)
def test_people_see_a_body_in_one_piece(message: dict[str, Any], text: str) -> None:
    assert body_text(message) == text
