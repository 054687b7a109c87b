"""Logs come out in one form, whoever wrote them, and carry no secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from raftq import logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_name_node_component_level_and_time() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", "n1", stream)
    logs.logger("raft").info("became leader", term=3, token=b"\xff")
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "became leader",
        "level": "info",
        "node": "n1",
        "component": "raft",
        "term": 3,
        "token": "b'\\xff'",
    }


@pytest.mark.parametrize("name", ["uvicorn.error", "pysyncobj.syncobj", "asyncio", "anything"])
def test_libraries_log_in_the_same_form(name: str) -> None:
    stream = io.StringIO()
    logs.configure("info", "json", "n1", stream)
    logging.getLogger(name).warning("odd: %s", "x")
    (line,) = lines(stream)
    wanted = {"event": "odd: x", "level": "warning", "node": "n1", "component": name}
    assert wanted.items() <= line.items()


def test_what_is_below_the_level_is_not_logged_by_anyone() -> None:
    stream = io.StringIO()
    logs.configure("warning", "json", "n1", stream)
    logs.logger("raft").info("no")
    logging.getLogger("pysyncobj").info("no")
    logging.getLogger("uvicorn.access").info("no")
    logs.logger("raft").error("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


def test_a_logger_made_before_configure_follows_it() -> None:
    early = logs.logger("raft")
    stream = io.StringIO()
    logs.configure("error", "json", "n1", stream)
    early.info("no")
    logs.configure("info", "json", "n2", stream)
    early.info("yes")
    assert [(line["event"], line["node"]) for line in lines(stream)] == [("yes", "n2")]


@pytest.mark.parametrize("format", ["json", "human"])
def test_exceptions_show_where_but_not_what_was_in_variables(format: str) -> None:
    stream = io.StringIO()
    logs.configure("info", format, "n1", stream)
    secret = "-".join(["hush", "hush"])
    try:
        raise KeyError(len(secret))
    except KeyError:
        logs.logger("api").exception("failed")
        logging.getLogger("asyncio").exception("failed too")
    text = stream.getvalue()
    assert text.count("KeyError: 9") == 2
    assert "hush-hush" not in text


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_people_get_colours_only_where_they_can_be_seen(
    environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    stream = io.StringIO()
    logs.configure("info", "human", "n1", stream)
    logs.logger("raft").info("hello", percent="%d")
    assert ("\x1b[" in stream.getvalue()) == coloured
    assert "hello" in stream.getvalue()
    assert stream.getvalue().count("\n") == 1
