"""Both ends prove that they know the cluster's secret, and who they are. No IO in here.

    dialler -> acceptor   hello      magic, version, cluster, dialler, acceptor, nonce
    acceptor -> dialler   challenge  magic, version, nonce
    dialler -> acceptor   proof      HMAC-SHA256(secret, "dialler", hello, challenge)
    acceptor -> dialler   proof      HMAC-SHA256(secret, "acceptor", hello, challenge)

Each proof covers both nonces, both names, the cluster and the version, since those are
the hello and the challenge; a fresh nonce of one's own makes a replay worthless, the role
a reflection. Frames follow the last proof at once.

A stranger learns nothing: the acceptor proves itself last, and answers every well-formed
hello alike. Whatever was wrong with it, the connection is closed after the proof and the
reason stays here. Without TLS, somebody *on* the path can still read and take over an
established connection: the secret protects against everybody else. Under TLS the
certificates must be of the very nodes that the hello names: who has stolen the secret and
one node's key can speak as that node and no other.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Container

import msgspec

from raftq.tls.names import node_uri

MAGIC = b"RAFTQ"
VERSION = 1
NONCE_BYTES = 32
PROOF_BYTES = 32
UNPROVEN_BYTES_MAX = 4096

_PREFIX = MAGIC + bytes([VERSION])
_LENGTHS_BYTES = 3  # One byte for each of the three names in a hello.


class Reason(enum.StrEnum):
    """Why a connection did not come about; for logs and counts, never for the peer."""

    MALFORMED = "malformed"
    TOO_MUCH = "too_much_before_the_proof"
    OTHER_VERSION = "other_version"
    OTHER_CLUSTER = "other_cluster"
    MISDIRECTED = "meant_for_another_node"
    OWN_NAME = "own_name"
    UNKNOWN_NAME = "unknown_name"
    WRONG_DIRECTION = "the_smaller_name_dials"
    WRONG_PROOF = "wrong_proof"
    WRONG_CERTIFICATE = "certificate_of_another_node"
    TOO_SLOW = "too_slow"


class Refused(Exception):
    """The handshake has failed; ``claimed`` is the name that the peer gave, if any."""

    def __init__(self, reason: Reason, claimed: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.claimed = claimed


class Identity(msgspec.Struct, frozen=True):
    """Who this node is, and what it knows."""

    cluster: str
    name: str
    secret: bytes

    def __repr__(self) -> str:
        """Without the secret: representations end up in logs."""
        return f"Identity(cluster={self.cluster!r}, name={self.name!r})"


class Dialler:
    """The end that opened the connection, and knows whom it wants."""

    def __init__(self, identity: Identity, peer: str, nonce: bytes) -> None:
        assert len(nonce) == NONCE_BYTES
        self.peer: str = peer
        self.done = False
        self.rest = b""  # Once done: what came after the handshake.
        self._identity = identity
        self._buffer = bytearray()
        self._challenge = b""
        self.hello = _hello(identity.cluster, identity.name, peer, nonce)

    def certified(self, uris: frozenset[str]) -> None:
        """What the other end's certificate says; raises ``Refused``, before anything is sent."""
        if node_uri(self._identity.cluster, self.peer) not in uris:
            raise Refused(Reason.WRONG_CERTIFICATE, self.peer)

    def feed(self, data: bytes) -> bytes:
        """What to send next; raises ``Refused``."""
        self._buffer += data
        reply = b""
        if not self._challenge:
            challenge = _take(self._buffer, len(_PREFIX) + NONCE_BYTES, self.peer)
            if challenge:
                self._challenge = challenge
                reply = _proof(self._identity.secret, b"dialler", self.hello, challenge)
        if self._challenge and len(self._buffer) >= PROOF_BYTES:
            expected = _proof(self._identity.secret, b"acceptor", self.hello, self._challenge)
            if not hmac.compare_digest(bytes(self._buffer[:PROOF_BYTES]), expected):
                raise Refused(Reason.WRONG_PROOF, self.peer)
            self.done = True
            self.rest = bytes(self._buffer[PROOF_BYTES:])
        return reply


class Acceptor:
    """The end that was called; ``peers`` are the names it may be called by."""

    hello = b""  # It speaks second.

    def __init__(self, identity: Identity, peers: Container[str], nonce: bytes) -> None:
        assert len(nonce) == NONCE_BYTES
        self.peer = ""  # Once done: who called.
        self.done = False
        self.rest = b""
        self._identity = identity
        self._peers = peers
        self._buffer = bytearray()
        self._hello = b""
        self._challenge = _PREFIX + nonce
        self._uris: frozenset[str] | None = None  # None: no certificates are in use.

    def certified(self, uris: frozenset[str]) -> None:
        """What the other end's certificate says; it is judged with everything else."""
        self._uris = uris

    def feed(self, data: bytes) -> bytes:
        """What to send next; raises ``Refused``."""
        self._buffer += data
        if len(self._buffer) > UNPROVEN_BYTES_MAX:  # A dialler sends no frames before our proof.
            raise Refused(Reason.TOO_MUCH)
        reply = b""
        if not self._hello:
            self._hello = _take(self._buffer, self._hello_bytes())
            if self._hello:
                _names(self._hello)  # Malformed ones are refused at once.
                reply = self._challenge
        if self._hello and len(self._buffer) >= PROOF_BYTES:
            reply += self._judge(bytes(self._buffer[:PROOF_BYTES]))
            self.rest = bytes(self._buffer[PROOF_BYTES:])
        return reply

    def _hello_bytes(self) -> int:
        fixed = len(_PREFIX) + _LENGTHS_BYTES
        return fixed + sum(self._buffer[len(_PREFIX) : fixed]) + NONCE_BYTES

    def _judge(self, proof: bytes) -> bytes:
        """The answer to a good proof. The order of work is the same for every fault."""
        expected = _proof(self._identity.secret, b"dialler", self._hello, self._challenge)
        proven = hmac.compare_digest(proof, expected)
        cluster, dialler, acceptor = _names(self._hello)
        faults = {
            Reason.OTHER_CLUSTER: cluster != self._identity.cluster,
            Reason.MISDIRECTED: acceptor != self._identity.name,
            Reason.OWN_NAME: dialler == self._identity.name,
            Reason.UNKNOWN_NAME: dialler not in self._peers,
            Reason.WRONG_DIRECTION: dialler > self._identity.name,
            Reason.WRONG_PROOF: not proven,
            Reason.WRONG_CERTIFICATE: not self._is_certified(cluster, dialler),
        }
        for reason, wrong in faults.items():
            if wrong:
                raise Refused(reason, dialler)
        self.peer = dialler
        self.done = True
        return _proof(self._identity.secret, b"acceptor", self._hello, self._challenge)

    def _is_certified(self, cluster: str, dialler: str) -> bool:
        return self._uris is None or node_uri(cluster, dialler) in self._uris


def _hello(cluster: str, dialler: str, acceptor: str, nonce: bytes) -> bytes:
    names = [name.encode("ascii") for name in (cluster, dialler, acceptor)]
    return _PREFIX + bytes(map(len, names)) + b"".join(names) + nonce


def _names(hello: bytes) -> tuple[str, str, str]:
    """Cluster, dialler and acceptor out of a whole hello."""
    at = len(_PREFIX) + _LENGTHS_BYTES
    names = []
    for length in hello[len(_PREFIX) : at]:
        names.append(hello[at : at + length])
        at += length
    if not all(name and name.isascii() for name in names):
        raise Refused(Reason.MALFORMED)
    cluster, dialler, acceptor = (name.decode() for name in names)
    if not (cluster + dialler + acceptor).isprintable():  # They end up in logs.
        raise Refused(Reason.MALFORMED)
    return cluster, dialler, acceptor


def _take(buffer: bytearray, count: int, claimed: str = "") -> bytes:
    """Cut a message of ``count`` bytes off the front; empty while it is incomplete."""
    if not MAGIC.startswith(buffer[: len(MAGIC)]):
        raise Refused(Reason.MALFORMED, claimed)
    if len(buffer) > len(MAGIC) and buffer[len(MAGIC)] != VERSION:
        raise Refused(Reason.OTHER_VERSION, claimed)
    if len(buffer) < count:
        return b""
    message = bytes(buffer[:count])
    del buffer[:count]
    return message


def _proof(secret: bytes, role: bytes, hello: bytes, challenge: bytes) -> bytes:
    # A hello says its own length, and the challenge has one only: no two inputs are alike.
    return hmac.digest(secret, role + b"\x00" + hello + challenge, hashlib.sha256)
