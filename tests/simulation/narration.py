"""A trace as rows that can be read: what happened, to whom, and who was what meanwhile."""

from __future__ import annotations

import ast
import enum
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from simulation.frames import Told, Topic, short, told
from simulation.trace import Record

TEXT_MAX = 600
_MEMBER = re.compile(r"[^/\s]+/[0-9a-f]{16}")


class Kind(enum.StrEnum):
    """What a row tells of; the values are the classes of the style sheet."""

    START = "start"
    CRASH = "crash"
    POWER = "power"
    FAILED = "failed"
    PAUSE = "pause"
    RESUME = "resume"
    WIPE = "wipe"
    ROT = "rot"
    FAULT = "fault"
    OVER = "over"  # A fault's time has passed.
    LEADER = "leader"  # A node knows of another leader than before.
    VIOLATION = "violation"
    NOTE = "note"
    ELECTION = "election"
    REPLICATION = "replication"
    PROPOSAL = "proposal"
    SNAPSHOT = "snapshot"
    GREETING = "greeting"
    ANSWER = "answer"
    LOG = "log"
    QUIET = "quiet"  # Heartbeats, gossip, and replies that repeat the last one.


class Role(enum.StrEnum):
    """What a node is at some moment."""

    DOWN = "down"
    JOINING = "joining"
    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    LEADER = "leader"
    PAUSED = "paused"


LASTING = {
    "cut": "frames from {node} to {other} vanish",
    "cut both": "frames between {node} and {other} vanish",
    "deaf": "nothing reaches {node}",
    "mute": "nothing of {node} gets out",
    "isolate": "{node} is cut off",
    "split": "{node} and perhaps others are cut off from the rest",
    "slow link": "frames from {node} to {other} are slow",
    "slow node": "frames from and to {node} are slow",
    "ghosts": "frames arrive late and twice, everywhere",
    "slow disk": "the disk of {node} is slow",
    "hung disk": "background work on the disk of {node} hangs",
    "full disk": "the disk of {node} is full",
}
"""Faults that hold until their time is over."""

PASSING = {
    "reset": "the connection of {node} and {other} breaks",
    "kill": "{node} is killed, and started after {seconds} s",
    "long death": "{node} is killed, and started after {seconds} s",
    "power": "{node} loses power, and is started after {seconds} s",
    "kill all": "every node is killed, each started within {seconds} s",
    "power all": "every node loses power, each is started within {seconds} s",
    "power most": "a majority loses power, each is started within {seconds} s",
    "power at": "power of {node} will fail at one of the next changes to its disk",
    "pause": "{node} stands still for {seconds} s",
    "failing disk": "one of the next changes to the disk of {node} will fail",
    "wall step": "the wall clock of {node} jumps",
    "rot": "a bit of {node}'s disk flips, while it is down for {seconds} s",
    "wipe": "{node} loses its disk, and is started after {seconds} s",
    "transfer": "{node} is asked to hand leadership over",
    "stop": "{node} is asked to stop, and started after {seconds} s",
    "strand": "nobody hears {node} for a while, then whoever leads",
    "storm": "{node} dies and all others stand at once, while frames come late and twice",
    "spoil install": "{node} is down for {seconds} s; power will fail while a snapshot comes in",
}


class Struck(NamedTuple):
    """A fault that has struck."""

    kind: str
    node: str
    other: str
    seconds: float

    @property
    def lasts(self) -> bool:
        """Whether it holds for its time, with nothing else in the trace that shows its end."""
        return self.kind in LASTING and self.seconds > 0

    def words(self) -> str:
        """What it does."""
        until = f" for {self.seconds:g} s" if self.lasts else ""
        return f"fault, {self.kind}: {self.effect()}{until}"

    def effect(self) -> str:
        """What it does, without for how long."""
        pattern = LASTING.get(self.kind) or PASSING.get(self.kind) or "on {node}, {other}"
        other = "another node" if self.other in ("", self.node) else self.other
        return pattern.format(node=self.node, other=other, seconds=f"{self.seconds:g}")


class Row(NamedTuple):
    """One thing that happened. ``peer`` is empty unless a frame came to it from ``node``."""

    at: float
    kind: Kind
    node: str
    peer: str
    text: str
    sent_at: float
    role: Role | None = None  # That the node now has, or had when it sent the frame.
    term: int = 0  # 0: not said.
    fault: Struck | None = None


class Turn(NamedTuple):
    """From this row on, a node is something else."""

    row: int
    role: Role
    term: int


_SAID = {
    "start": (Kind.START, "started", Role.FOLLOWER),
    "pause": (Kind.PAUSE, "paused: its process stands still", Role.PAUSED),
    "resume": (Kind.RESUME, "resumed", None),
    "wipe": (Kind.WIPE, "lost its disk, gets an empty one", None),
}
_TOPICS = {
    Topic.ELECTION: Kind.ELECTION,
    Topic.REPLICATION: Kind.REPLICATION,
    Topic.PROPOSAL: Kind.PROPOSAL,
    Topic.SNAPSHOT: Kind.SNAPSHOT,
    Topic.GREETING: Kind.GREETING,
    Topic.BEAT: Kind.QUIET,
    Topic.GOSSIP: Kind.QUIET,
    Topic.RUBBISH: Kind.NOTE,
}


def narrate(records: Iterable[Record]) -> Iterator[Row]:
    """A row for each record."""
    last_said: dict[tuple[str, str], bytes] = {}
    for record in records:
        if record.kind != "frame":
            yield _note(record)
            continue
        frame = told(record.frame)
        kind = _TOPICS[frame.topic]
        if frame.topic is Topic.REPLICATION:
            link = (record.node, record.peer)
            if last_said.get(link) == record.frame:
                kind = Kind.QUIET
            last_said[link] = record.frame
        yield _frame(record, kind, frame)


def _frame(record: Record, kind: Kind, frame: Told) -> Row:
    text, role = plain(frame.text), _role(frame.role)
    return Row(record.at, kind, record.node, record.peer, text, record.sent_at, role, frame.term)


def _role(said: object) -> Role | None:
    return Role(str(said)) if said in list(Role) else None


def _note(record: Record) -> Row:
    if record.kind in _SAID:
        kind, text, role = _SAID[record.kind]
        return _row(record, kind, text, role)
    match record.kind:
        case "crash" if record.text == "power":
            return _row(
                record, Kind.POWER, "lost power: what was not synced may be gone", Role.DOWN
            )
        case "crash":
            return _row(record, Kind.CRASH, "its process ended", Role.DOWN)
        case "failed":
            return _row(record, Kind.FAILED, f"stopped itself: {record.text}", Role.DOWN)
        case "rot":
            return _row(record, Kind.ROT, f"rot in {record.text}")
        case "fault" if (fault := _struck(record)) is not None:
            return _row(record, Kind.FAULT, fault.words())._replace(fault=fault)
        case "log":
            return _log(record)
        case "answer":
            number, _, answer = record.text.partition(" ")
            return _row(record, Kind.ANSWER, f"request {number} was answered: {answer}")
        case "violation":
            return _row(record, Kind.VIOLATION, f"VIOLATION: {record.text}")
        case _:
            return _row(record, Kind.NOTE, f"{record.kind} {record.text}".rstrip())


def _row(record: Record, kind: Kind, text: str, role: Role | None = None, term: int = 0) -> Row:
    return Row(record.at, kind, record.node, "", plain(text), record.at, role, term)


def plain(text: str) -> str:
    """On one line, with nothing that a terminal would obey, and with an end."""
    cut = len(text) - TEXT_MAX
    if cut > 0:
        text = f"{text[:TEXT_MAX]}... ({cut} characters more)"
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


# What nodes log.


def _log(record: Record) -> Row:
    event, fields = _fields_of(record.text)
    term = fields.get("term")
    number = term if isinstance(term, int) else 0
    match event:
        case "leader changed":
            return _row(record, Kind.LEADER, _leader(fields), _role(fields.get("role")), number)
        case "replica started":
            role = Role.FOLLOWER if fields.get("members") else Role.JOINING
            return _row(record, Kind.LOG, _logged(event, fields), role, number)
        case "cluster founded":
            return _row(record, Kind.LOG, _logged(event, fields), Role.FOLLOWER)
        case _:
            return _row(record, Kind.LOG, _logged(event, fields))


def _fields_of(text: str) -> tuple[str, dict[str, object]]:
    """Event and fields; what does not read as a dictionary stays part of the event."""
    event, brace, rest = text.partition(" {")
    if not brace:
        return text, {}
    try:
        return event, ast.literal_eval(f"{{{rest}")
    except (ValueError, SyntaxError):
        return text, {}


def _leader(fields: dict[str, object]) -> str:
    leader, term = fields.get("leader"), fields.get("term")
    if fields.get("role") == "leader":
        return f"leads term {term}"
    if leader is None:
        return f"knows no leader in term {term}, is {fields.get('role')}"
    return f"follows {short(str(leader))} in term {term}"


def _logged(event: str, fields: dict[str, object]) -> str:
    said = ", ".join(f"{key} {_value(value)}" for key, value in fields.items())
    return f"log: {event}{': ' if said else ''}{said}"


def _value(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(one) for one in value)}]"
    text = str(value)
    return short(text) if _MEMBER.fullmatch(text) else text


def _struck(record: Record) -> Struck | None:
    """The fault that a record is about: its text is kind, other node, seconds and amount."""
    words = record.text.rsplit(" ", 3)
    if record.kind != "fault" or len(words) < 4:
        return None
    kind, other, seconds, _ = words
    return Struck(kind, record.node, other, float(seconds))


# Who was what.


def turns(rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[Turn]]:
    """For each node, when it became what; a frame shows what its sender was when it sent it."""
    times = [row.at for row in rows]
    shown = []
    for number, row in enumerate(rows):
        if row.peer and row.role is not None:
            shown.append((bisect_left(times, row.sent_at), 0, number, row))
        elif row.role is not None or row.kind is Kind.RESUME:
            shown.append((number, 1, number, row))
    shown.sort(key=lambda one: one[:3])
    result = {name: [Turn(0, Role.DOWN, 0)] for name in names}
    awake: dict[str, Role] = {}
    for at, _, _, row in shown:
        if row.node in result:
            _turn(result[row.node], awake, at, row)
    return result


def _turn(known: list[Turn], awake: dict[str, Role], at: int, row: Row) -> None:
    """``awake`` remembers what a node was before it was paused."""
    last = known[-1]
    if row.peer and (last.role in (Role.DOWN, Role.PAUSED) or row.term < last.term):
        return  # Sent in an earlier life, or known better since.
    role, term = row.role, row.term or last.term
    if row.kind is Kind.PAUSE:
        awake[row.node] = last.role
    elif row.kind is Kind.RESUME:
        role = awake.pop(row.node)
    assert role is not None
    if (role, term) != (last.role, last.term):
        known.append(Turn(at, role, term))
