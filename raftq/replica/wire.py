"""Every frame that nodes exchange. Tags are permanent; new fields only at the end, with defaults.

Each frame names its Raft group: there is one today, and room for more.
"""

from __future__ import annotations

import msgspec

from raftq.consensus.messages import RaftMessage
from statemachine.decoding import decoded

GROUP = 0


class Hello(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Who speaks on this connection: first on every connection, and again when it changes."""

    group: int
    identity: str  # Lives in the data directory; another one is another member.
    cluster_id: str  # Empty: this node has never been part of a cluster.
    members: tuple[str, ...]  # As last known; only for a newcomer to find itself in.
    zone: str
    api_url: str
    fingerprint: str


class Raft(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """A message of the consensus."""

    group: int
    message: RaftMessage


class Propose(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A batch (``statemachine.commands.Batch``, encoded) for the leader's log."""

    group: int
    batch: bytes
    tell: bool = False  # Answer with ``Accepted`` as soon as it is taken.
    requests: int = 0  # That its commands are of; 0, of an older node: of as many.


class State(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Gossip for the cluster view, about once a second."""

    group: int
    role: str
    term: int
    applied_index: int
    sync_us: int = 0  # What an fsync of its journal takes lately.
    clock_us: int = 0  # The sender's clock now,
    echo_us: int = 0  # the receiver's as it was last told,
    held_us: int = 0  # and how long ago that was: the receiver knows the time to and fro.


class SnapshotOffer(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The leader of ``term`` has a snapshot; ``manifest`` is ``snapshots.Manifest``, encoded."""

    group: int
    term: int
    manifest: bytes


class SnapshotFetch(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Send me the snapshot at ``index`` from there on; one chunk is answered."""

    group: int
    index: int
    file: int
    offset: int


class SnapshotChunk(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """A piece of one file of the snapshot at ``index``."""

    group: int
    index: int
    file: int
    offset: int
    data: bytes


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """The leader has taken a batch; nothing is on any disk yet."""

    group: int
    session: int
    seq: int


Frame = Hello | Raft | Propose | State | SnapshotOffer | SnapshotFetch | SnapshotChunk | Accepted

_decoder = msgspec.msgpack.Decoder(Frame)
_encoder = msgspec.msgpack.Encoder()


def encode(frame: Frame) -> bytes:
    """Bytes for the transport."""
    return _encoder.encode(frame)


def decode(data: bytes) -> Frame:
    """Inverse of ``encode``; raises ``msgspec.MsgspecError`` on rubbish."""
    frame: Frame = decoded(_decoder, data)
    return frame
