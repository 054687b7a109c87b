"""``raftq schedule``, and ``raftq queue bind``, against the real API in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from command_line import CommandLine, Result
from local_service import LocalService
from raftq.cli.failure import Exit
from served_api import served

Shell = Callable[..., Result]


@pytest.fixture
def service() -> LocalService:
    return LocalService()


@pytest.fixture
def shell(run: CommandLine, service: LocalService) -> Iterator[Shell]:
    with served(service) as url:
        yield lambda *arguments: run(*arguments, "--url", url)


def bodies(shell: Shell, queue: str) -> list[object]:
    lines = shell("queue", "peek", queue, "--ndjson").out.splitlines()
    return [json.loads(line)["body"] for line in lines]


def test_messages_go_where_their_queue_is_bound_to(shell: Shell) -> None:
    bound = shell("queue", "bind", "orders", "eu", "-m", "region=eu-*", "-m", "region=uk")
    assert (bound.code, bound.out) == (Exit.DONE, "orders is bound to eu\n")
    shell("queue", "bind", "orders", "big", "-m", "size=big", "-m", "region=us", "--any")
    shell("queue", "put", "orders", "one", "--header", "Region=eu-west")
    shell("queue", "put", "orders", "two", "--header", "region=us")
    shell("queue", "put", "orders", "three")
    assert [bodies(shell, queue) for queue in ("eu", "big", "orders")] == [
        ["one"],
        ["two"],
        ["three"],
    ]
    table = shell("queue", "bindings", "orders").out
    assert "eu" in table
    assert "region=uk region=eu-*" in table
    listed = json.loads(shell("queue", "bindings", "orders", "--json").out)
    assert [(one["target"], one["match_mode"]) for one in listed] == [("big", "any"), ("eu", "all")]
    assert shell("queue", "unbind", "orders", "eu").code == Exit.DONE
    again = shell("queue", "unbind", "orders", "eu")
    assert again.code == Exit.FAILED
    assert "(no_binding)" in again.err
    assert bodies(shell, "eu") == ["one"]


def test_what_is_no_condition_is_wrong_usage(shell: Shell) -> None:
    assert shell("queue", "bind", "orders", "eu", "-m", "region").code == Exit.USAGE


def test_a_schedule_is_put_shown_and_deleted(shell: Shell, service: LocalService) -> None:
    put = shell(
        *("schedule", "put", "daily", "reports", '{"a": 1}', "--json"),
        *("--cron", "0 6 * * *", "--timezone", "Europe/Berlin", "--header", "k=v", "--ttl", 60),
    )
    assert (put.code, put.out) == (Exit.DONE, "daily ticks next at 2026-01-01T05:00:00Z\n")
    shell("schedule", "put", "often", "reports", "text", "--every", 90, "--missed", "all")
    table = shell("schedule", "ls").out
    for cell in ("daily", "0 6 * * *", "Europe/Berlin", "every 90 s", "2026-01-01T00:01:30Z"):
        assert cell in table
    names = [one["name"] for one in json.loads(shell("schedule", "ls", "--json").out)]
    assert names == ["daily", "often"]
    shown = shell("schedule", "show", "daily").out
    for cell in ('{"a":1}', "{'k': 'v'}", "60"):
        assert cell in shown.replace('"a": 1', '"a":1')
    service.advance(90)
    assert bodies(shell, "reports") == ["text"]
    assert json.loads(shell("schedule", "show", "often", "--json").out)["ticks"] == 1
    assert shell("schedule", "rm", "often").code == Exit.DONE
    assert "(no_schedule)" in shell("schedule", "show", "often").err
    assert bodies(shell, "reports") == ["text"]


def test_a_schedule_that_can_not_be_followed_is_told_why(shell: Shell) -> None:
    bad = shell("schedule", "put", "s", "q", "text", "--cron", "0 25 * * *")
    assert bad.code == Exit.FAILED
    assert "Bad hour" in bad.err
    for wrong in ([], ["--cron", "* * * * *", "--every", "5"]):
        assert shell("schedule", "put", "s", "q", "text", *wrong).code == Exit.USAGE
