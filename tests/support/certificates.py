"""An authority that lives as long as a test, and the certificates it hands out, as files."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from raftq.config import TlsConfig
from raftq.tls.certificates import Certificate
from raftq.tls.contexts import PEER, files_of
from raftq.tls.names import node_uri

LIFE = datetime.timedelta(days=100)


class Pair(NamedTuple):
    """A certificate and its key, in PEM."""

    certificate: bytes
    key: bytes

    def write(self, directory: Path, name: str) -> Pair:
        """Into ``name``.pem and ``name``.key, as an operator should: whole or not at all."""
        directory.mkdir(parents=True, exist_ok=True)
        for suffix, data, mode in ((".pem", self.certificate, 0o644), (".key", self.key, 0o600)):
            path = directory / f"{name}{suffix}"
            new = path.with_suffix(f"{suffix}.new")
            new.write_bytes(data)
            new.chmod(mode)
            os.replace(new, path)
        return self


class Authority:
    """Signs; ``certificate`` is what is trusted."""

    def __init__(self, name: str = "authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        basic = x509.BasicConstraints(ca=True, path_length=None)
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        builder = _builder(self._name, self._name, self._key.public_key(), LIFE)
        builder = builder.add_extension(basic, critical=True).add_extension(usage, critical=True)
        self._certificate = builder.sign(self._key, hashes.SHA256())

    @property
    def certificate(self) -> bytes:
        return self._certificate.public_bytes(Encoding.PEM)

    def trust(self) -> ssl.SSLContext:
        """A client's."""
        return ssl.create_default_context(cadata=self.certificate.decode())

    def issue(
        self,
        *,
        uris: Sequence[str] = (),
        addresses: Sequence[str] = ("127.0.0.1",),
        life: datetime.timedelta = LIFE,
        passphrase: bytes = b"",
    ) -> Pair:
        """A certificate for these names, from an hour ago (or its whole life) until ``life``."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        builder = _builder(_name("somebody"), self._name, key.public_key(), life)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        return Pair(
            signed.public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption),
        )

    def node(self, cluster: str, name: str, *, life: datetime.timedelta = LIFE) -> Pair:
        """For a node, to the other nodes and to clients on loopback."""
        return self.issue(uris=[node_uri(cluster, name)], life=life)


def certificate_of(
    directory: Path, name: str, *, cluster: str = "", use: str = PEER
) -> Certificate:
    """What a node with ``settings`` has; ``cluster``: whose node it must be for."""
    tls = TlsConfig(**settings(directory, name, uses=[use]))
    return Certificate(files_of(tls)[use], node_uri(cluster, name) if cluster else "")


def settings(
    directory: Path, name: str, *, uses: Sequence[str] = ("api", "peer")
) -> dict[str, str]:
    """``[tls]`` with what ``Pair.write`` wrote, and the authority's certificate in ca.pem."""
    keys = {}
    for use in uses:
        keys[f"{use}_cert_file"] = str(directory / f"{name}.pem")
        keys[f"{use}_key_file"] = str(directory / f"{name}.key")
        if use == "peer":
            keys["peer_ca_file"] = str(directory / "ca.pem")
    return keys


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    begins = min(now, now + life) - datetime.timedelta(hours=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(now + life)
    )
