"""The certificates of a running node: looked at now and then, and taken anew when they change.

A file that is broken, or half of a pair that is not written yet, changes nothing: the
last ones that were whole stay, and the log says why. That a certificate has ended is no
reason to refuse it, since the clock may be what is wrong; it is said, 14 days ahead.
"""

from __future__ import annotations

import ssl
from typing import NamedTuple, Protocol

from raftq.config import Config
from raftq.runtime import Runtime
from raftq.tls.contexts import API, PEER, CertificateError, Files, Loaded, files_of, load
from raftq.tls.names import node_uri

DAY_MS = 86_400_000
SOON_MS = 14 * DAY_MS
SAID_AGAIN_MS = DAY_MS

Signature = tuple[tuple[int, ...], ...]


class Log(Protocol):
    """As structlog's loggers are."""

    def info(self, event: str, **fields: object) -> object:
        """A certificate was taken."""
        ...

    def warning(self, event: str, **fields: object) -> object:
        """Somebody has to act within days."""
        ...

    def error(self, event: str, **fields: object) -> object:
        """Somebody has to act now."""
        ...


class Meter(Protocol):
    """What is counted here; ``raftq.metrics.Metrics`` is one."""

    tls_reloads: int
    tls_reload_failures: int
    certificate_ends_s: dict[str, float]
    """Unix time, by use."""


class Certificate:
    """What one use of TLS has now: ``server`` and ``client`` are for the next connection."""

    def __init__(self, files: Files, uri: str) -> None:
        """``uri``: what the certificate must say, if anything. Raises ``CertificateError``."""
        self.files = files
        self._uri = uri
        self._signature = files.signature()
        self._loaded = self._read()
        self._said_ms = -SAID_AGAIN_MS

    @property
    def server(self) -> ssl.SSLContext:
        """To accept with."""
        return self._loaded.server

    @property
    def client(self) -> ssl.SSLContext:
        """To dial with."""
        assert self._loaded.client is not None, "nobody dials with the certificate of the API"
        return self._loaded.client

    @property
    def ends_ms(self) -> int:
        """Unix time."""
        return self._loaded.ends_ms

    def look(self, *, at_all: bool) -> Look | None:
        """What the files hold, on any thread; None if it is as before, and not asked ``at_all``."""
        # Before they are read: what changes meanwhile is seen the next time.
        signature = self.files.signature()
        if signature == self._signature and not at_all:
            return None
        try:
            return Look(self, signature, self._read())
        except CertificateError as error:
            return Look(self, signature, error)

    def take(self, look: Look) -> None:
        """Go on with what was found, if it is whole; say nothing twice of what is not."""
        self._signature = look.signature
        if isinstance(look.found, Loaded):
            self._loaded = look.found
            self._said_ms = -SAID_AGAIN_MS

    def is_to_be_told(self, now_ms: int) -> bool:
        """Whether somebody should hear of its end, as nobody did today."""
        if self.ends_ms - now_ms > SOON_MS or now_ms - self._said_ms < SAID_AGAIN_MS:
            return False
        self._said_ms = now_ms
        return True

    def _read(self) -> Loaded:
        loaded = load(self.files)
        if self._uri and self._uri not in loaded.uris:
            key, path = self.files.certificate
            raise CertificateError(f"{key}: {path} is not for this node: it lacks URI:{self._uri}")
        return loaded


class Look(NamedTuple):
    """What was found in the files of a certificate."""

    certificate: Certificate
    signature: Signature
    found: Loaded | CertificateError


def faults(config: Config) -> list[str]:
    """What is wrong with the certificates that it names, if anything is."""
    found = []
    for files in files_of(config.tls).values():
        try:
            _certificate(config, files)
        except CertificateError as error:
            found.append(str(error))
    return found


def _certificate(config: Config, files: Files) -> Certificate:
    uri = node_uri(config.cluster.name, config.node.name) if files.use == PEER else ""
    return Certificate(files, uri)


class Certificates:
    """All of one node: ``api`` and ``peer`` are None where there is no TLS."""

    def __init__(self, config: Config, *, runtime: Runtime, log: Log, meter: Meter) -> None:
        self._all = {use: _certificate(config, each) for use, each in files_of(config.tls).items()}
        self.api = self._all.get(API)
        self.peer = self._all.get(PEER)
        self._runtime, self._log, self._meter = runtime, log, meter
        self._interval_s = config.tls.check_interval_ms / 1_000

    def start(self) -> None:
        """Look at the files from time to time."""
        if self._all:
            self._tell_ends()
            self._runtime.call_later(self._interval_s, self._tick)

    def reload(self) -> None:
        """Read the files, whether they seem to have changed or not."""
        self._look(at_all=True)

    def _tick(self) -> None:
        self._look(at_all=False)
        self._tell_ends()
        self._runtime.call_later(self._interval_s, self._tick)

    def _look(self, *, at_all: bool) -> None:
        """Off the loop: the files may be on a disk that takes its time."""

        def look() -> list[Look]:
            looks = [each.look(at_all=at_all) for each in self._all.values()]
            return [look for look in looks if look is not None]

        self._runtime.offload(look, self._looked)

    def _looked(self, looks: list[Look] | None, error: BaseException | None) -> None:
        if error is not None:
            raise error
        for look in looks or ():
            look.certificate.take(look)
            use = look.certificate.files.use
            if isinstance(look.found, Loaded):
                self._meter.tls_reloads += 1
                self._log.info("certificate taken", use=use, days_left=self._days_left(look.found))
            else:
                self._meter.tls_reload_failures += 1
                reason = str(look.found)
                self._log.error("certificate not taken, the old one stays", use=use, reason=reason)
        if looks:
            self._tell_ends()

    def _tell_ends(self) -> None:
        now_ms = self._runtime.wall_ms()
        for use, certificate in self._all.items():
            self._meter.certificate_ends_s[use] = certificate.ends_ms / 1_000
            if not certificate.is_to_be_told(now_ms):
                continue
            if certificate.ends_ms <= now_ms:
                self._log.error("certificate has expired", use=use)
            else:
                days_left = self._days_left(certificate)
                self._log.warning("certificate expires soon", use=use, days_left=days_left)

    def _days_left(self, what: Certificate | Loaded) -> int:
        return (what.ends_ms - self._runtime.wall_ms()) // DAY_MS
