"""Certificates as files: what is wrong with them is told, and what changes is taken."""

from __future__ import annotations

import datetime
import re
from base64 import b64encode
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from certificates import Authority, Pair, settings
from fake_runtime import FakeRuntime
from raftq.config import Config
from raftq.metrics import Metrics
from raftq.tls.certificates import DAY_MS, Certificates
from raftq.tls.contexts import API, PEER, CertificateError

EC_KEY, UNKNOWN_KEY = bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d0277")
DAYS = datetime.timedelta(days=1)


class Log:
    """What was said, by level."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.said.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.said.append(("warning", event, fields))

    def error(self, event: str, **fields: object) -> None:
        self.said.append(("error", event, fields))


class Bench:
    """Node n1 of the cluster "east", with its certificates in files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority()
        self.write(self.authority.node("east", "n1"))
        (directory / "ca.pem").write_bytes(self.authority.certificate)
        self.runtime, self.log, self.metrics = FakeRuntime(), Log(), Metrics()
        self.runtime.wall = int(datetime.datetime.now(datetime.UTC).timestamp() * 1_000)
        self.tls = settings(directory, "n1")

    def write(self, pair: Pair) -> None:
        pair.write(self.directory, "n1")

    def file(self, suffix: str) -> Path:
        return self.directory / f"n1{suffix}"

    def certificates(self) -> Certificates:
        sections = {"node": {"name": "n1"}, "cluster": {"name": "east"}, "tls": self.tls}
        config = msgspec.convert(sections, Config)
        return Certificates(config, runtime=self.runtime, log=self.log, meter=self.metrics)

    def run(self) -> None:
        """What was asked for in the background."""
        self.runtime.work()
        self.runtime.finish()

    def look(self) -> None:
        """The time comes to look at the files."""
        self.runtime.pass_time(10.0)
        self.run()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def spoilt_by(bench: Bench, how: str) -> None:
    """One thing that is wrong with the files of the bench."""
    foreign = Authority().issue()
    match how:
        case "no certificate":
            bench.file(".pem").write_bytes(b"")
        case "certificate cut off":
            bench.file(".pem").write_bytes(bench.file(".pem").read_bytes()[:200])
        case "no key":
            bench.file(".key").write_bytes(b"rubbish")
        case "another key":
            bench.file(".key").write_bytes(foreign.key)
        case "a key of no known kind":
            plain = load_pem_private_key(bench.file(".key").read_bytes(), None)
            encoded = plain.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            body = b64encode(encoded.replace(EC_KEY, UNKNOWN_KEY)).decode()
            bench.file(".key").write_text(
                f"-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"
            )
        case "a key with a passphrase":
            bench.write(bench.authority.issue(uris=["raftq://east/n1"], passphrase=b"secret"))
        case "no authority":
            (bench.directory / "ca.pem").write_bytes(b"rubbish")
        case "gone":
            bench.file(".pem").unlink()
        case "another node":
            bench.write(bench.authority.node("east", "n2"))


FAULTS = [
    ("no certificate", ".pem holds no certificate", "cert_file"),
    ("certificate cut off", ".pem holds no certificate", "cert_file"),
    ("no key", ".key holds no private key", "key_file"),
    ("another key", ".key is not the key of the first certificate in", "key_file"),
    ("a key of no known kind", ".key holds no private key that can be read", "key_file"),
    ("a key with a passphrase", ".key holds no private key that can be read", "key_file"),
    ("no authority", "ca.pem: ", "ca_file"),
    ("gone", ".pem: No such file or directory", "cert_file"),
    ("another node", ".pem is not for this node: it lacks URI:raftq://east/n1", "cert_file"),
]


@pytest.mark.parametrize(("how", "why", "key"), FAULTS)
def test_what_is_wrong_at_the_start_is_told_with_key_and_file(
    bench: Bench, how: str, why: str, key: str
) -> None:
    spoilt_by(bench, how)
    bench.tls = settings(bench.directory, "n1", uses=[PEER])
    with pytest.raises(CertificateError) as caught:
        bench.certificates()
    assert str(caught.value).startswith(f"tls.peer_{key}: {bench.directory}")
    assert why in str(caught.value)


@pytest.mark.parametrize(("how", "why", "key"), FAULTS)
def test_what_breaks_later_is_told_once_and_the_old_one_stays(
    bench: Bench, how: str, why: str, key: str
) -> None:
    certificates = bench.certificates()
    assert certificates.peer is not None
    certificates.start()
    before = certificates.peer.server
    spoilt_by(bench, how)
    for _ in range(3):
        bench.look()
    failures = [fields for level, _, fields in bench.log.said if level == "error"]
    assert why in str([fields["reason"] for fields in failures if fields["use"] == PEER])
    assert len([fields for fields in failures if fields["use"] == PEER]) == 1
    assert certificates.peer.server is before
    assert bench.metrics.tls_reload_failures == len(failures)


def test_a_new_certificate_is_taken_when_the_files_change_and_not_before(bench: Bench) -> None:
    certificates = bench.certificates()
    certificates.start()
    assert certificates.api is not None
    before = certificates.api.server
    bench.look()
    assert (certificates.api.server, bench.metrics.tls_reloads) == (before, 0)
    bench.write(bench.authority.node("east", "n1", life=30 * DAYS))
    bench.look()
    assert certificates.api.server is not before
    assert bench.metrics.tls_reloads == 2  # One file serves both uses here.
    assert {fields["days_left"] for _, _, fields in bench.log.said} == {29}
    (line,) = re.findall(
        r'^raftq_tls_certificate_expiry_seconds{use="api"} (.*)$',
        bench.metrics.render().decode(),
        re.MULTILINE,
    )
    assert float(line) == certificates.api.ends_ms / 1_000


def test_half_of_a_pair_is_not_taken_and_the_whole_is_once_it_is_there(bench: Bench) -> None:
    certificates = bench.certificates()
    certificates.start()
    assert certificates.api is not None
    before = certificates.api.server
    pair = bench.authority.node("east", "n1")
    bench.file(".pem").write_bytes(pair.certificate)
    bench.look()
    assert certificates.api.server is before
    bench.file(".key").write_bytes(pair.key)
    bench.look()
    assert certificates.api.server is not before


def test_asked_to_the_files_are_read_even_if_they_seem_to_be_the_same(bench: Bench) -> None:
    certificates = bench.certificates()
    certificates.reload()
    bench.run()
    assert bench.metrics.tls_reloads == 2


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (30, []),
        (14, []),
        (13, [("warning", "certificate expires soon")]),
        (-1, [("error", "certificate has expired")]),
    ],
)
def test_an_end_is_told_two_weeks_ahead_and_every_day(
    bench: Bench, days: int, said: list[tuple[str, str]]
) -> None:
    bench.write(bench.authority.node("east", "n1", life=days * DAYS + DAYS / 2))
    bench.tls = settings(bench.directory, "n1", uses=[API])
    bench.certificates().start()
    bench.look()
    assert [told[:2] for told in bench.log.said] == said
    bench.runtime.wall += DAY_MS
    bench.look()
    again = said or ([("warning", "certificate expires soon")] if days == 14 else [])
    assert [told[:2] for told in bench.log.said[len(said) :]] == again


def test_without_certificates_nothing_is_looked_at(bench: Bench) -> None:
    bench.tls = {}
    certificates = bench.certificates()
    certificates.start()
    certificates.reload()
    assert (certificates.api, certificates.peer, bench.runtime.timers) == (None, None, [])
