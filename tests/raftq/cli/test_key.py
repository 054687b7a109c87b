"""``raftq key``, and ``--key`` of every command, against the real API in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from access import make_key
from api.access import tokens
from api.ports import AccessPolicy
from command_line import CommandLine, Result
from local_service import LocalService
from raftq.cli.failure import Exit
from served_api import served


@pytest.fixture
def service() -> LocalService:
    return LocalService(access=AccessPolicy(required=True, pepper=b"pepper"))


@pytest.fixture
def url(service: LocalService) -> Iterator[str]:
    with served(service) as url:
        yield url


def test_a_key_is_created_used_rotated_and_revoked(
    run: CommandLine, service: LocalService, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = make_key(service)

    def shell(*arguments: str, key: str = operator) -> Result:
        monkeypatch.setenv("RAFTQ_KEY", key)
        return run(*arguments, "--url", url)

    asked = ("--role", "produce", "--role", "manage", "--queue", "o*", "--name", "worker 7")
    made = shell("key", "create", *asked, "--expires-in", "60")
    assert made.code == Exit.DONE
    key = made.out.strip()
    key_id = tokens.id_of(key)
    assert key_id is not None
    assert "only this once" in made.err
    assert key not in made.err
    assert shell("queue", "put", "orders", "x", key=key).code == Exit.DONE
    (listed,) = json.loads(shell("key", "ls", "--json").out)
    assert (listed["id"], listed["queues"]) == (key_id, ["o*"])
    assert "produce manage" in shell("key", "ls").out
    other = shell("key", "rotate", key_id, "--grace", "0").out.strip()
    assert tokens.id_of(other) == key_id
    assert "(unauthorized)" in shell("queue", "put", "orders", "x", key=key).err
    assert shell("queue", "put", "orders", "x", key=other).code == Exit.DONE
    assert shell("key", "revoke", key_id, "--yes").code == Exit.DONE
    assert shell("queue", "put", "orders", "x", key=other).code == Exit.FAILED
    assert "(no_key)" in shell("key", "revoke", key_id, "--yes").err


def test_the_operators_keys_are_others(run: CommandLine, service: LocalService, url: str) -> None:
    operator = make_key(service)
    made = run("--key", operator, "key", "create", "--role", "admin", "--operator", "--url", url)
    key_id = str(tokens.id_of(made.out.strip()))
    of_operator = run("--key", operator, "key", "ls", "--operator", "--url", url)
    assert key_id in of_operator.out
    assert key_id not in run("--key", operator, "key", "ls", "--url", url).out
    revoke = ("key", "revoke", key_id, "--operator", "--yes", "--url", url)
    assert run("--key", operator, *revoke).code == Exit.DONE


def test_without_a_key_or_the_role_commands_fail_in_one_line(
    run: CommandLine, service: LocalService, url: str
) -> None:
    assert "(unauthorized)" in run("queue", "put", "orders", "x", "--url", url).err
    key = make_key(service, "default", ["consume"])
    refused = run("--key", key, "queue", "put", "orders", "x", "--url", url)
    assert (refused.code, len(refused.err.splitlines())) == (Exit.FAILED, 1)
    assert "(forbidden)" in refused.err
    assert key not in refused.err


def test_a_key_for_a_configuration_is_one(run: CommandLine) -> None:
    first, second = run("key", "generate").out, run("key", "generate").out
    assert tokens.id_of(first.strip()) is not None
    assert first != second
