"""What all checks read of a node: while it stays the same, there is nothing new to check."""

from __future__ import annotations

from simulation.node import Node

Part = tuple[object, ...]
Look = tuple[Part, Part, Part]  # The store, the log, and what the consensus believes.

NONE_YET: Look = ((), (), ())


def look_at(node: Node) -> Look:
    """How a node looks now. What is not in here, no check may go by unless it has heard something.

    It is taken after everything that happens, and mostly that is all that is done: so it reads
    what the properties read.
    """
    replica = node.running
    consensus, journal, machine = replica.consensus, replica.journal, replica._applier.machine
    core, entries, active = consensus.core, journal._entries, journal._active
    store = (
        machine,
        machine._state.machine.index,
        replica.snapshots_installed,
        replica._fetching._manifest,
    )
    # Whatever is written, cut or synced changes one of these; it is cut behind a flushed store.
    log = (
        machine,
        entries.base_index,
        entries.last_index,
        entries.last_term,
        journal.durable_index,
        journal._durable,
        journal._in_flight,
        journal._in_flight_index,
        active.sequence,
        active.end,
    )
    beliefs = (
        core._SyncObj__raftState,
        core._SyncObj__raftCurrentTerm,
        core._SyncObj__votedForNodeId,
        core._SyncObj__raftCommitIndex,
        core.others,
        consensus._following,
        consensus._vouched,
        *core._SyncObj__raftMatchIndex.values(),
        *core._SyncObj__raftNextIndex.values(),
    )
    return store, log, beliefs
