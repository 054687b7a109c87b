"""Requests of the kinds that most commands make: a whole list, and a change."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from raftq.cli.options import JSON_HEADERS

if TYPE_CHECKING:
    from raftq.cli.http import Client

PAGE_MAX = 500


def pages(
    client: Client, path: str, items: str, query: dict[str, str], limit: int = PAGE_MAX
) -> Iterator[Any]:
    """All items of a list, page by page."""
    marker: str | None = ""
    while marker is not None:
        page = {**query, "limit": str(min(limit, PAGE_MAX))}
        if marker:
            page["marker"] = marker
        found = client.request("GET", path, query=page, repeatable=True).json()
        yield from found[items]
        marker = found["marker"]


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The fields of a body for which there is a value."""
    return {key: value for key, value in options.items() if value is not None}


def write(
    client: Client,
    method: str,
    path: str,
    *,
    query: dict[str, str] | None = None,
    body: bytes | None = None,
) -> Any:
    """A change that is safe to repeat, as it carries a key; its answer, if it has a body."""
    headers = {"idempotency-key": uuid.uuid4().hex}
    if body is not None:
        headers |= JSON_HEADERS
    answer = client.request(method, path, query=query, body=body, headers=headers, repeatable=True)
    return answer.json() if answer.body else None
