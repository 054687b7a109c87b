"""``raftq account`` against the real API in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from command_line import CommandLine, Result
from local_service import LocalService
from raftq.cli.failure import Exit
from served_api import served


@pytest.fixture
def url() -> Iterator[str]:
    with served(LocalService()) as url:
        yield url


def test_limits_are_set_and_shown_with_the_usage(run: CommandLine, url: str) -> None:
    def shell(*arguments: str) -> Result:
        return run(*arguments, "--url", url)

    assert shell("queue", "put", "orders", "one").code == Exit.DONE
    told = shell("account", "limit", "--messages", "1", "--in-flight", "2000", "--json")
    assert told.code == Exit.DONE
    found = json.loads(told.out)
    assert found["messages"] == {"usage": 1, "limit": 1}
    assert found == json.loads(shell("account", "usage", "--json").out)
    refused = shell("queue", "put", "orders", "two")
    assert refused.code == Exit.FAILED
    assert "(quota_exceeded)" in refused.err
    assert "2,000" in shell("account", "limit", "--messages", "0").out
    assert shell("queue", "put", "orders", "two").code == Exit.DONE
    lines = [line.split() for line in shell("account", "usage").out.splitlines()]
    assert ["messages", "2", "-"] in lines


def test_to_limit_nothing_is_wrong_usage(run: CommandLine, url: str) -> None:
    assert run("account", "limit", "--url", url).code == Exit.USAGE
    unknown = run("account", "limit", "--queues", "1", "--account", "nobody", "--url", url)
    assert "(no_account)" in unknown.err


def test_all_limits_are_replaced_also_of_an_account_that_nobody_uses_yet(
    run: CommandLine, url: str
) -> None:
    def limits(*arguments: str) -> dict[str, int]:
        told = run("account", "limit", *arguments, "--account", "new", "--json", "--url", url)
        found = json.loads(told.out)
        return {name: quota["limit"] for name, quota in found.items() if quota["limit"]}

    assert limits("--queues", "3", "--replace") == {"queues": 3}
    assert limits("--bytes", "5") == {"queues": 3, "bytes": 5}
    assert limits("--replace") == {}
