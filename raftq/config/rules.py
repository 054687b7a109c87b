"""What must hold between keys. Every broken rule is reported: one restart should be enough.

A rule names the keys it reads, so that it stays silent when one of those has a
problem of its own already.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from api.access import tokens
from api.ports import AccountLimits
from api.webhooks import targets
from raftq.config import masters
from raftq.config.schema import AuthConfig, Config, EncryptionConfig, MemberConfig, split_address

SECRET_BYTES_MIN = 16
ENTRY_BYTES_MAX = 8 << 20
"""The smallest message takes eight bytes, and an entry numbers at most 2^20 of them."""


class Problem(NamedTuple):
    """A reason, told under the first of the keys it depends on."""

    keys: tuple[str, ...]
    reason: str
    origin: str = ""  # Where the value came from, if that is not where its key is set.


def problems(config: Config) -> Iterator[Problem]:
    """Every broken rule of a configuration whose values have the right types."""
    yield from _node(config)
    yield from _members(config)
    yield from _secret(config)
    yield from _raft(config)
    yield from _limits(config)
    yield from _fairness(config)
    yield from _webhooks(config)
    yield from _auth(config)
    yield from _oidc(config)
    yield from _encryption(config)
    yield from _tls(config)
    yield from _in_the_clear(config)
    yield from _audit(config)
    yield from _origins(config)
    if not config.api.frontends:
        yield Problem(("api.frontends",), "name at least one, or the node serves nobody")


def _node(config: Config) -> Iterator[Problem]:
    node = config.node
    yield from _address("node.api_listen", node.api_listen)
    yield from _address("node.peer_listen", node.peer_listen)
    if node.api_listen == node.peer_listen:
        yield Problem(("node.peer_listen", "node.api_listen"), "is the same as node.api_listen")
    if node.api_url:
        yield from _url("node.api_url", node.api_url)
    if not node.data_dir:
        yield Problem(("node.data_dir",), "must not be empty")


def _members(config: Config) -> Iterator[Problem]:
    members, node = config.cluster.members, config.node
    for position, member in enumerate(members):
        key = f"cluster.members[{position}]"
        yield from _address(f"{key}.peer", member.peer)
        yield from _url(f"{key}.api_url", member.api_url)
        for field in ("name", "peer", "api_url"):
            value = getattr(member, field)
            if value in [getattr(other, field) for other in members[:position]]:
                yield Problem((f"{key}.{field}", "cluster.members"), f'"{value}" is there twice')
    if not members:
        return
    zones = dict.fromkeys(member.zone for member in members)
    for zone in config.cluster.leader_zones:
        if zone not in zones:
            reason = f'no member is in "{zone}"; there are {", ".join(zones)}'
            yield Problem(("cluster.leader_zones", "cluster.members"), reason)
    me = [member for member in members if member.name == node.name]
    if not me:
        names = ", ".join(member.name for member in members)
        reason = f'"{node.name}" is not in cluster.members ({names})'
        yield Problem(("node.name", "cluster.members"), reason)
    for member in me[:1]:
        yield from _agrees(config, member)


def _agrees(config: Config, member: MemberConfig) -> Iterator[Problem]:
    """The node may leave these to ``cluster.members``, but not contradict it."""
    for field in ("zone", "api_url"):
        mine, theirs = getattr(config.node, field), getattr(member, field)
        if mine and mine != theirs:
            reason = f'"{mine}", but cluster.members says "{theirs}" for {member.name}'
            yield Problem((f"node.{field}", "node.name", "cluster.members"), reason)


def _secret(config: Config) -> Iterator[Problem]:
    cluster = config.cluster
    if cluster.secret and cluster.secret_file:
        yield Problem(("cluster.secret", "cluster.secret_file"), "give secret or secret_file")
    elif len(cluster.members) > 1 and not cluster.secret and not cluster.secret_file:
        reason = "needed with more than one member: at least 16 random bytes, the same on each node"
        yield Problem(("cluster.secret_file", "cluster.secret", "cluster.members"), reason)
    if cluster.secret and len(cluster.secret.encode()) < SECRET_BYTES_MIN:
        yield Problem(("cluster.secret",), f"shorter than {SECRET_BYTES_MIN} bytes")


def _raft(config: Config) -> Iterator[Problem]:
    raft, storage = config.raft, config.storage
    bounds = {
        ("raft.election_timeout_min_ms", "raft.heartbeat_ms"): (
            raft.election_timeout_min_ms >= 3 * raft.heartbeat_ms,
            f"must be at least 3 x raft.heartbeat_ms ({3 * raft.heartbeat_ms})",
        ),
        ("raft.election_timeout_max_ms", "raft.election_timeout_min_ms"): (
            raft.election_timeout_max_ms > raft.election_timeout_min_ms,
            f"must be above raft.election_timeout_min_ms ({raft.election_timeout_min_ms})",
        ),
        ("raft.leader_fallback_ms", "raft.heartbeat_ms"): (
            raft.leader_fallback_ms >= 3 * raft.heartbeat_ms,
            f"must be at least 3 x raft.heartbeat_ms ({3 * raft.heartbeat_ms})",
        ),
        ("raft.request_timeout_ms", "raft.election_timeout_max_ms"): (
            raft.request_timeout_ms > raft.election_timeout_max_ms,
            f"must be above raft.election_timeout_max_ms ({raft.election_timeout_max_ms})",
        ),
        ("raft.peer_window_bytes", "raft.entry_bytes_max"): (
            raft.peer_window_bytes >= raft.entry_bytes_max,
            f"must be at least raft.entry_bytes_max ({raft.entry_bytes_max})",
        ),
        ("storage.segment_bytes", "raft.entry_bytes_max"): (
            storage.segment_bytes >= 2 * raft.entry_bytes_max,
            f"must be at least 2 x raft.entry_bytes_max ({2 * raft.entry_bytes_max})",
        ),
    }
    for keys, (holds, reason) in bounds.items():
        if not holds:
            yield Problem(keys, reason)


def _limits(config: Config) -> Iterator[Problem]:
    limits, raft = config.limits, config.raft
    if raft.entry_bytes_max > ENTRY_BYTES_MAX:
        reason = f"must not be above {ENTRY_BYTES_MAX}: an entry has room for 2^20 message ids"
        yield Problem(("raft.entry_bytes_max",), reason)
    for name, value in msgspec.structs.asdict(limits).items():
        if value < 1:
            yield Problem((f"limits.{name}",), "must be at least 1")
    if limits.body_bytes_max > limits.request_bytes_max:
        reason = f"must not be above limits.request_bytes_max ({limits.request_bytes_max})"
        yield Problem(("limits.body_bytes_max", "limits.request_bytes_max"), reason)
    # A request becomes part of one entry, which holds more than the bodies alone.
    if 2 * limits.request_bytes_max > raft.entry_bytes_max:
        reason = f"must not be above half of raft.entry_bytes_max ({raft.entry_bytes_max // 2})"
        yield Problem(("limits.request_bytes_max", "raft.entry_bytes_max"), reason)
    for key in ("pending_bytes_max", "bodies_bytes_max"):
        if getattr(config.api, key) < 2 * limits.request_bytes_max:
            least = f"2 x limits.request_bytes_max ({2 * limits.request_bytes_max})"
            reason = f"must be at least {least}"
            yield Problem((f"api.{key}", "limits.request_bytes_max"), reason)


def _origins(config: Config) -> Iterator[Problem]:
    for origin in config.api.cors_origins:
        try:
            parts = urlsplit(origin)
            good = parts.scheme in ("http", "https") and bool(parts.hostname)
            good = good and origin == f"{parts.scheme}://{parts.netloc}" and "@" not in origin
        except ValueError:
            good = False
        if not good:
            reason = f'"{origin}" is not an origin: write it as https://host or https://host:port'
            yield Problem(("api.cors_origins",), reason)


def _fairness(config: Config) -> Iterator[Problem]:
    fairness = config.fairness
    common = {name: getattr(fairness, name) for name in AccountLimits.__struct_fields__}
    every = [("fairness", common)]
    every += [
        (f"fairness.accounts.{name}", common | own) for name, own in fairness.accounts.items()
    ]
    for where, limits in every:
        for what in ("requests", "bytes"):
            if limits[f"{what}_burst"] and not limits[f"{what}_per_s"]:
                key = where.partition(".")[0] + (".accounts" if "." in where else f".{what}_burst")
                reason = f"{where}: {what}_burst means nothing without {what}_per_s"
                yield Problem((key, f"fairness.{what}_per_s"), reason)


def _webhooks(config: Config) -> Iterator[Problem]:
    webhooks = config.webhooks
    for text in webhooks.allow:
        try:
            targets.network(text)
        except ValueError as error:
            yield Problem(("webhooks.allow",), f"{error}; write networks as 10.0.0.0/8")
    if any(not 0 < port < 65_536 for port in webhooks.ports):
        yield Problem(("webhooks.ports",), "ports are from 1 to 65535")
    if webhooks.requests_max < 1:
        yield Problem(("webhooks.requests_max",), "must be at least 1")


def _auth(config: Config) -> Iterator[Problem]:
    auth = config.auth
    for name in ("hash_secret", "bootstrap_key"):
        if getattr(auth, name) and getattr(auth, f"{name}_file"):
            reason = f"give {name} or {name}_file"
            yield Problem((f"auth.{name}", f"auth.{name}_file"), reason)
    if auth.hash_secret and len(auth.hash_secret.encode()) < SECRET_BYTES_MIN:
        yield Problem(("auth.hash_secret",), f"shorter than {SECRET_BYTES_MIN} bytes")
    yield from bootstrap_key(auth, "auth.bootstrap_key")
    listen = config.node.api_listen
    if not (auth.required or auth.anonymous_anywhere or _is_loopback(listen)):
        reason = (
            f"is off, and node.api_listen ({listen}) is not on the loopback interface: everybody "
            "who can reach it may do everything; auth.anonymous_anywhere allows that"
        )
        yield Problem(("auth.required", "auth.anonymous_anywhere", "node.api_listen"), reason)


def _oidc(config: Config) -> Iterator[Problem]:
    oidc = config.oidc
    if not oidc.issuer:
        return
    if not config.auth.required:
        yield Problem(("oidc.issuer", "auth.required"), "nobody is asked for a token")
    for name in ("issuer", "jwks_url"):
        url = urlsplit(getattr(oidc, name))
        if url.geturl() and url.scheme != "https" and not _is_loopback(url.netloc):
            yield Problem((f"oidc.{name}",), "must be an https URL: keys come from there")
    if not oidc.audience:
        yield Problem(("oidc.audience", "oidc.issuer"), "needed: tokens for others are not for us")


def bootstrap_key(auth: AuthConfig, key: str) -> Iterator[Problem]:
    """Whether the operator's key is one, wherever it came from."""
    if auth.bootstrap_key and tokens.id_of(auth.bootstrap_key) is None:
        yield Problem((key,), "is no key; to make one: raftq key generate")


def _is_loopback(listen: str) -> bool:
    try:
        host, _ = split_address(listen)
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False  # A name, of which nobody knows here what it means.


def _encryption(config: Config) -> Iterator[Problem]:
    given = config.encryption
    if given.keys and given.key_file:
        yield Problem(("encryption.keys", "encryption.key_file"), "give keys or key_file")
    yield from master_keys(given, "encryption.keys")


def _audit(config: Config) -> Iterator[Problem]:
    for name, value in msgspec.structs.asdict(config.audit).items():
        if value < 1:
            yield Problem((f"audit.{name}",), "must be at least 1")


def master_keys(given: EncryptionConfig, key: str) -> Iterator[Problem]:
    """Whether the master keys are such, wherever they came from."""
    try:
        masters.parsed(given.keys)
    except ValueError as error:
        yield Problem((key,), str(error))


def _tls(config: Config) -> Iterator[Problem]:
    """What belongs together is there together."""
    tls = config.tls
    for needed, wanting in (
        (("api_cert_file", "api_key_file"), ("api_client_ca_file",)),
        (("peer_cert_file", "peer_key_file", "peer_ca_file"), ()),
    ):
        given = [key for key in (*needed, *wanting) if getattr(tls, key)]
        for key in needed:
            if given and not getattr(tls, key):
                yield Problem((f"tls.{key}", *_keys(given)), f"is missing beside tls.{given[0]}")
    urls = {"node.api_url": config.node.api_url}
    for position, member in enumerate(config.cluster.members):
        if member.name == config.node.name:
            urls[f"cluster.members[{position}].api_url"] = member.api_url
    for key, url in urls.items():
        if tls.api_cert_file and url.startswith("http://"):
            reason = f'"{url}", but tls.api_cert_file makes it https://'
            yield Problem((key, "cluster.members", "tls.api_cert_file"), reason)


def _in_the_clear(config: Config) -> Iterator[Problem]:
    """Whatever leaves the machine is encrypted, or somebody has said that it need not be."""
    node, tls = config.node, config.tls
    if not tls.api_cert_file and not tls.plain_http_anywhere and _is_exposed(node.api_listen):
        reason = (
            f'"{node.api_listen}" is not on loopback, and all may read what is in the clear: set '
            "tls.api_cert_file and tls.api_key_file, or tls.plain_http_anywhere = true"
        )
        yield Problem(("node.api_listen", "tls.api_cert_file"), reason)
    if tls.peer_cert_file or tls.plain_peers_anywhere:
        return
    listed = enumerate(config.cluster.members)
    addresses = {f"cluster.members[{position}].peer": member.peer for position, member in listed}
    for key, address in {"node.peer_listen": node.peer_listen, **addresses}.items():
        if _is_exposed(address):
            reason = (
                f'"{address}" is not on loopback, and all may read what is in the clear: set '
                "tls.peer_cert_file, tls.peer_key_file and tls.peer_ca_file, or "
                "tls.plain_peers_anywhere = true"
            )
            yield Problem((key, "cluster.members", "tls.peer_cert_file"), reason)
            return


def _is_exposed(address: str) -> bool:
    try:
        split_address(address)
    except ValueError:
        return False  # It has a problem of its own.
    return not _is_loopback(address)


def _keys(names: list[str]) -> tuple[str, ...]:
    return tuple(f"tls.{name}" for name in names)


def _address(key: str, text: str) -> Iterator[Problem]:
    try:
        split_address(text)
    except ValueError as error:
        yield Problem((key,), str(error))


def _url(key: str, text: str) -> Iterator[Problem]:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or text.endswith("/"):
        yield Problem(
            (key,), f'"{text}" is not "http://host:port" (https too, no slash at the end)'
        )
