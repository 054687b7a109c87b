"""The operator's first key, and the last use of all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from api.access import minting, tokens, upkeep
from api.access.upkeep import USED_GRAIN_MS, Upkeep
from api.ports import AccessPolicy, OutcomeUnknown, Status, Unavailable
from local_service import LocalService
from statemachine import keyring
from statemachine.commands import KeySettings, PutKey, RevokeKey, UseKeys

pytestmark = pytest.mark.anyio

GIVEN = tokens.token_of("B" * 16, 7)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "POLL_S", 0.001)


def service_with(bootstrap_key: str = "", *, required: bool = True) -> LocalService:
    policy = AccessPolicy(required=required, pepper=b"p", bootstrap_key=bootstrap_key)
    return LocalService(access=policy)


@asynccontextmanager
async def running(service: LocalService) -> AsyncIterator[list[str]]:
    """While it runs: what was announced."""
    said: list[str] = []
    task = asyncio.create_task(Upkeep(service, said.append).run())
    try:
        yield said
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled() or task.exception() is None


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what is awaited has no event of its own.
            await asyncio.sleep(0.001)


def operators(service: LocalService) -> list[str]:
    return [one.id for one in keyring.of_account(service.reader(), "")]


async def put_key(service: LocalService, token: str, account: str = "") -> str:
    key_id = tokens.id_of(token)
    assert key_id is not None
    digest = tokens.digest(service.access.pepper, token)
    settings = KeySettings("", ("admin",), ("*",))
    await service.propose(PutKey(account, key_id, settings, digest))
    return key_id


async def test_a_cluster_without_one_gets_a_key_that_is_said_once() -> None:
    service = service_with()
    async with running(service) as said:
        await until(lambda: said)
    assert operators(service) == [tokens.id_of(said[0])]
    (key,) = keyring.of_account(service.reader(), "")
    assert key.record.settings == KeySettings("bootstrap", ("admin",), ("*",))
    assert key.record.hash == tokens.digest(b"p", said[0])
    async with running(service) as again:
        await asyncio.sleep(0.02)
    assert again == []
    assert len(operators(service)) == 1


async def test_only_the_leader_makes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_with()
    role = "follower"

    def status() -> Status:
        return Status(node="n1", zone="z", role=role, applied_index=1, staleness_ms=0)

    monkeypatch.setattr(service, "status", status)
    async with running(service) as said:
        await asyncio.sleep(0.02)
        assert not operators(service)
        role = "leader"
        await until(lambda: said)


async def test_a_node_that_is_not_ready_waits() -> None:
    service = service_with()
    service.not_ready = "no session"
    async with running(service) as said:
        await asyncio.sleep(0.02)
        assert service.proposed == []
        service.not_ready = None
        await until(lambda: said)


async def test_a_try_that_failed_or_may_have_is_made_again_with_the_same_key() -> None:
    service = service_with()
    service.failures.extend([Unavailable("no_leader", "x"), OutcomeUnknown("x")])
    async with running(service) as said:
        await until(lambda: said)
    assert operators(service) == [tokens.id_of(said[0])]


async def test_a_key_that_was_stored_by_a_try_of_unknown_outcome_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = service_with()
    propose, tries = service.propose, 0

    async def answer_is_lost(command: PutKey) -> object:
        nonlocal tries
        tries += 1
        outcome = await propose(command)
        if tries == 1:
            raise OutcomeUnknown("the leader changed")
        return outcome

    monkeypatch.setattr(service, "propose", answer_is_lost)
    async with running(service) as said:
        await until(lambda: said)
    assert operators(service) == [tokens.id_of(said[0])]


async def test_a_given_key_is_added_and_not_said() -> None:
    service = service_with(GIVEN)
    async with running(service) as said:
        await until(lambda: operators(service))
    assert said == []
    assert operators(service) == [tokens.id_of(GIVEN)]


async def test_a_given_key_is_the_way_back_in_when_there_are_others() -> None:
    service = service_with(GIVEN)
    lost = await put_key(service, minting.new_token(minting.new_id()))
    async with running(service):
        await until(lambda: len(operators(service)) == 2)
    assert lost in operators(service)
    await service.propose(RevokeKey("", "B" * 16))
    async with running(service):
        await until(lambda: len(operators(service)) == 2)


async def test_a_given_key_that_was_rotated_stays_as_it_is() -> None:
    service = service_with(GIVEN)
    token = tokens.token_of("B" * 16, 8)
    await put_key(service, token)
    async with running(service):
        await asyncio.sleep(0.02)
    record = keyring.key(service.reader(), "B" * 16)
    assert record is not None
    assert record.hash == tokens.digest(b"p", token)


async def test_without_keys_nothing_is_made() -> None:
    service = service_with(GIVEN, required=False)
    async with running(service):
        await asyncio.sleep(0.02)
    assert service.proposed == []


async def test_the_last_use_is_reported_once_an_hour_for_all_keys_in_one_command() -> None:
    service = service_with()
    ids = [await put_key(service, minting.new_token(minting.new_id()), "shop") for _ in range(3)]
    beside = Upkeep(service, print)

    async def reported(*used: str) -> list[tuple[str, ...]]:
        before = len(service.proposed)
        for key_id in used:
            service.key_used(key_id)
            service.key_used(key_id)
        await beside.report()
        new = service.proposed[before:]
        return [command.ids for command in new if isinstance(command, UseKeys)]

    assert await reported() == []
    assert await reported(ids[1], ids[0], "gone") == [tuple(sorted(ids[:2]))]
    service.advance(USED_GRAIN_MS / 1000 - 1)
    assert await reported(*ids) == [(ids[2],)]
    service.advance(1)
    assert await reported(*ids) == [tuple(sorted(ids[:2]))]
    record = keyring.key(service.reader(), ids[0])
    assert record is not None
    assert record.used_ms == service.now_ms()
    service.advance(USED_GRAIN_MS / 1000)
    service.failures.append(Unavailable("no_leader", "x"))
    assert await reported(ids[0]) == []
    assert await reported(ids[0]) == [(ids[0],)]


async def test_a_use_changes_nothing_of_what_is_remembered() -> None:
    service = service_with()
    key_id = await put_key(service, minting.new_token(minting.new_id()), "shop")
    before = service.key_changes()
    await service.propose(UseKeys((key_id,)))
    assert service.key_changes() == before
