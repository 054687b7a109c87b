"""Who this node is: one small file in its data directory.

A node that has forgotten must not vote under its old name (an empty directory has lost
votes and entries it had acknowledged), so the member that takes part in the consensus
is ``name/identity``, and the identity is drawn when the directory is made.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from raftq.disk import Disk
from raftq.journal import record_file
from raftq.runtime import Runtime

IDENTITY_BYTES = 8


class WrongNode(Exception):
    """The data directory belongs to a node of another name."""


class _Identity(msgspec.Struct, frozen=True, array_like=True):
    node: str
    identity: str


def member_id(node: str, identity: str) -> str:
    """How the consensus names a node."""
    return f"{node}/{identity}"


@lru_cache(maxsize=1_024)  # Members come and go.
def node_of(member: str) -> str:
    """The node's name in a member id."""
    return member.partition("/")[0]


def load_identity(disk: Disk, path: str, node: str, runtime: Runtime) -> str:
    """This directory's identity; drawn and stored at the first start. Raises WrongNode."""
    if (data := record_file.recover(disk, path)) is not None:
        found = msgspec.msgpack.decode(data, type=_Identity)
        if found.node != node:
            raise WrongNode(f"{path} belongs to node {found.node!r}, not to {node!r}")
        return found.identity
    identity = runtime.token(IDENTITY_BYTES).hex()
    record_file.store(disk, path, msgspec.msgpack.encode(_Identity(node, identity)))
    return identity
