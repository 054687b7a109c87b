"""The other nodes on the network: greeting them, decoding what they say, telling them how we are.

Rubbish costs a peer its connection, no more. What a stranger or the member of another
cluster says never gets past this module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from raftq import snapshots
from raftq.config import Config
from raftq.consensus.messages import RaftMessage
from raftq.replica import wire
from raftq.replica.identity import member_id
from raftq.replica.membership import MembershipFile, decode_membership
from raftq.replica.meter import Log
from raftq.replica.peers import Peer, Peers
from raftq.replica.wire import GROUP, Frame
from raftq.snapshots import Manifest
from raftq.transport.network import Network
from statemachine import commands
from statemachine.commands import Batch


class UnknownCommand(Exception):
    """A batch that this version cannot read."""


class Inside(Protocol):
    """The node behind the links."""

    def raft_received(self, member: str, message: RaftMessage) -> None:
        """A message of the consensus, from a node of this cluster or for a newcomer."""
        ...

    def batch_received(
        self, peer: str, batch: Batch, encoded: bytes, *, tell: bool, requests: int
    ) -> None:
        """A batch for the leader's log; ``tell`` the peer when it is taken."""
        ...

    def batch_accepted(self, session: int, seq: int) -> None:
        """The leader has taken a batch of this node's."""
        ...

    def snapshot_offered(self, peer: str, member: str, term: int, manifest: Manifest) -> None:
        """A node that says it leads has a snapshot for this one."""
        ...

    def chunk_wanted(self, peer: str, fetch: wire.SnapshotFetch) -> None:
        """A node fetches the snapshot that was offered to it."""
        ...

    def chunk_received(self, peer: str, chunk: wire.SnapshotChunk) -> None:
        """A piece of the snapshot that this node fetches."""
        ...

    def linked(self, member: str, *, connected: bool) -> None:
        """A member can be reached, or no longer."""
        ...

    def founded(self, members: tuple[str, ...]) -> None:
        """This node, which belonged to no cluster, is one of these members from now on."""
        ...


class Links:
    """One node's connections, as far as the node understands them (``network.Handler``)."""

    def __init__(
        self,
        inside: Inside,
        config: Config,
        *,
        network: Network,
        identity: str,
        membership: MembershipFile,
        log: Log,
        monotonic: Callable[[], float],
        bootstrap: bool,
    ) -> None:
        self._inside, self._config, self._network = inside, config, network
        self._identity, self._membership, self._log = identity, membership, log
        self._monotonic, self._bootstrap = monotonic, bootstrap
        own = config.node.name
        self.peers = Peers(m.name for m in config.cluster.members if m.name != own)
        self._self_id = member_id(own, identity)
        self._fingerprint = config.fingerprint()

    def start(self) -> None:
        """Open the network; raises OSError."""
        self._network.start(self)
        self._found_if_possible()

    def send(self, peer: str, frame: Frame) -> bool:
        """Send, or drop and answer False."""
        return self._network.send(peer, wire.encode(frame))

    def flush(self) -> None:
        """See ``Network``."""
        self._network.flush()

    def tell(self, role: str, term: int, applied_index: int, sync_s: float) -> None:
        """Gossip to everybody."""
        now_us = self._now_us()
        state = wire.State(GROUP, role, term, applied_index, round(sync_s * 1e6), now_us)
        for peer in self.peers.by_name.values():
            if peer.hello is not None:
                self.send(peer.name, peer.is_told(state, now_us))

    def greet_all(self) -> None:
        """Say again who we are: it has changed."""
        for peer in self.peers.by_name.values():
            if peer.hello is not None:
                self._greet(peer.name)

    # ``transport.network.Handler``.

    def connected(self, peer: str) -> None:
        """See ``network.Handler``."""
        self._greet(peer)

    def disconnected(self, peer: str) -> None:
        """See ``network.Handler``."""
        known = self.peers.by_name.get(peer)
        if known is not None and known.member is not None:
            member = known.member
            known.lost()
            self._inside.linked(member, connected=False)

    def received(self, peer: str, frame: bytes) -> None:
        """See ``network.Handler``."""
        known = self.peers.by_name.get(peer)
        try:
            decoded = wire.decode(frame)
            if known is None or (known.hello is None and not isinstance(decoded, wire.Hello)):
                raise msgspec.ValidationError("no hello")
            if decoded.group != GROUP:
                raise msgspec.ValidationError(f"group {decoded.group} is unknown")
            pass_on = self._understand(known, decoded)
        except UnknownCommand as error:
            # Of a later version, perhaps; what else it says is as good as before.
            self._log.warning("dropped a batch", peer=peer, error=str(error))
            return
        except (msgspec.MsgspecError, snapshots.Damaged) as error:
            self._log.warning("dropped a peer that sent rubbish", peer=peer, error=str(error))
            self._network.disconnect(peer)
            return
        if isinstance(decoded, wire.Hello) or self._is_ours(known):
            pass_on()

    def _understand(self, peer: Peer, frame: Frame) -> Callable[[], None]:
        """What a frame asks for, decoded to the end; nothing has happened yet."""
        inside, name = self._inside, peer.name
        match frame:
            case wire.Raft():
                member = peer.member or ""
                return lambda: inside.raft_received(member, frame.message)
            case wire.Propose():
                batch = _decode_batch(frame.batch)
                requests = frame.requests or len(batch.commands)
                return lambda: inside.batch_received(
                    name, batch, frame.batch, tell=frame.tell, requests=requests
                )
            case wire.Accepted():
                return lambda: inside.batch_accepted(frame.session, frame.seq)
            case wire.Hello():
                return lambda: self._on_hello(peer, frame)
            case wire.State():
                return lambda: self._on_state(peer, frame)
            case wire.SnapshotOffer():
                manifest, member = snapshots.decode(frame.manifest), peer.member or ""
                decode_membership(manifest.extra)
                return lambda: inside.snapshot_offered(name, member, frame.term, manifest)
            case wire.SnapshotFetch():
                return lambda: inside.chunk_wanted(name, frame)
            case wire.SnapshotChunk():
                return lambda: inside.chunk_received(name, frame)

    def _on_state(self, peer: Peer, state: wire.State) -> None:
        peer.hears(state, self._now_us())

    def _now_us(self) -> int:
        return round(self._monotonic() * 1e6)

    def _is_ours(self, peer: Peer) -> bool:
        """A newcomer has no cluster yet; nobody listens to another cluster's members."""
        own = self._membership.cluster_id
        return not own or (peer.hello is not None and peer.hello.cluster_id in ("", own))

    def _greet(self, peer: str) -> None:
        current = self._membership.current
        hello = wire.Hello(
            group=GROUP,
            identity=self._identity,
            cluster_id=self._membership.cluster_id,
            members=() if current is None else current.members,
            zone=self._config.node.zone,
            api_url=self._config.node.api_url,
            fingerprint=self._fingerprint,
        )
        self.send(peer, hello)

    def _on_hello(self, peer: Peer, hello: wire.Hello) -> None:
        if peer.hello is None:
            self._warn(peer, hello)
        if peer.member is not None and hello.identity != self._identity_of(peer):
            self._inside.linked(peer.member, connected=False)
        peer.hello = hello
        assert peer.member is not None
        self._inside.linked(peer.member, connected=True)
        self._found_if_possible()

    def _warn(self, peer: Peer, hello: wire.Hello) -> None:
        if hello.fingerprint != self._fingerprint:
            self._log.warning("configuration differs from a peer's", peer=peer.name)
        own = self._membership.cluster_id
        if own and hello.cluster_id not in ("", own):
            self._log.warning("peer is of another cluster", peer=peer.name, id=hello.cluster_id)

    def _identity_of(self, peer: Peer) -> str | None:
        return None if peer.hello is None else peer.hello.identity

    def _found_if_possible(self) -> None:
        if self._membership.current is not None:
            return
        founding = self.peers.founding(self._self_id, alone=self._bootstrap)
        if founding is not None:
            self._inside.founded(founding.members)
            self.greet_all()


def _decode_batch(data: bytes) -> Batch:
    try:
        return commands.decode_batch(data)
    except msgspec.MsgspecError as error:
        raise UnknownCommand(str(error)) from error
