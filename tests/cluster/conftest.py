"""Running clusters, which are stopped whatever happens and show their logs when a test fails."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import hosts
from certificates import Authority
from cluster import Cluster, Settings
from cluster_state import OBSERVABLE
from hosts import Hosts
from scale import Scale
from scale import scale as chosen_scale

MakeCluster = Callable[..., Cluster]

_running: list[Cluster] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections += [("nodes", cluster.logs()) for cluster in _running]
    return report


@pytest.fixture
def scale() -> Scale:
    return chosen_scale()


@contextmanager
def making(directory: Path) -> Iterator[MakeCluster]:
    with ExitStack() as stack:

        def make(
            settings: Settings | None = None,
            sabotage: str | None = None,
            authority: Authority | None = None,
            size: int = 3,
        ) -> Cluster:
            merged = {name: dict(keys) for name, keys in OBSERVABLE.items()}
            for section, keys in (settings or {}).items():
                merged.setdefault(section, {}).update(keys)
            made = Cluster(
                directory, settings=merged, sabotage=sabotage, authority=authority, size=size
            )
            cluster = stack.enter_context(made)
            _running.append(cluster)
            stack.callback(_running.remove, cluster)
            return cluster.start().wait_ready()

        yield make


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[MakeCluster]:
    """Makes a started cluster that is ready; ``settings`` go over the observable ones."""
    with making(tmp_path) as make:
        yield make


@pytest.fixture(scope="module")
def make_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeCluster]:
    """The same for all tests of a module, which put into queues of their own."""
    with making(tmp_path_factory.mktemp("shared")) as make:
        yield make


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> Cluster:
    return make_cluster()


@pytest.fixture
def group() -> Iterator[Hosts]:
    """Three hosts, or a reason why there are none."""
    reason = hosts.unavailable()
    if reason is not None:
        pytest.skip(f"no hosts here: {reason}")
    with ExitStack() as stack:
        try:
            group = stack.enter_context(Hosts(("n1", "n2", "n3")))
        except hosts.Busy as busy:
            pytest.skip(str(busy))
        yield group
    assert hosts.leftovers() == []
