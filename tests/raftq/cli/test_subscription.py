"""``raftq subscription`` against the real API in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from api.ports import Activity
from command_line import CommandLine, Result
from local_service import LocalService
from raftq.cli.failure import Exit
from served_api import served
from statemachine import commands as c
from statemachine import hooks

NAMES = ("default", "jobs", "hook")
URL = "https://hook.example/x"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Shell(NamedTuple):
    """Commands to a server."""

    service: LocalService
    run: CommandLine
    url: str

    def __call__(self, *arguments: object, stdin: bytes = b"") -> Result:
        return self.run("subscription", *arguments, "--url", self.url, stdin=stdin)

    @property
    def stored(self) -> hooks.SubscriptionView | None:
        return hooks.subscription(self.service.reader(), *NAMES)


@pytest.fixture
def shell(run: CommandLine) -> Iterator[Shell]:
    service = LocalService()
    with served(service) as url:
        yield Shell(service, run, url)


def test_put_prints_the_secret_that_was_made_and_nothing_else(shell: Shell) -> None:
    result = shell("put", "jobs", "hook", URL)
    assert result.code == Exit.DONE
    assert result.out.startswith("whsec_")
    assert shell("put", "jobs", "hook", URL).out == ""


def test_put_has_every_option(shell: Shell) -> None:
    options = ["--concurrency", 2, "--lease", 5, "--answer-timeout", 3, "--header", "X-A=b c"]
    options += ["--retry-base", 0.5, "--retry-max", 60, "--attempts", 4]
    result = shell(
        "put", "jobs", "hook", URL, *options, "--secret-file", "-", stdin=SECRET.encode()
    )
    assert (result.code, result.out) == (Exit.DONE, "")
    view = shell.stored
    assert view is not None
    assert view.settings == c.SubscriptionSettings(
        URL, (("x-a", "b c"),), 5_000, 2, 3_000, 500, 60_000, 4
    )


def test_a_secret_comes_from_a_file(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text(SECRET + "\n")
    assert shell("put", "jobs", "hook", URL, "--secret-file", path).code == Exit.DONE
    path.write_bytes(b"\xff")
    assert "is not text" in shell("put", "jobs", "hook", URL, "--secret-file", path).err
    absent = shell("put", "jobs", "hook", URL, "--secret-file", tmp_path / "absent")
    assert absent.code == Exit.USAGE


def test_a_forbidden_url_is_told(shell: Shell) -> None:
    result = shell("put", "jobs", "hook", "http://hook.example/")
    assert result.code == Exit.FAILED
    assert "url_forbidden" in result.err


def test_ls_and_show(shell: Shell) -> None:
    shell("put", "jobs", "hook", URL, "--header", "x-a=b")
    assert URL in shell("ls", "jobs").out
    (listed,) = json.loads(shell("ls", "jobs", "--json").out)
    shown = json.loads(shell("show", "jobs", "hook", "--json").out)
    assert shown == listed
    out = shell("show", "jobs", "hook").out
    for word in (URL, "x-a", "attempts", "disabled_reason"):
        assert word in out
    assert shell("show", "jobs", "none").code == Exit.FAILED


def test_show_asks_the_node_that_runs_it(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell("put", "jobs", "hook", URL)
    shell.service._apply(c.TakeSubscriptions("n1", 5_000, (NAMES,)))
    cluster = shell.service.cluster

    def with_activity() -> object:
        """The first node asked knows nothing of it; the one that it names does."""
        shell.service.activity[NAMES] = Activity(in_flight=7)
        found = cluster()
        (member,) = found.members
        return replace(found, members=(replace(member, api_url=shell.url),))

    monkeypatch.setattr(shell.service, "cluster", with_activity)
    shown = json.loads(shell("show", "jobs", "hook", "--json").out)
    assert shown["activity"]["in_flight"] == 7
    assert "in_flight" in shell("show", "jobs", "hook").out


def test_rm(shell: Shell) -> None:
    shell("put", "jobs", "hook", URL)
    assert shell("rm", "jobs", "hook").code == Exit.USAGE
    assert shell("rm", "jobs", "hook", "--yes").code == Exit.DONE
    assert shell.stored is None
