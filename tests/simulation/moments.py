"""Interesting moments of a node, named for ``sometimes``."""

from __future__ import annotations

from simulation.node import Node
from simulation.world import World


def begun(world: World, node: Node) -> None:
    """A life has begun."""
    replica = node.running
    journal = replica.journal
    if journal.recovery is not None:
        world.sometimes("a torn tail was cut at a start")
    if 0 < journal.base_index == journal.last_index == replica.machine.applied_index:
        world.sometimes("journal and store were reconciled at a start")


def interrupted(world: World, node: Node) -> None:
    """A process is about to end."""
    replica = node.running
    consensus, journal, machine = replica.consensus, replica.journal, replica.machine
    if consensus.is_leader and journal.last_index > consensus.commit_index:
        world.sometimes("leader lost with an uncommitted entry")
    if replica.submitter.pending:
        world.sometimes("node lost with requests in flight")
    if journal.durable_index < journal.last_index:
        world.sometimes("node lost with an unsynced entry")
    if node.paused:
        world.sometimes("paused node was killed")
    if replica._fetching.active:
        world.sometimes("a snapshot was interrupted")
        if node.disk.power_fails_after is not None:
            world.sometimes("power failed while a snapshot was coming in")
    if journal.term_at(machine.applied_index) != machine.applied_term:
        world.sometimes("died right after the pointer switch")
    if len(world.alive) == 1:
        world.sometimes("everything was down")


def leads(world: World, node: Node) -> None:
    """A node leads a term."""
    term = node.running.consensus.term
    if any(one is not node and one.running.consensus.is_leader for one in world.alive):
        world.sometimes("leader elected within the life of another")
    if term >= 3:
        world.sometimes("leader of three terms or more")
    if node.life > 1:
        world.sometimes("an election was won by a node that had been down")


def leads_no_more(world: World, node: Node, *, same_term: bool) -> None:
    """A node that led does not any more."""
    replica = node.running
    if same_term:
        world.sometimes("a leader stepped down for want of a majority")
    if replica.journal.last_index > replica.consensus.commit_index:
        world.sometimes("leader deposed with a batch in flight")
