"""Every key an operator may set, with its default; conf/node.toml explains each of them.

``cluster``, ``raft`` and ``limits`` must be equal on every replica, the other
sections are the node's own. What a key may hold on its own is said by its type
here; what relates several keys is in ``rules``.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from api.access import tokens
from api.ports import AccessPolicy, AuditPolicy, Fairness, Limits, OidcPolicy, WebhookPolicy

KIB = 1 << 10
MIB = 1 << 20

Count = Annotated[int, Meta(ge=1)]
Milliseconds = Annotated[int, Meta(ge=1)]
Bytes = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}$")]
OptionalName = Annotated[str, Meta(pattern=r"^([A-Za-z0-9_-][A-Za-z0-9_.-]{0,63})?$")]


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """This replica. After ``load`` no field is empty."""

    name: Name = "n1"
    zone: OptionalName = ""  # Empty: as ``cluster.members`` says, or else "default".
    data_dir: str = "data"
    api_listen: str = "127.0.0.1:8001"
    peer_listen: str = "127.0.0.1:9001"
    api_url: str = ""  # Empty: as ``cluster.members`` says, or else from ``api_listen``.


class MemberConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One replica, as the others reach it."""

    name: Name
    zone: Name = "default"
    peer: str
    api_url: str


class ClusterConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All replicas. No members: this node is a cluster of one; after ``load`` it is listed."""

    name: Name = "raftq"
    secret: str = ""  # After ``load``: the secret, whichever way it was given.
    secret_file: str = ""
    members: tuple[MemberConfig, ...] = ()
    leader_zones: dict[Name, Count] = {}

    def __repr__(self) -> str:
        """Without the secret: representations end up in logs."""
        return f"ClusterConfig(name={self.name!r}, members={self.members!r})"


class RaftConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Consensus: how soon a leader is missed, and how much is in flight."""

    heartbeat_ms: Milliseconds = 100
    election_timeout_min_ms: Milliseconds = 500
    election_timeout_max_ms: Milliseconds = 1_000
    leader_fallback_ms: Milliseconds = 1_000
    entry_bytes_max: Bytes = 8 * MIB
    inflight_entries_max: Count = 8
    peer_window_bytes: Bytes = 8 * MIB
    request_timeout_ms: Milliseconds = 10_000
    move_hold_ms: Milliseconds = 5_000
    move_pause_ms: Milliseconds = 30_000


class StorageConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is on disk, and how often it is made durable and checked."""

    engine: Literal["rocksdb", "memory", "sqlite"] = "rocksdb"
    segment_bytes: Bytes = 16 * MIB
    journal_cache_bytes: Bytes = 32 * MIB
    journal_keep_bytes: Bytes = 256 * MIB
    flush_interval_ms: Milliseconds = 30_000
    digest_interval_ms: Milliseconds = 600_000


class ApiConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What this node offers, and how much it takes on at once."""

    frontends: tuple[str, ...] = ("rest",)
    cors_origins: tuple[str, ...] = ()
    connections_max: Count = 10_000
    connections_per_address_max: Count = 1_000
    handshakes_per_s: Count = 100
    handshakes_burst: Count = 1_000
    pending_max: Count = 20_000
    pending_bytes_max: Bytes = 128 * MIB
    bodies_bytes_max: Bytes = 128 * MIB
    wait_target_ms: Milliseconds = 700
    keep_alive_s: Count = 75
    head_timeout_s: Count = 10
    body_timeout_s: Count = 20
    write_timeout_s: Count = 30
    head_bytes_max: Bytes = 10 * KIB
    header_fields_max: Count = 128
    target_bytes_max: Bytes = 8 * KIB


class AuthConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may ask; ``hash_secret`` must be the same on every replica."""

    required: bool = True
    anonymous_anywhere: bool = False
    hash_secret: str = ""  # After ``load``: the secret, whichever way it was given.
    hash_secret_file: str = ""
    bootstrap_key: str = ""  # After ``load``: the key, whichever way it was given.
    bootstrap_key_file: str = ""
    staleness_ms_max: Milliseconds = 1_000

    def __repr__(self) -> str:
        """Without the secrets: representations end up in logs."""
        return f"AuthConfig(required={self.required!r})"

    def policy(self, cluster_secret: str) -> AccessPolicy:
        """What front ends need to know."""
        return AccessPolicy(
            required=self.required,
            pepper=tokens.pepper((self.hash_secret or cluster_secret).encode()),
            staleness_ms_max=self.staleness_ms_max,
            bootstrap_key=self.bootstrap_key,
        )


class EncryptionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The master keys, which wrap the keys of accounts whose bodies are sealed."""

    keys: str = ""  # After ``load``: the keys, whichever way they were given; see ``masters``.
    key_file: str = ""

    def __repr__(self) -> str:
        """Without the keys: representations end up in logs."""
        return f"EncryptionConfig(key_file={self.key_file!r})"


class TlsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificates, in PEM; empty: in the clear. After ``load`` the paths are absolute."""

    api_cert_file: str = ""
    api_key_file: str = ""
    api_client_ca_file: str = ""
    peer_cert_file: str = ""
    peer_key_file: str = ""
    peer_ca_file: str = ""
    check_interval_ms: Milliseconds = 10_000
    plain_http_anywhere: bool = False
    plain_peers_anywhere: bool = False


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is logged, and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["human", "json"] = "human"
    access: Literal["off", "errors", "all"] = "errors"
    access_lines_max: Count = 1_000


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    node: NodeConfig = NodeConfig()
    cluster: ClusterConfig = ClusterConfig()
    raft: RaftConfig = RaftConfig()
    storage: StorageConfig = StorageConfig()
    limits: Limits = Limits()
    api: ApiConfig = ApiConfig()
    auth: AuthConfig = AuthConfig()
    oidc: OidcPolicy = OidcPolicy()
    fairness: Fairness = Fairness()
    webhooks: WebhookPolicy = WebhookPolicy()
    encryption: EncryptionConfig = EncryptionConfig()
    tls: TlsConfig = TlsConfig()
    audit: AuditPolicy = AuditPolicy()
    log: LogConfig = LogConfig()

    def fingerprint(self) -> str:
        """A short digest of what must be equal on every replica, the secret left out.

        For peers to compare and warn: a change rolled out node by node makes it differ
        for a while, and that alone is no reason to refuse a peer.
        """
        members = sorted(self.cluster.members, key=lambda member: member.name)
        zones = sorted(self.cluster.leader_zones.items())
        shared = (self.cluster.name, members, zones, self.raft, self.limits, self.audit)
        return hashlib.sha256(msgspec.json.encode(shared)).hexdigest()[:16]


def split_address(text: str) -> tuple[str, int]:
    """(host, port) of "host:port" or "[v6 address]:port"; ValueError says what is wrong."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f'"{text}" is not "host:port"')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'"{text}": write a v6 address as "[address]:port"')
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ValueError(f'"{text}": the port must be from 1 to 65535')
    return host, int(port)
