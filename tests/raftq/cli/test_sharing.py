"""``raftq queue share`` against the real API in this process."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from access import make_key
from api.ports import AccessPolicy
from command_line import CommandLine
from local_service import LocalService
from raftq.cli.failure import Exit
from served_api import served


@pytest.fixture
def service() -> LocalService:
    return LocalService(access=AccessPolicy(required=True, pepper=b"0123456789abcdef"))


@pytest.fixture
def url(service: LocalService) -> Iterator[str]:
    with served(service) as url:
        yield url


def test_a_url_that_was_shared_needs_no_key(
    run: CommandLine, service: LocalService, url: str
) -> None:
    key = make_key(service, "shop", ("produce",))
    common = ("--url", url, "--account", "shop")
    shared = run("--key", key, "queue", "share", "orders", "messages", "-X", "post", *common)
    assert shared.code == Exit.DONE, shared.err
    assert "until 20" in shared.err
    [line] = shared.out.splitlines()
    assert httpx2.post(line, json={"body": 1}).status_code == 201


def test_what_cannot_be_shared_is_told(run: CommandLine, service: LocalService, url: str) -> None:
    key = make_key(service, "shop", ("produce",))
    common = ("--url", url, "--account", "shop")
    for wrong in (["/messages"], ["messages", "-X", "trace"], ["stats", "--expires-in", "1e9"]):
        answer = run("--key", key, "queue", "share", "orders", *wrong, *common)
        assert answer.code == Exit.FAILED
        assert "(invalid_request)" in answer.err or "(out_of_range)" in answer.err
    unknown = run("queue", "share", "orders", "messages", *common)
    assert "(unauthorized)" in unknown.err
