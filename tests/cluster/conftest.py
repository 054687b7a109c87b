"""Running clusters, which are stopped whatever happens and show their logs when a test fails."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
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

_failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest.fixture
def scale() -> Scale:
    return chosen_scale()


@pytest.fixture
def make_cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeCluster]:
    """Makes a started cluster that is ready; ``settings`` go over the observable ones."""
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
                tmp_path, settings=merged, sabotage=sabotage, authority=authority, size=size
            )
            cluster = stack.enter_context(made)
            stack.callback(show, cluster)
            return cluster.start().wait_ready()

        def show(cluster: Cluster) -> None:
            if request.node.stash.get(_failed, False):
                print(cluster.logs())

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
