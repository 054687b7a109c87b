"""From files to contexts; a ``CertificateError`` names the configuration's key and the file.

TLS 1.3 between nodes, 1.2 or later for clients. No session is ever resumed by a ticket:
what a ticket holds would outlive the certificate, and the authority, that it began with.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from raftq.config import TlsConfig

T = TypeVar("T")

API = "api"
PEER = "peer"


class CertificateError(ValueError):
    """A file is not what it has to be."""


class Files(NamedTuple):
    """What one use of TLS is made of; each with its key in the configuration."""

    use: str
    certificate: tuple[str, Path]
    key: tuple[str, Path]
    authority: tuple[str, Path] | None
    """Who signs those that connect; None: they need no certificate."""

    def signature(self) -> tuple[tuple[int, ...], ...]:
        """Differs when a file was written or replaced since."""
        files = [self.certificate, self.key, *filter(None, [self.authority])]
        return tuple(_signature(path) for _, path in files)


class Loaded(NamedTuple):
    """Everything for connections from now on."""

    server: ssl.SSLContext
    client: ssl.SSLContext | None
    """Between nodes only: nobody calls the API from here."""
    uris: frozenset[str]
    ends_ms: int
    """Unix time at which the first certificate of the chain ends."""


def files_of(tls: TlsConfig) -> dict[str, Files]:
    """By use, those that the configuration names."""
    found = {}
    for use, authority in ((API, "api_client_ca_file"), (PEER, "peer_ca_file")):

        def named(key: str) -> tuple[str, Path]:
            return f"tls.{key}", Path(getattr(tls, key))

        if getattr(tls, f"{use}_cert_file"):
            found[use] = Files(
                use,
                named(f"{use}_cert_file"),
                named(f"{use}_key_file"),
                named(authority) if getattr(tls, authority) else None,
            )
    return found


def load(files: Files) -> Loaded:
    """Read and check them all; raises ``CertificateError``."""
    try:
        return _load(files)
    except CertificateError:
        raise
    except (ValueError, UnsupportedAlgorithm) as error:  # Well-formed, and strange inside.
        raise CertificateError(f"{_told(files.certificate)}: {error}") from error


def _load(files: Files) -> Loaded:
    chain = _parsed(files.certificate, x509.load_pem_x509_certificates, "holds no certificate")
    key = _parsed(
        files.key,
        lambda data: load_pem_private_key(data, password=None),
        "holds no private key that can be read without a passphrase",
    )
    if key.public_key() != chain[0].public_key():
        raise CertificateError(
            f"{_told(files.key)} is not the key of the first certificate in {files.certificate[1]}"
        )
    return Loaded(
        server=_context(files, ssl.PROTOCOL_TLS_SERVER),
        client=_context(files, ssl.PROTOCOL_TLS_CLIENT) if files.use == PEER else None,
        uris=_uris(chain[0]),
        ends_ms=min(_milliseconds(each.not_valid_after_utc) for each in chain),
    )


def _context(files: Files, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    between_nodes = files.use == PEER
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if between_nodes else ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_TICKET
    # Whom we talk with is said by ``names``, not by the host that we found it at.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if files.authority else ssl.CERT_NONE
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
        if not between_nodes:
            context.set_alpn_protocols(["http/1.1"])
    _use_chain(context, files)
    if files.authority is not None:
        _trust(context, files.authority)
    return context


def _use_chain(context: ssl.SSLContext, files: Files) -> None:
    try:
        # A passphrase, so that an encrypted key is an error and not a question in the terminal.
        context.load_cert_chain(files.certificate[1], files.key[1], password="")
    except (OSError, ValueError) as error:
        raise CertificateError(f"{_told(files.certificate)}: {_words(error)}") from error


def _trust(context: ssl.SSLContext, authority: tuple[str, Path]) -> None:
    try:
        context.load_verify_locations(cafile=authority[1])
    except (OSError, ValueError) as error:
        raise CertificateError(f"{_told(authority)}: {_words(error)}") from error


def _parsed(file: tuple[str, Path], parse: Callable[[bytes], T], otherwise: str) -> T:
    try:
        data = file[1].read_bytes()
    except OSError as error:
        raise CertificateError(f"{_told(file)}: {_words(error)}") from error
    try:
        return parse(data)
    # TypeError: the key needs a passphrase.
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"{_told(file)} {otherwise}") from error


def _told(file: tuple[str, Path]) -> str:
    return f"{file[0]}: {file[1]}"


def _words(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error)


def _uris(certificate: x509.Certificate) -> frozenset[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):  # ValueError: not as the standard says.
        return frozenset()
    return frozenset(names.get_values_for_type(x509.UniformResourceIdentifier))


def _milliseconds(time: datetime.datetime) -> int:
    return int(time.timestamp() * 1_000)


def _signature(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_size, status.st_ino)
