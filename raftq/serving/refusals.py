"""What a connection is told before it is closed, when there is no request to answer.

Whole HTTP answers, made once: telling somebody off must cost less than being told.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from api.problems import MEDIA_TYPE, Problem
from raftq.config import ApiConfig
from raftq.serving.gate import End


class Refusal(NamedTuple):
    """The answer, and what it counts as."""

    why: End
    answer: bytes


class Refusals:
    """One of each, in the words of these limits."""

    def __init__(self, limits: ApiConfig) -> None:
        self.malformed = _refusal(
            End.MALFORMED, "malformed_request", "This is not a request as RFC 9112 has them."
        )
        self.pipelined = _refusal(
            End.MALFORMED, "malformed_request", "Too many requests at once on one connection."
        )
        self.framing = _refusal(
            End.MALFORMED, "malformed_request", "The chunks of the body are too small."
        )
        self.target = _refusal(
            End.TOO_LARGE,
            "uri_too_long",
            f"Path and query are over {limits.target_bytes_max} bytes.",
        )
        self.head = _refusal(
            End.TOO_LARGE,
            "headers_too_large",
            f"The request line and the headers are over {limits.head_bytes_max} bytes, "
            f"or the headers over {limits.header_fields_max}.",
        )
        self.slow_head = _refusal(
            End.HEAD_TOO_SLOW,
            "request_timeout",
            f"The headers took over {limits.head_timeout_s} s.",
        )
        self.slow_body = _refusal(
            End.BODY_TOO_SLOW, "request_timeout", "The body comes too slowly."
        )
        full = "too_many_connections"
        self.at_the_gate = {
            End.ADDRESS_FULL: _refusal(
                End.ADDRESS_FULL, full, "Too many connections from one address."
            ),
            End.NODE_FULL: _refusal(End.NODE_FULL, full, "Too many connections."),
        }


def _refusal(why: End, reason: str, detail: str) -> Refusal:
    problem = Problem(reason, detail)
    body = problem.body()
    fields = [
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
        f"content-type: {MEDIA_TYPE}",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        fields.append("retry-after: 1")
    return Refusal(why, "\r\n".join([*fields, "", ""]).encode() + body)
