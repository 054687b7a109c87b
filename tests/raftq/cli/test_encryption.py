"""``raftq encryption`` against the real API in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from command_line import CommandLine, Result
from local_service import LocalService
from raftq.cli.failure import Exit
from raftq.client import BodyLost, Raftq
from raftq.config import masters
from served_api import served

Shell = Callable[..., Result]


@pytest.fixture
def service() -> LocalService:
    return LocalService(master_keys="k1 " + "A" * 43 + "=")


@pytest.fixture
def url(service: LocalService) -> Iterator[str]:
    with served(service) as url:
        yield url


@pytest.fixture
def shell(run: CommandLine, url: str) -> Shell:
    def ask(*arguments: str) -> Result:
        return run(*arguments, "--url", url)

    ask("queue", "put", "q", "plain")
    return ask


def keys(shell: Shell) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(shell("encryption", "show", "--json").out)["keys"]
    return found


def test_encryption_is_switched_on_rotated_rewrapped_and_off(
    shell: Shell, service: LocalService
) -> None:
    assert "new bodies are not encrypted" in shell("encryption", "show").out
    on = shell("encryption", "on")
    assert (on.code, "new bodies are encrypted" in on.out) == (Exit.DONE, True)
    assert "k1" in on.out
    shell("encryption", "rotate")
    assert [key["master"] for key in keys(shell)] == ["k1", "k1"]
    service.use_master_keys("k2 " + "B" * 42 + "A=\nk1 " + "A" * 43 + "=")
    shell("encryption", "rewrap")
    assert [key["master"] for key in keys(shell)] == ["k2", "k2"]
    assert "new bodies are not encrypted" in shell("encryption", "off").out
    assert len(keys(shell)) == 2


def test_all_accounts_are_wrapped_anew_when_the_master_key_changes(
    shell: Shell, service: LocalService
) -> None:
    for account in ("lab", "shop"):
        shell("queue", "put", "q", "x", "--account", account)
        shell("encryption", "on", "--account", account)
    listed = json.loads(shell("encryption", "ls", "--json").out)
    assert listed.keys() == {"lab", "shop"}
    service.use_master_keys("k2 " + "B" * 42 + "A=\nk1 " + "A" * 43 + "=")
    done = shell("encryption", "rewrap", "--all")
    assert done.out.splitlines() == [
        "the keys of lab are wrapped anew",
        "the keys of shop are wrapped anew",
    ]
    table = shell("encryption", "ls").out
    assert "k2" in table
    assert "k1" not in table


def test_shredding_asks_first_and_the_body_is_gone(shell: Shell, url: str) -> None:
    shell("encryption", "on")
    shell("queue", "put", "q", "secret")
    refused = shell("encryption", "shred")
    assert refused.code != Exit.DONE
    assert len(keys(shell)) == 1
    done = shell("encryption", "shred", "--yes")
    assert (done.code, done.out) == (Exit.DONE, "1 keys of default destroyed\n")
    shown = shell("queue", "peek", "q").out
    assert "plain" in shown
    assert "<body_shredded>" in shown
    with Raftq([url]) as client:
        plain, lost = client.queue("q").peek()
        assert plain.body == "plain"
        assert "body_shredded" in repr(lost)
        for read in (lambda: lost.body, lambda: lost.data, lost.json):
            with pytest.raises(BodyLost, match="body_shredded"):
                read()


def test_a_master_key_is_a_line_that_a_node_understands(run: CommandLine) -> None:
    lines = [
        run("encryption", "master-key", "k1").out,
        run("encryption", "master-key", "k2", "--for", "shop").out,
    ]
    first, second = masters.parsed("".join(lines))
    assert (first.name, first.account, second.name, second.account) == ("k1", "", "k2", "shop")
    assert first.key != second.key
