"""The examples of ``api/PROTOCOL.md`` are run in order against one service.

An ``http`` block is a request, a blank line and its body, then a line ``HTTP/1.1 ...``
with the answer. Headers of the answer that are shown must be there. ``{name}`` in an
answer stands for whatever comes, and for the same thing from then on; ``@advance 30``
before a request lets thirty seconds pass.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.testclient import TestClient

from api import problems
from api.app import create
from api.rest.table import TABLE
from local_service import LocalService

PROTOCOL = Path(__file__).parents[2] / "api" / "PROTOCOL.md"
TEXT = PROTOCOL.read_text("utf-8")
MASTER = "k1 " + "A" * 43 + "="
PLACEHOLDER = re.compile(r"{(\w+)}")


class Part(NamedTuple):
    """The first line, the headers and the body of a message."""

    first: str
    headers: dict[str, str]
    body: str


class Example(NamedTuple):
    """One exchange."""

    advance_s: float
    request: Part
    answer: Part


def part(text: str) -> Part:
    head, _, body = text.strip("\n").partition("\n\n")
    first, *lines = head.split("\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return Part(first, headers, body.strip("\n"))


def examples() -> Iterator[Example]:
    for block in re.findall(r"```http\n(.*?)```", TEXT, re.DOTALL):
        advance = re.match(r"@advance (\S+)\n", block)
        asked, answered = block[advance.end() if advance else 0 :].split("\nHTTP/1.1 ")
        yield Example(float(advance.group(1)) if advance else 0, part(asked), part(answered))


def fill(text: str, known: dict[str, str]) -> str:
    return PLACEHOLDER.sub(lambda name: known.get(name.group(1), name.group(0)), text)


def match(shown: str, actual: str, known: dict[str, str]) -> None:
    """The text with its placeholders bound, or an assertion error."""
    seen = set[str]()
    pattern = ""
    for index, piece in enumerate(PLACEHOLDER.split(fill(shown, known))):
        if not index % 2:
            pattern += re.escape(piece)
            continue
        pattern += f"(?P={piece})" if piece in seen else f'(?P<{piece}>[^"]*?)'
        seen.add(piece)
    found = re.fullmatch(pattern, actual)
    assert found, f"{actual!r} is not {fill(shown, known)!r}"
    known.update(found.groupdict())


def flat(text: str) -> str:
    """JSON, or lines of it, in one form; placeholders in strings stay as they are."""
    for values in ([text], text.split("\n")):
        with contextlib.suppress(ValueError):
            return "\n".join([json.dumps(json.loads(value)) for value in values if value])
    return text


def check(answer: Any, shown: Part, known: dict[str, str]) -> None:
    assert answer.status_code == int(shown.first.split()[0]), answer.text
    for name, value in shown.headers.items():
        match(value, answer.headers[name], known)
    match(flat(shown.body), flat(answer.text), known)


def test_the_examples_are_true() -> None:
    service, known = LocalService(master_keys=MASTER), dict[str, str]()
    client = TestClient(create(service), base_url="http://test")
    count = 0
    for example in examples():
        service.advance(example.advance_s)
        method, target, _ = fill(example.request.first, known).split(" ")
        answer = client.request(
            method,
            target,
            content=fill(example.request.body, known).encode(),
            headers=example.request.headers,
        )
        check(answer, example.answer, known)
        count += 1
    assert count >= 15, "the examples were not found"


@pytest.mark.parametrize("reason", sorted(problems.KINDS))
def test_every_reason_is_explained(reason: str) -> None:
    status = problems.KINDS[reason].status
    assert re.search(rf"\| `{reason}` \| {status} \|", TEXT)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.id)
def test_every_route_is_mentioned(row: Any) -> None:
    assert f"{row.method} {row.path}" in re.sub(" +", " ", TEXT)
