"""The development cluster's files and ports."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from api.access import tokens
from raftq.cli import devfiles
from raftq.cli.failure import Failure
from raftq.config import AuthConfig, load


def test_three_nodes_in_three_zones_agree_on_the_cluster(tmp_path: Path) -> None:
    cluster = devfiles.nodes(8001)
    paths = devfiles.write(tmp_path / "d", cluster, engine="sqlite", log_format="json", keys=False)
    configs = [load(path) for path in paths]
    assert [config.node.name for config in configs] == ["n1", "n2", "n3"]
    assert len({config.node.zone for config in configs}) == 3
    assert len({config.node.data_dir for config in configs}) == 3
    assert len({config.fingerprint() for config in configs}) == 1
    for node, config in zip(cluster, configs, strict=True):
        assert config.node.api_url == node.api_url
        assert config.node.api_listen == f"127.0.0.1:{node.api_port}"
        assert (config.storage.engine, config.log.format) == ("sqlite", "json")


def test_the_secret_is_private_and_survives_a_change_of_ports(tmp_path: Path) -> None:
    def secret(base_port: int) -> str:
        paths = devfiles.write(
            tmp_path, devfiles.nodes(base_port), engine="memory", log_format="human", keys=False
        )
        return load(paths[0]).cluster.secret

    first = secret(8001)
    assert len(first) == 64
    assert secret(18001) == first
    assert stat.S_IMODE((tmp_path / devfiles.SECRET).stat().st_mode) == 0o600


def test_a_cluster_with_keys_has_one_of_the_operators_and_keeps_it(tmp_path: Path) -> None:
    def auth(keys: bool) -> AuthConfig:
        cluster = devfiles.nodes(8001)
        paths = devfiles.write(tmp_path, cluster, engine="memory", log_format="human", keys=keys)
        (found,) = {load(path).auth for path in paths}
        return found

    assert not auth(keys=False).required
    first = auth(keys=True)
    assert first.required
    assert first.bootstrap_key == devfiles.key(tmp_path)
    assert tokens.id_of(first.bootstrap_key) is not None
    assert auth(keys=True) == first
    assert stat.S_IMODE((tmp_path / devfiles.KEY).stat().st_mode) == 0o600


@pytest.mark.parametrize("offset", [0, 1_000])
def test_a_taken_port_is_named_and_others_are_proposed(offset: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cluster = devfiles.nodes(port - offset)
        with pytest.raises(Failure, match=rf"{port} .*of n1.*--base-port \d+"):
            devfiles.check_ports(cluster[:1])
