from __future__ import annotations

from collections.abc import Iterator

import pytest

from hostile.target import Target, target


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("hostile")) as found:
        yield found
