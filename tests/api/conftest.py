"""The application over a service in this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from api.app import Application, create
from local_service import LocalService


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def service() -> LocalService:
    return LocalService()


@pytest.fixture
def app(service: LocalService) -> Application:
    return create(service)


@pytest.fixture
def client(app: Application) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://test") as client:
        yield client
