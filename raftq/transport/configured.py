"""The network that a configuration describes."""

from __future__ import annotations

from collections.abc import Callable

from raftq.config import Config, split_address
from raftq.runtime import Runtime
from raftq.transport.frames import FRAME_BYTES_MAX
from raftq.transport.handshake import Identity
from raftq.transport.listening import Tls
from raftq.transport.network import Address
from raftq.transport.settings import Meter, Settings
from raftq.transport.tcp import Log, TcpNetwork


def network(
    config: Config,
    *,
    runtime: Runtime,
    fatal: Callable[[BaseException], None],
    log: Log,
    meter: Meter,
    tls: Tls | None,
) -> TcpNetwork:
    """It knows its peers, and is neither listening nor started."""
    cluster, raft = config.cluster, config.raft
    built = TcpNetwork(
        runtime=runtime,
        identity=Identity(cluster.name, config.node.name, cluster.secret.encode()),
        listen=Address(*split_address(config.node.peer_listen)),
        fatal=fatal,
        log=log,
        meter=meter,
        tls=tls,
        settings=Settings(
            # Everything in flight to one peer may come to travel in one frame.
            frame_bytes_max=max(
                FRAME_BYTES_MAX, 2 * (raft.entry_bytes_max + raft.peer_window_bytes)
            )
        ),
    )
    built.set_peers({each.name: Address(*split_address(each.peer)) for each in cluster.members})
    return built
