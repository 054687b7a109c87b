"""``raftq audit`` against the real API in this process."""

from __future__ import annotations

import json

import pytest

from command_line import CommandLine
from local_service import LocalService
from raftq.cli import requests
from raftq.cli.failure import Exit
from served_api import served


def test_acts_are_listed_page_by_page(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "PAGE_MAX", 2)
    with served(LocalService()) as url:
        for account in ("shop", "lab", "shop"):
            run("encryption", "off", "--account", account, "--url", url)
            run("queue", "put", "q", "x", "--account", account, "--url", url)
        run("encryption", "off", "--account", "shop", "--url", url)
        run("encryption", "off", "--account", "lab", "--url", url)
        listed = json.loads(run("audit", "--json", "--url", url).out)
        assert [(one["account"], one["act"]) for one in listed] == [
            ("shop", "put_encryption_keys"),
            ("shop", "put_encryption_keys"),
            ("lab", "put_encryption_keys"),
        ]
        table = run("audit", "--account", "lab", "--url", url)
        assert table.code == Exit.DONE
        assert "lab" in table.out
        assert "shop" not in table.out
        assert "enabled=False" in table.out
