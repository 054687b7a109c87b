"""The client shows its key everywhere, and its errors say what is wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from access import make_key
from api.ports import AccessPolicy
from local_service import LocalService
from raftq.client import AsyncRaftq, Forbidden, Raftq, Unauthorized
from served_api import served


@pytest.fixture
def service() -> LocalService:
    return LocalService(access=AccessPolicy(required=True, pepper=b"pepper"))


@pytest.fixture
def url(service: LocalService) -> Iterator[str]:
    with served(service) as url:
        yield url


def test_a_key_lets_a_client_in(service: LocalService, url: str) -> None:
    key = make_key(service, "shop", ["produce", "consume"])
    with Raftq(url, "shop", key=key) as client:
        queue = client.queue("orders")
        queue.put("x")
        (message,) = queue.claim().messages
        assert message.body == "x"
        events = client.events(from_=1)
        assert next(iter(events)).kind == "queue_created"


def test_what_is_wrong_with_a_key_has_a_type(service: LocalService, url: str) -> None:
    with Raftq(url, "shop") as client, pytest.raises(Unauthorized):
        client.queue("orders").put("x")
    key = make_key(service, "shop", ["consume"])
    with Raftq(url, "shop", key=key) as client, pytest.raises(Forbidden) as caught:
        client.queue("orders").put("x")
    assert key not in str(caught.value)


def test_for_asyncio_it_is_the_same(service: LocalService, url: str) -> None:
    key = make_key(service, "shop", ["produce"])

    async def put() -> None:
        async with AsyncRaftq(url, "shop", key=key) as client:
            await client.queue("orders").put("x")
            with pytest.raises(Forbidden):
                await client.queue("orders").claim()
        async with AsyncRaftq(url, "shop") as client:
            with pytest.raises(Unauthorized):
                await client.queue("orders").put("x")

    asyncio.run(put())
