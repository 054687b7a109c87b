"""What conf/ offers for production: it passes our rules, and systemd's where that is there."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path

import pytest

from api.access.minting import new_id, new_token
from certificates import Authority
from fake_runtime import FakeRuntime
from raftq.config import load
from raftq.metrics import Metrics
from raftq.tls.certificates import Certificates

CONF = Path(__file__).parents[1] / "conf"
UNIT = (CONF / "raftq.service").read_text()
EXPOSURE_MAX = 1.5  # Of 10, as ``systemd-analyze security`` counts it.


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """/etc/raftq of node n1, with all that the hardened example names."""
    master = f"k1 {b64encode(secrets.token_bytes(32)).decode()}"
    contents = {
        "cluster.secret": secrets.token_hex(32),
        "hash.secret": secrets.token_hex(32),
        "bootstrap.key": new_token(new_id()),
        "master.keys": master,
    }
    for name, text in contents.items():
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_text(text + "\n")
    authority = Authority()
    authority.issue().write(tmp_path / "tls", "api")
    authority.node("prod", "n1").write(tmp_path / "tls", "peer")
    (tmp_path / "tls" / "peer-ca.pem").write_bytes(authority.certificate)
    text = (CONF / "hardened" / "node.toml").read_text()
    (tmp_path / "node.toml").write_text(text.replace("/etc/raftq", str(tmp_path)))
    return tmp_path


def environment(credentials: Path) -> Mapping[str, str]:
    """What the unit sets, with the credentials in this directory."""
    found = re.findall(r"^Environment=(\w+)=(.*)$", UNIT, re.MULTILINE)
    return {name: value.replace("%d", str(credentials)) for name, value in found}


def test_the_hardened_example_passes_the_rules_and_its_certificates_are_taken(etc: Path) -> None:
    config = load(etc / "node.toml")
    assert config.auth.required
    assert not config.tls.plain_http_anywhere
    assert not config.tls.plain_peers_anywhere
    certificates = Certificates(config, runtime=FakeRuntime(), log=None, meter=Metrics())
    assert certificates.api is not None
    assert certificates.peer is not None


def test_under_systemd_all_secrets_come_as_credentials(etc: Path, tmp_path: Path) -> None:
    config = load(etc / "node.toml")
    handed = re.findall(r"^LoadCredential=(\S+):/etc/raftq/(\S+)$", UNIT, re.MULTILINE)
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for name, file in handed:
        shutil.move(etc / file, credentials / name)
    again = load(etc / "node.toml", environment(credentials))
    assert again.cluster.secret == config.cluster.secret
    assert (again.auth.hash_secret, again.auth.bootstrap_key) == (
        config.auth.hash_secret,
        config.auth.bootstrap_key,
    )
    assert again.encryption.keys == config.encryption.keys


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
@pytest.mark.parametrize("check", ["verify", "security"])
def test_systemd_accepts_the_unit_and_finds_it_safe(check: str, tmp_path: Path) -> None:
    unit = tmp_path / "raftq.service"
    unit.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT, flags=re.MULTILINE))
    how = [f"--threshold={EXPOSURE_MAX * 10:.0f}", "--offline=true"] if check == "security" else []
    command = ["systemd-analyze", check, *how, str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if check == "verify":
        assert done.stderr == ""
