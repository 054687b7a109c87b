"""What a frame says, in words."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from raftq import snapshots
from raftq.consensus import messages as m
from raftq.replica import wire
from statemachine import commands as c

SHOWN = 6  # Entries of an append, commands of a batch, messages of a put; the rest is counted.
BODY_BYTES = 12  # What is shown of a message's body.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError)  # What decoding may raise.
IDENTITY_DIGITS = 4  # What is shown of a member's identity.


class Topic(enum.StrEnum):
    """What a frame is about."""

    ELECTION = "election"
    REPLICATION = "replication"
    BEAT = "beat"  # Sent so that something is heard, whatever it says.
    PROPOSAL = "proposal"
    SNAPSHOT = "snapshot"
    GREETING = "greeting"
    GOSSIP = "gossip"
    RUBBISH = "rubbish"


class Told(NamedTuple):
    """A frame in words, and what it gives away about its sender."""

    topic: Topic
    text: str
    role: str = ""
    term: int = 0


def told(data: bytes) -> Told:
    """Say what a frame says; never raises."""
    try:
        return _told(wire.decode(data))
    except UNREADABLE as error:
        return Told(Topic.RUBBISH, f"{len(data)} bytes that are no frame: {error}")


def short(member: str) -> str:
    """A member's name and the first digits of its identity."""
    name, slash, identity = member.partition("/")
    return f"{name}{slash}{identity[:IDENTITY_DIGITS]}"


def _told(frame: wire.Frame) -> Told:
    match frame:
        case wire.Raft(message=message):
            return _log(message) or _election(message)
        case wire.Propose(batch=batch):
            return Told(Topic.PROPOSAL, f"Propose {_encoded_batch(batch)}")
        case wire.Accepted(session=session, seq=seq):
            return Told(Topic.PROPOSAL, f"Accepted session {session} seq {seq}")
        case wire.State(role=role, term=term, applied_index=applied):
            text = f"gossip: {role} in term {term}, applied {applied}"
            return Told(Topic.GOSSIP, text, role, term)
        case wire.Hello():
            return Told(Topic.GREETING, _hello(frame))
        case _:
            return Told(Topic.SNAPSHOT, _snapshot(frame))


def _log(message: m.RaftMessage) -> Told | None:
    """What is said about the log."""
    match message:
        case m.Append(term=term, entries=entries, is_heartbeat=beats):
            after = f"after {message.prev_index} of term {message.prev_term}"
            what = "heartbeat" if beats else "Append"
            text = f"{what} term {term}: {_entries(message)} {after}, commit {message.commit_index}"
            topic = Topic.BEAT if beats and not entries else Topic.REPLICATION
            return Told(topic, text, "leader", term)
        case m.Beat(term=term):
            return Told(Topic.BEAT, f"sign of life, term {term}", "leader", term)
        case m.AppendReply(term=term, next_index=index, success=success):
            text = f"holds up to {index - 1}" if success else "does not match"
            return Told(Topic.REPLICATION, f"Append reply term {term}: {text}, wants {index}")
        case _:
            return None


def _election(message: m.RaftMessage) -> Told:
    match message:
        case m.VoteRequest(term=term, transfer=transfer):
            why = ", the leader asked for it" if transfer else ""
            text = f"Vote for me in term {term}? {_last(message)}{why}"
            return Told(Topic.ELECTION, text, "candidate", term)
        case m.VoteReply(term=term, granted=granted):
            return Told(Topic.ELECTION, f"Vote {_granted(granted)} in term {term}")
        case m.PreVoteRequest(term=term):
            text = f"Pre-vote: would you vote for me in term {term}? {_last(message)}"
            return Told(Topic.ELECTION, text)
        case m.PreVoteReply(asked_term=asked, term=term, granted=granted):
            text = f"Pre-vote {_granted(granted)} for term {asked}, is in term {term}"
            return Told(Topic.ELECTION, text)
        case m.TimeoutNow(term=term):
            return Told(Topic.ELECTION, f"Stand for election now, term {term}", "leader", term)
        case _:
            raise AssertionError(message)


def _last(message: m.VoteRequest | m.PreVoteRequest) -> str:
    return f"my log ends at {message.last_index} of term {message.last_term}"


def _granted(granted: bool) -> str:
    return "granted" if granted else "refused"


def _hello(hello: wire.Hello) -> str:
    cluster = f"cluster {hello.cluster_id[:8]}" if hello.cluster_id else "no cluster yet"
    members = ", ".join(short(member) for member in hello.members) or "none known"
    identity = hello.identity[:IDENTITY_DIGITS]
    return f"Hello from {identity} in {hello.zone}: {cluster}, members {members}"


def _snapshot(frame: wire.SnapshotOffer | wire.SnapshotFetch | wire.SnapshotChunk) -> str:
    match frame:
        case wire.SnapshotOffer(term=term, manifest=encoded):
            try:
                manifest = snapshots.decode(encoded)
            except (snapshots.Damaged, *UNREADABLE) as error:
                return f"Snapshot offer term {term}: unreadable, {error}"
            return (
                f"Snapshot offer term {term}: up to {manifest.index} of term {manifest.term}, "
                f"{_count(len(manifest.files), 'file')}, {manifest.total_bytes} bytes"
            )
        case wire.SnapshotFetch(index=index, file=file, offset=offset):
            return f"Snapshot fetch {index}: file {file} from {offset}"
        case wire.SnapshotChunk(index=index, file=file, offset=offset, data=data):
            return f"Snapshot chunk {index}: file {file} from {offset}, {len(data)} bytes"


# Entries, batches and commands.


def _entries(message: m.Append) -> str:
    first, count = message.prev_index + 1, len(message.entries)
    if not count:
        return "no entries"
    numbers = str(first) if count == 1 else f"{first}-{first + count - 1}"
    return f"{numbers} {_some([_entry(term, payload) for term, payload in message.entries])}"


def _entry(term: int, payload: bytes) -> str:
    return f"[term {term}: {_payload(payload)}]"


def _payload(payload: bytes) -> str:
    kind = payload[0] if payload else None
    try:
        if kind == m.Kind.NO_OP:
            return "no-op"
        if kind == m.Kind.MEMBERSHIP:
            change = m.membership_change(payload)
            assert change is not None
            return f"member {short(change.member)} {'added' if change.add else 'removed'}"
        if kind == m.Kind.REGULAR:
            entry = c.decode_entry(memoryview(payload)[1:])
            return _some([_batch(batch) for batch in entry.batches]) or "no batch"
    except UNREADABLE:
        pass
    return f"{len(payload)} bytes that are no entry"


def _encoded_batch(data: bytes) -> str:
    try:
        return _batch(c.decode_batch(data))
    except UNREADABLE:
        return f"{len(data)} bytes that are no batch"


def _batch(batch: c.Batch) -> str:
    whose = f"session {batch.session} seq {batch.seq}" if batch.session else "no session"
    commands = _some([_command(command) for command in batch.commands])
    return f"{whose}, {_count(len(batch.commands), 'command')}: {commands}"


def _command(command: c.Command) -> str:
    name = type(command).__name__
    match command:
        case c.Enqueue(queue=queue, messages=messages):
            return f"{name} {queue} {_some([_body(message.body) for message in messages])}"
        case c.Claim(queue=queue, limit=limit) | c.Take(queue=queue, limit=limit):
            return f"{name} {queue} up to {limit}"
        case c.Ack(claim=claim) | c.Release(claim=claim):
            some = "" if command.ids is None else f", {len(command.ids)} of it"
            return f"{name} {command.queue} claim {claim}{some}"
        case c.Extend(queue=queue, claim=claim):
            return f"{name} {queue} claim {claim}"
        case c.ExtendMany(queue=queue, claims=claims):
            return f"{name} {queue} {_count(len(claims), 'claim')}"
        case c.Transact() | c.TransactAndClaim():
            return _transaction(command)
        case c.StartJob(queue=queue, act=act, to=to, dry_run=dry_run):
            return f"{name} {queue} {act}{to and f' to {to}'}{', only to count' * dry_run}"
        case c.DeleteMessages(queue=queue, ids=ids):
            return f"{name} {queue} {len(ids)}"
        case c.Once(key=of, command=inner) | c.Audited(actor=of, command=inner):
            return f"{name} {of}: {_command(inner)}"
        case _:
            return f"{name} {_place(command)}".rstrip()


def _transaction(command: c.Transact | c.TransactAndClaim) -> str:
    if isinstance(command, c.TransactAndClaim):
        return f"{_transaction(command.transaction)}, then {_command(command.claim)}"
    parts = ((command.acks, "ack"), (command.puts, "put"), (command.releases, "release"))
    return f"Transact {', '.join(_count(len(some), what) for some, what in parts)}"


def _place(command: c.Command) -> str:
    """The queue, account, node or index that a command names."""
    for field in ("schedule", "queue", "account", "node", "index", "limit"):
        if (value := getattr(command, field, None)) is not None:
            return str(value)
    return ""


def _body(body: bytes) -> str:
    """A body's first bytes: in these tests a number, and then padding."""
    start = body[:BODY_BYTES].rstrip(b"\0 ")
    return f"{start!r} {len(body)} B"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _some(texts: Sequence[str]) -> str:
    shown: Iterable[str] = texts[:SHOWN]
    left_out = len(texts) - SHOWN
    return ", ".join(shown) + (f", and {left_out} more" if left_out > 0 else "")
