"""The access log: one structured line for a request, and no more of them than may be."""

from __future__ import annotations

import io
import json

import pytest

from api.ports import AccessLine
from raftq import logs
from raftq.access_log import AccessLog

LINE = AccessLine(
    request="r1",
    client="192.0.2.7",
    actor="key:k",
    method="GET",
    path="/v1/%s{0}",
    route="/v1/{account}",
    status=404,
    ms=0.5,
)


@pytest.fixture
def written() -> io.StringIO:
    stream = io.StringIO()
    logs.configure("info", "json", "n1", stream)
    return stream


def lines(written: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_line_has_all_that_is_known_and_nothing_of_it_is_a_format(written: io.StringIO) -> None:
    AccessLog(10, lambda: 0.0).write(LINE)
    [line] = lines(written)
    assert (
        line.items()
        >= {
            "component": "access",
            "event": "request",
            "request": "r1",
            "client": "192.0.2.7",
            "actor": "key:k",
            "path": "/v1/%s{0}",
            "status": 404,
            "ms": 0.5,
        }.items()
    )


def test_lines_beyond_the_bound_are_counted_and_told_of(written: io.StringIO) -> None:
    now = 0.0
    log = AccessLog(3, lambda: now)
    for _ in range(10):
        log.write(LINE)
    assert len(lines(written)) == 3
    now = 1.0
    log.write(LINE)
    told = lines(written)[3:]
    assert [one["event"] for one in told] == ["lines were left out", "request"]
    assert told[0]["count"] == 7
