"""How a certificate names a node: the URI ``raftq://cluster/node`` among its alternative names.

A URI and no host name: a node's name need not be one, one authority may serve several
clusters, and no certificate that was made for a web server passes for a node's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def node_uri(cluster: str, node: str) -> str:
    """What the certificate of this node has to say; names need no escaping (``config.schema``)."""
    return f"raftq://{cluster}/{node}"


def uris(certificate: Mapping[str, Any]) -> frozenset[str]:
    """The URIs in a verified peer's certificate, as ``SSLObject.getpeercert`` tells it."""
    names = certificate.get("subjectAltName", ())
    return frozenset(name for kind, name in names if kind == "URI")
