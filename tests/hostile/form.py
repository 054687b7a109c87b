"""What the document says is well-formed may be refused for what it means, never for its form.

A check beside those of schemathesis, loaded by it (``SCHEMATHESIS_HOOKS``). Its own
``positive_data_acceptance`` knows statuses alone and would have a document say every limit of
every configuration, every cron expression and every field that excludes another.
"""

from __future__ import annotations

import json
from typing import Any

import schemathesis
from schemathesis.generation import GenerationMode

# Limits that are configured, and texts that have a grammar of their own.
FOR_ITS_MEANING = {
    "out_of_range",
    "invalid_schedule",
    "url_forbidden",
    "too_many_messages",
    "idempotency_key_reused",
    "body_too_large",
    "request_too_large",
    "headers_too_large",
    "uri_too_long",
}
# Fields that exclude or need each other, and lists in one parameter.
BETWEEN_FIELDS = {
    "there is no kind",
    "match_mode any of nothing matches nothing",
    "move says to where, and nothing else does",
    "a transaction must have a part",
    "are fields of a JSON message",
    "are fields of each message",
    "ids is for streams",
    "a stream cannot be repeated",
    "is not a message id",
    "is not a claim",
    "marker must be",
    "to must be another queue",
    "must be an HTTP token",
    "a pattern is",
    "admin is of the operator's keys only",
    "exclude each other",
    "messages must not be empty",
    "not_before means nothing",
    "persistent means nothing",
    "a transaction is always durable",
    "printable characters",  # Unicode knows which these are.
    "field: Expected `object`, got `str`",  # JSON is one of the types that a raw body may have.
    "Invalid RFC3339 encoded datetime",  # To JSON Schema a format is a remark.
    "Expected `int`, got `float`",  # To JSON Schema 1.0 is an integer.
}


@schemathesis.serializer("application/x-ndjson")
def one_line(ctx: Any, value: Any) -> bytes:
    """A stream of a single line."""
    return json.dumps(value).encode() + b"\n"


@schemathesis.deserializer("application/x-ndjson")
def last_line(ctx: Any, response: schemathesis.Response) -> Any:
    """Of an answer the line that says how it ended."""
    return json.loads(response.content.splitlines()[-1])


@schemathesis.hook
def filter_case(ctx: Any, case: schemathesis.Case) -> bool:
    """Headers that nobody declared are no fault: proxies and browsers add them.

    And a node that is asked for an index that is yet to come waits for it, and then says 503, as
    promised.
    """
    headers = case.headers or {}
    asked = (
        headers.get("Raftq-Min-Index"),
        headers.get("Last-Event-ID"),
        (case.query or {}).get("from"),
    )
    return not any(map(_is_to_come, asked)) and not any(
        name.lower().startswith("x-schemathesis-") for name in headers
    )


def _is_to_come(index: object) -> bool:
    text = str(index).partition(".")[0]  # An event's id says which one of its entry it is.
    return text.isascii() and text.isdigit() and 0 < int(text) < 10**19


@schemathesis.check
def well_formed_is_not_refused_for_its_form(
    ctx: Any, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """Of each refusal the reason counts."""
    if case.meta is None or case.meta.generation.mode is not GenerationMode.POSITIVE:
        return
    if response.status_code not in (400, 413, 414, 422, 431):
        return
    problem = json.loads(response.content)
    told = problem["detail"]
    assert problem["reason"] in FOR_ITS_MEANING or any(why in told for why in BETWEEN_FIELDS), told
