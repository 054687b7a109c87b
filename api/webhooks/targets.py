"""Where messages may be posted: a URL is checked when it is given, an address at each connection.

Whoever may set a subscription could otherwise reach whatever this node can reach: its own
ports, its neighbours, the metadata service of a cloud. So only public unicast addresses are
connected to, unless ``webhooks.allow`` names others, and it is the address that was checked
which is connected to: a name that is resolved twice may mean two things.
"""

from __future__ import annotations

import re
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NamedTuple
from urllib.parse import urlsplit

from api.ports import WebhookPolicy

URL_LENGTH_MAX = 2_048
PORTS = {"http": 80, "https": 443}
FREE_PORTS_FROM = 1_024  # Below are the services of systems, none of which is a webhook.

Address = IPv4Address | IPv6Address

# Written out, since what the standard library takes for private differs between its versions.
_NOT_PUBLIC_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # This network, "any" among it.
        "10.0.0.0/8",
        "100.64.0.0/10",  # Behind a carrier's address translation.
        "127.0.0.0/8",
        "169.254.0.0/16",  # Link-local, metadata services among it.
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")  # All other IPv6 is local, multicast or not given out.
_NOT_PUBLIC_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # Protocol assignments; Teredo among them, which carries IPv4.
        "2001:db8::/32",
        "2002::/16",  # 6to4, which carries IPv4.
        "3fff::/20",
    )
)
_TRANSLATED = IPv6Network("64:ff9b::/96")  # NAT64: the last four bytes are an IPv4 address.
_HOST = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")


class Forbidden(Exception):
    """The URL or the address may not be used; the message says why."""


class Target(NamedTuple):
    """A URL, taken apart."""

    tls: bool
    host: str  # A name, or an address without brackets.
    port: int
    path: str  # With the query.

    @property
    def authority(self) -> str:
        """The value of ``Host``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = PORTS["https" if self.tls else "http"]
        return host if self.port == usual else f"{host}:{self.port}"


class Rules:
    """A policy, ready to be asked."""

    def __init__(self, policy: WebhookPolicy) -> None:
        self._http = policy.http
        self._ports = frozenset((*PORTS.values(), *policy.ports))
        self._allowed = tuple(ip_network(text) for text in policy.allow)

    def target(self, url: str) -> Target:
        """The URL taken apart; Forbidden if nothing may be posted there."""
        if len(url) > URL_LENGTH_MAX:
            raise Forbidden(f"a URL may have at most {URL_LENGTH_MAX} characters")
        if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
            raise Forbidden("a URL is printable ASCII: encode what is not")
        try:
            parts = urlsplit(url)
            port, host = parts.port, parts.hostname
        except ValueError as error:
            raise Forbidden(f"not a URL: {error}") from None
        if parts.scheme not in PORTS:
            raise Forbidden("a URL begins with https://")
        if parts.scheme == "http" and not self._http:
            raise Forbidden("http is not allowed here, only https (webhooks.http)")
        if "@" in parts.netloc:
            raise Forbidden("a URL must not name a user: put credentials into headers")
        if parts.fragment or url.endswith("#"):
            raise Forbidden("a URL that is posted to has no fragment")
        if not host:
            raise Forbidden("the URL names no host")
        self._check_host(host)
        port = PORTS[parts.scheme] if port is None else port
        if port not in self._ports and port < FREE_PORTS_FROM:
            raise Forbidden(f"port {port} is not allowed (webhooks.ports)")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Target(parts.scheme == "https", host, port, path)

    def address(self, text: str) -> Address:
        """What to connect to for an address that a name has; Forbidden if it is not to be."""
        try:
            address = _plain(ip_address(text))
        except ValueError:
            raise Forbidden(f"{text!r} is not an address") from None
        if any(address in network for network in self._allowed):
            return address
        if not _is_public(address):
            raise Forbidden(f"address {address} is not public (webhooks.allow)")
        return address

    def _check_host(self, host: str) -> None:
        try:
            ip_address(host)
        except ValueError:
            if not _HOST.fullmatch(host):
                raise Forbidden(f"{host[:64]!r} is not the name of a host") from None
        else:
            self.address(host)


def network(text: str) -> IPv4Network | IPv6Network:
    """One entry of ``webhooks.allow``; ValueError says what is wrong."""
    return ip_network(text)


def _plain(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one that only carries it."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.scope_id is not None:
            raise ValueError("an address with a scope is link-local")
    return address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_V4)
    if address in _TRANSLATED:
        return _is_public(IPv4Address(address.packed[-4:]))
    return address in _GLOBAL_V6 and not any(address in network for network in _NOT_PUBLIC_V6)
