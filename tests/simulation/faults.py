"""Faults striking: what a plan's lines do to the world, and how each is over again.

Whatever happens, somebody stands by as an operator would: a process that ended is started
again, and a disk that proved damaged is replaced. A second disk is lost only while a
majority of whole ones is left, since beyond that no replication can help.
"""

from __future__ import annotations

import errno
import math
import random
from collections.abc import Callable

import msgspec

from raftq.journal import Corruption
from raftq.journal.faults import JournalFailure
from raftq.journal.layout import split
from raftq.stores.home import INCOMING
from raftq.stores.store import StoreError
from simulation.network import Delay
from simulation.node import DATA, Node
from simulation.plan import LEADER, Fault
from simulation.world import World

RESTART_S = (0.1, 1.5)


class Faults:
    """The faults of one run."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self._world = world
        self._chance = chance
        self._excuses: dict[str, set[str]] = {name: set() for name in world.names}
        self._damaged: dict[str, None] = {}  # Nodes whose disk does not hold what it held.
        self._over = False
        self._strikes: dict[str, Callable[[Node, Fault], None]] = {
            "cut": self._cut,
            "cut both": self._cut,
            "deaf": self._cut,
            "mute": self._cut,
            "isolate": self._cut,
            "split": self._cut,
            "reset": self._reset,
            "slow link": self._slow_link,
            "slow node": self._slow_link,
            "ghosts": self._ghosts,
            "kill": self._crash,
            "long death": self._crash,
            "power": self._crash,
            "kill all": self._crash_many,
            "power all": self._crash_many,
            "power most": self._crash_many,
            "power at": self._power_at,
            "pause": self._pause,
            "slow disk": self._slow_disk,
            "hung disk": self._slow_disk,
            "full disk": self._full_disk,
            "failing disk": self._failing_disk,
            "wall step": self._wall_step,
            "rot": self._rot,
            "wipe": self._wipe,
            "transfer": self._transfer,
            "stop": self._stop,
            "spoil install": self._spoil_install,
            "strand": self._strand,
            "storm": self._storm,
        }

    def schedule(self, faults: tuple[Fault, ...]) -> None:
        """Let each strike at its time."""
        for fault in faults:
            self._world.at(fault.at_s, lambda fault=fault: self._strike(fault))

    def end(self) -> None:
        """All that is broken is mended, now and for good."""
        world = self._world
        self._over = True
        world.links.cut.clear()
        world.links.delays.clear()
        world.links.ghosts = 0.0
        for node in world.nodes.values():
            node.work_delay_s = 0.0
            node.disk.full = False
            node.disk.fails_after = node.disk.power_fails_after = None
            node.resume()
            if not node.is_up:
                self._start(node)

    # What a node's end means.

    def excused(self, node: Node, error: Exception) -> bool:
        """Whether a node had a reason to stop itself."""
        excuses = self._excuses[node.name]
        disk_fails = "failing" in excuses or any(one.startswith("full") for one in excuses)
        if isinstance(error, OSError):
            return disk_fails and error.errno in (errno.EIO, errno.ENOSPC)
        if isinstance(error, JournalFailure):
            return disk_fails
        return "rot" in excuses and isinstance(error, Corruption | StoreError)

    def failed(self, node: Node, error: Exception) -> None:
        """A node stopped itself, and had a reason: start it again, on another disk if need be."""
        self._world.sometimes(f"a node stopped itself: {type(error).__name__}")
        if isinstance(error, Corruption | StoreError):
            self._world.sometimes("rot was found and named")
            self._world.at(self._soon(), lambda: self._replace_disk(node))
        else:
            self._start_later(node, self._soon())

    def lost_power(self, node: Node) -> None:
        """Power failed by itself, at a change to the disk that was asked for."""
        self._start_later(node, self._soon())

    def rejoined(self, node: Node) -> None:
        """A node is a member and has caught up: its disk is as good as any."""
        if node.name in self._damaged and "rot" not in self._excuses[node.name]:
            del self._damaged[node.name]
            self._world.sometimes("a lost disk was replaced and has caught up")

    def is_damaged(self, node: Node) -> bool:
        """Whether it lost its disk and is not yet back."""
        return node.name in self._damaged

    # Striking.

    def _strike(self, fault: Fault) -> None:
        world = self._world
        if self._over:
            return
        node = world.leader() if fault.node == LEADER else world.nodes[fault.node]
        if node is None:
            node = world.nodes[world.names[0]]
        world.note("fault", node.name, f"{fault.kind} {fault.other} {fault.seconds} {fault.amount}")
        if node.is_up and node.running.consensus.is_leader:
            world.sometimes(f"fault on the leader: {fault.kind}")
        else:
            world.sometimes(f"fault elsewhere: {fault.kind}")
        self._strikes[fault.kind](node, fault)

    def _cut(self, node: Node, fault: Fault) -> None:
        links = self._links_of(node, fault)
        cut = self._world.links.cut
        mine = [link for link in links if link not in cut]
        cut.update(mine)
        self._world.at(fault.seconds, lambda: cut.difference_update(mine))

    def _links_of(self, node: Node, fault: Fault) -> list[tuple[str, str]]:
        name, other = node.name, fault.other
        others = [one for one in self._world.names if one != name]
        if other == name:
            other = others[0]
        match fault.kind:
            case "cut" | "slow link":
                return [(name, other)]
            case "cut both":
                return [(name, other), (other, name)]
            case "deaf":
                return [(one, name) for one in others]
            case "mute":
                return [(name, one) for one in others]
            case "split":
                size = 1 + int(fault.amount * (len(others) - 1))
                half = {name, *others[: size - 1]}
                rest = [one for one in others if one not in half]
                return [link for a in sorted(half) for b in rest for link in ((a, b), (b, a))]
            case _:
                return [link for one in others for link in ((name, one), (one, name))]

    def _reset(self, node: Node, fault: Fault) -> None:
        node.net.reset(fault.other)

    def _slow_link(self, node: Node, fault: Fault) -> None:
        delays = self._world.links.delays
        links = self._links_of(node, fault)
        least_s = fault.amount**2 * 0.4
        for link in links:
            delays[link] = Delay(least_s, least_s)

        def over() -> None:
            for link in links:
                delays.pop(link, None)

        self._world.at(fault.seconds, over)

    def _ghosts(self, node: Node, fault: Fault) -> None:
        self._world.links.ghosts = 0.02 + 0.2 * fault.amount

        def over() -> None:
            self._world.links.ghosts = 0.0

        self._world.at(fault.seconds, over)

    def _crash(self, node: Node, fault: Fault) -> None:
        if node.is_up:
            node.crash(power=fault.kind == "power")
            self._start_later(node, fault.seconds)

    def _crash_many(self, node: Node, fault: Fault) -> None:
        """All of them or a majority at once; each comes back in its own time."""
        nodes = list(self._world.nodes.values())
        if fault.kind == "power most":
            self._chance.shuffle(nodes)
            nodes = nodes[: len(nodes) // 2 + 1]
        for one in nodes:
            if one.is_up:
                one.crash(power=fault.kind != "kill all")
                self._start_later(one, fault.seconds * self._chance.random())

    def _power_at(self, node: Node, fault: Fault) -> None:
        if node.is_up:
            node.disk.power_fails_after = int(fault.amount * 40)

    def _pause(self, node: Node, fault: Fault) -> None:
        life = node.life
        node.pause()

        def over() -> None:
            if node.life == life and node.paused:
                if node.running.consensus.is_leader and self._world.leader() is not node:
                    self._world.sometimes("deposed leader woke up believing in itself")
                node.resume()

        self._world.at(fault.seconds, over)

    def _slow_disk(self, node: Node, fault: Fault) -> None:
        hung = fault.kind == "hung disk"
        node.work_delay_s = fault.seconds if hung else 0.005 + fault.amount * 0.3

        def over() -> None:
            node.work_delay_s = 0.0

        self._world.at(fault.seconds, over)

    def _full_disk(self, node: Node, fault: Fault) -> None:
        disk = node.disk
        disk.full = True
        excuse = f"full at {fault.at_s}"
        self._excuses[node.name].add(excuse)

        def over() -> None:
            self._excuses[node.name].discard(excuse)

        # What failed for want of room may be told of a little later.
        self._world.at(fault.seconds, lambda: setattr(disk, "full", False))
        self._world.at(fault.seconds + 0.5, over)

    def _failing_disk(self, node: Node, fault: Fault) -> None:
        if node.is_up:
            self._excuses[node.name].add("failing")
            node.disk.fails_once = self._chance.random() < 0.5
            node.disk.fails_with = self._chance.choice((errno.EIO, errno.ENOSPC))
            node.disk.fails_on = self._chance.choice(
                (("sync",), ("write",), ("name",), ("write", "sync", "name"))
            )
            node.disk.fails_after = int(fault.amount * 10)

    def _wall_step(self, node: Node, fault: Fault) -> None:
        node.wall_skew_ms += int((fault.amount - 0.5) * 2 * 10 ** self._chance.randint(2, 7))

    def _transfer(self, node: Node, fault: Fault) -> None:
        if node.is_up and not node.paused and node.running.consensus.is_leader:

            def ask() -> None:
                consensus = node.running.consensus
                if consensus.is_leader and consensus.transfer_leadership(consensus.core.others):
                    self._world.sometimes("leadership was handed over on request")

            node.run(node.life, ask)

    def _stop(self, node: Node, fault: Fault) -> None:
        """As SIGTERM does: hand over, finish, exit."""
        if not node.is_up or node.paused:
            return
        replica, life = node.running, node.life

        def stopped() -> None:
            replica.close()
            self._world.sometimes("a node stopped in good order")
            node.crash()
            self._start_later(node, fault.seconds)

        node.run(life, lambda: replica.stop(stopped))

    def _spoil_install(self, node: Node, fault: Fault) -> None:
        """Need a snapshot, for having been dead long or without a disk; power fails on its way."""
        if int(fault.amount * 1_000) % 2:
            self._lose_disk(node)
        if node.is_up:
            node.crash()

        def again() -> None:
            self._start(node)
            path, amount = f"{DATA}/{INCOMING}", fault.amount
            if amount < 0.5:
                node.disk.making_fuses[path] = int(amount * 80)
            else:
                node.disk.rename_fuses[path] = int((amount - 0.5) * 40)

        self._world.at(fault.seconds, again)

    def _strand(self, node: Node, fault: Fault) -> None:
        """A leader goes on writing what nobody hears of; then the next one, for longer."""
        world = self._world
        self._cut(node, msgspec.structs.replace(fault, kind="mute", seconds=fault.seconds / 2))

        def next_one() -> None:
            leader = world.leader()
            if leader is not None and not self._over:
                self._cut(leader, msgspec.structs.replace(fault, kind="mute"))

        world.at(fault.seconds / 2, next_one)

    def _storm(self, node: Node, fault: Fault) -> None:
        """The leader dies and all the others find out, and stand, at nearly the same moment."""
        self._ghosts(node, fault)
        if node.is_up:
            node.crash()
            self._start_later(node, fault.seconds)
        for other in self._world.alive:
            if not other.paused:
                consensus = other.running.consensus
                consensus._heard_leader_at = -math.inf
                consensus.core.stand_at(0.0)
                other.run(other.life, consensus._host.wake)

    # Damage.

    def _may_damage(self, node: Node) -> bool:
        """At most a minority may ever lack what it once had."""
        world = self._world
        if node.name in self._damaged:
            return False
        if len(self._damaged) >= (len(world.names) - 1) // 2:
            return False
        return all(one.is_up or one is node for one in world.nodes.values())

    def _rot(self, node: Node, fault: Fault) -> None:
        if not node.is_up or not self._may_damage(node):
            return
        path = self._rotten_place(node, fault)
        if path is None:
            return
        self._damaged[node.name] = None
        self._excuses[node.name].add("rot")
        name, bit = path
        node.crash()
        node.disk.flip(name, bit)
        self._world.note("rot", node.name, f"{name} bit {bit}")
        self._world.sometimes(f"rot in {_kind_of_file(name)}")
        self._start_later(node, fault.seconds)

    def _rotten_place(self, node: Node, fault: Fault) -> tuple[str, int] | None:
        """A file and a bit; in the journal only where a seal says that it is all there.

        A record that no seal covers yet cannot be told from a torn one: see DESIGN.md.
        """
        disk = node.disk
        journal = node.running.journal
        sequence, sealed_end = split(journal._sealed)
        sizes: dict[str, int] = {}
        for path in disk.files():
            size = len(disk.bytes_of(path))
            if _kind_of_file(path) == "the journal":
                number, _, kind = path.rsplit("/", 1)[1].partition(".")
                if kind != "segment" or int(number, 16) > sequence:
                    continue
                if int(number, 16) == sequence:
                    size = sealed_end
            if size:
                sizes[path] = size
        if not sizes:
            return None
        kinds = sorted({_kind_of_file(path) for path in sizes})
        kind = kinds[int(fault.amount * len(kinds))]
        path = self._chance.choice([path for path in sizes if _kind_of_file(path) == kind])
        return path, self._chance.randrange(sizes[path] * 8)

    def _wipe(self, node: Node, fault: Fault) -> None:
        if self._lose_disk(node):
            self._start_later(node, fault.seconds)

    def _lose_disk(self, node: Node) -> bool:
        if not self._may_damage(node):
            return False
        self._damaged[node.name] = None
        self._world.sometimes("a disk was lost")
        if node.is_up:
            node.crash()
        node.wipe()
        return True

    def _replace_disk(self, node: Node) -> None:
        if node.is_up:
            return
        self._excuses[node.name].discard("rot")
        node.wipe()
        self._start(node)

    # Starting again.

    def _soon(self) -> float:
        low, high = RESTART_S
        return low + self._chance.random() * (high - low)

    def _start_later(self, node: Node, seconds: float) -> None:
        self._world.at(seconds, lambda: self._start(node))

    def _start(self, node: Node) -> None:
        if not node.is_up:
            self._excuses[node.name].discard("failing")
            node.start()


def _kind_of_file(path: str) -> str:
    name = path.removeprefix(f"{DATA}/")
    top = name.split("/")[0]
    if top.startswith("db-"):
        return "the store"
    kinds = {
        "journal": "the journal",
        "term": "the term file",
        "members": "the membership file",
        "identity": "the identity",
        "CURRENT-DB": "the store's pointer",
        "snapshots": "a snapshot",
        "incoming": "an incoming snapshot",
    }
    return kinds.get(top, "another file")
