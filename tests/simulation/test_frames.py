"""Frames in words: all kinds of them, and damaged ones."""

from __future__ import annotations

import random
from typing import get_args

import pytest

from raftq import snapshots
from raftq.consensus import messages as m
from raftq.replica import wire
from simulation.frames import Topic, told
from statemachine import commands as c


def batch(*commands: c.Command, session: int = 3) -> c.Batch:
    return c.Batch(session, 7, 5, commands)


def put(*bodies: bytes) -> c.Enqueue:
    return c.Enqueue("a", "q0", tuple(c.NewMessage(body, "text/plain") for body in bodies))


def payload(*batches: c.Batch) -> bytes:
    return bytes((m.Kind.REGULAR,)) + c.encode(c.Entry(1, 0, batches))


def member(*, add: bool) -> bytes:
    change = m.MembershipChange(add, "n3/0123456789abcdef")
    return bytes((m.Kind.MEMBERSHIP,)) + m.membership_payload(change)


NO_OP = bytes((m.Kind.NO_OP,))
MANIFEST = snapshots.Manifest("memory", 9, 2, 0, (snapshots.FileSpec("data", 300, bytes(32)),), b"")
MEMBERS = ("n1/aaaabbbbccccdddd", "n2/1111222233334444")

FRAMES: list[tuple[object, Topic, str]] = [
    (
        m.Append(2, 7, 1, 6, ((1, NO_OP), (2, payload(batch(put(b"12 \0\0"))))), False),
        Topic.REPLICATION,
        "Append term 2: 8-9 [term 1: no-op], [term 2: session 3 seq 7, 1 command: "
        "Enqueue q0 b'12' 5 B] after 7 of term 1, commit 6",
    ),
    (
        m.Append(2, 7, 1, 6, ((2, member(add=False)), (2, b"\0junk")), False),
        Topic.REPLICATION,
        "Append term 2: 8-9 [term 2: member n3/0123 removed], [term 2: 5 bytes that are no "
        "entry] after 7 of term 1, commit 6",
    ),
    (
        m.Append(2, 7, 1, 6, is_heartbeat=True),
        Topic.BEAT,
        "heartbeat term 2: no entries after 7 of term 1, commit 6",
    ),
    (m.Beat(2), Topic.BEAT, "sign of life, term 2"),
    (
        m.AppendReply(2, 8, True),
        Topic.REPLICATION,
        "Append reply term 2: holds up to 7, wants 8",
    ),
    (
        m.AppendReply(2, 0, False),
        Topic.REPLICATION,
        "Append reply term 2: does not match, wants 0",
    ),
    (
        m.VoteRequest(3, 9, 2, True),
        Topic.ELECTION,
        "Vote for me in term 3? my log ends at 9 of term 2, the leader asked for it",
    ),
    (m.VoteReply(3, True), Topic.ELECTION, "Vote granted in term 3"),
    (
        m.PreVoteRequest(3, 9, 2),
        Topic.ELECTION,
        "Pre-vote: would you vote for me in term 3? my log ends at 9 of term 2",
    ),
    (
        m.PreVoteReply(3, 2, False),
        Topic.ELECTION,
        "Pre-vote refused for term 3, is in term 2",
    ),
    (m.TimeoutNow(2), Topic.ELECTION, "Stand for election now, term 2"),
    (
        wire.Hello(0, "0123456789abcdef", "fedcba9876543210", MEMBERS, "z1", "http://n1", "f"),
        Topic.GREETING,
        "Hello from 0123 in z1: cluster fedcba98, members n1/aaaa, n2/1111",
    ),
    (
        wire.Propose(0, c.encode(batch(c.Barrier(), c.Claim("a", "q1", 10)))),
        Topic.PROPOSAL,
        "Propose session 3 seq 7, 2 commands: Barrier, Claim q1 up to 10",
    ),
    (wire.Propose(0, b"\xff"), Topic.PROPOSAL, "Propose 1 bytes that are no batch"),
    (wire.Accepted(0, 3, 7), Topic.PROPOSAL, "Accepted session 3 seq 7"),
    (wire.State(0, "follower", 2, 41), Topic.GOSSIP, "gossip: follower in term 2, applied 41"),
    (
        wire.SnapshotOffer(0, 2, snapshots.encode(MANIFEST)),
        Topic.SNAPSHOT,
        "Snapshot offer term 2: up to 9 of term 2, 1 file, 300 bytes",
    ),
    (wire.SnapshotFetch(0, 9, 0, 256), Topic.SNAPSHOT, "Snapshot fetch 9: file 0 from 256"),
    (
        wire.SnapshotChunk(0, 9, 0, 256, bytes(44)),
        Topic.SNAPSHOT,
        "Snapshot chunk 9: file 0 from 256, 44 bytes",
    ),
]
HOOK = c.SubscriptionSettings("https://x", (), 1, 1, 1, 1, 1, 1)
COMMANDS: list[tuple[c.Command, str]] = [
    (put(*(b"%d" % n for n in range(8))), "Enqueue q0 b'0' 1 B, "),
    (c.Claim("a", "q0", 2), "Claim q0 up to 2"),
    (c.Take("a", "q0", 2), "Take q0 up to 2"),
    (c.Extend("a", "q0", 5), "Extend q0 claim 5"),
    (c.Ack("a", "q0", 5), "Ack q0 claim 5"),
    (c.Release("a", "q0", 5, (bytes(10),)), "Release q0 claim 5, 1 of it"),
    (c.DeleteMessages("a", "q0", (bytes(10),)), "DeleteMessages q0 1"),
    (c.Purge("a", "q0"), "Purge q0"),
    (c.PutQueue("a", "q0", c.QueueSettings()), "PutQueue q0"),
    (c.PatchQueue("a", "q0", c.QueueSettings(), ()), "PatchQueue q0"),
    (c.DeleteQueue("a", "q0"), "DeleteQueue q0"),
    (c.PutAccount("a", c.QueueSettings()), "PutAccount a"),
    (c.PatchAccount("a", c.QueueSettings(), ()), "PatchAccount a"),
    (c.DeleteAccount("a"), "DeleteAccount a"),
    (c.Sweep(100), "Sweep 100"),
    (c.OpenSession("n1"), "OpenSession n1"),
    (c.Barrier(), "Barrier"),
    (c.ReportDigest(41, bytes(16)), "ReportDigest 41"),
    (c.Once("a", "k1", b"f", 60_000, put(b"1")), "Once k1: Enqueue q0 b'1' 1 B"),
    (c.TakeDigest(), "TakeDigest"),
    (c.Transact("a", (c.PartAck("q0", 5),)), "Transact 1 ack, 0 puts, 0 releases"),
    (
        c.TransactAndClaim(c.Transact("a", (c.PartAck("q0", 5),)), c.Take("a", "q0", 2)),
        "Transact 1 ack, 0 puts, 0 releases, then Take q0 up to 2",
    ),
    (c.ExtendMany("a", "q0", (5, 6)), "ExtendMany q0 2 claims"),
    (c.StartJob("a", "q0"), "StartJob q0 redrive"),
    (
        c.StartJob("a", "q0", "q1", act="move", dry_run=True),
        "StartJob q0 move to q1, only to count",
    ),
    (c.CancelJob("a", "q0"), "CancelJob q0"),
    (c.PutBinding("a", "q0", "q1", ()), "PutBinding q0"),
    (c.DeleteBinding("a", "q0", "q1"), "DeleteBinding q0"),
    (c.PutSchedule("a", "s", "q0", c.NewMessage(b"", ""), c.Timing(), 5), "PutSchedule s"),
    (c.DeleteSchedule("a", "s"), "DeleteSchedule s"),
    (c.Tick("a", "s", 1, 5, None), "Tick s"),
    (c.PutSubscription("a", "q0", "h", HOOK, b"", True), "PutSubscription q0"),
    (c.DeleteSubscription("a", "q0", "h"), "DeleteSubscription q0"),
    (c.DisableSubscription("a", "q0", "h", 1, "why"), "DisableSubscription q0"),
    (c.TakeSubscriptions("n1", 5), "TakeSubscriptions n1"),
    (c.PutKey("a", "k", c.KeySettings("n", (), ()), b""), "PutKey a"),
    (c.RotateKey("a", "k", b"", 5), "RotateKey a"),
    (c.RevokeKey("a", "k"), "RevokeKey a"),
    (c.UseKeys(("k",)), "UseKeys"),
    (c.SetQuotas("a", c.Quotas(1)), "SetQuotas a"),
    (c.PutSealingKeys("a", ()), "PutSealingKeys a"),
    (c.DropSealingKeys("a"), "DropSealingKeys a"),
    (
        c.Audited("a", "", "key:k", "", "", 1, 1, c.Purge("a", "q0")),
        "Audited key:k: Purge q0",
    ),
]


def encoded(frame: object) -> bytes:
    whole = frame if isinstance(frame, get_args(wire.Frame)) else wire.Raft(0, frame)
    return wire.encode(whole)


@pytest.mark.parametrize(("frame", "topic", "text"), FRAMES)
def test_a_frame_in_words(frame: object, topic: Topic, text: str) -> None:
    said = told(encoded(frame))
    assert (said.topic, said.text) == (topic, text)


def test_an_entry_without_a_kind_is_rubbish() -> None:
    assert told(encoded(m.Append(2, 7, 1, 6, ((2, b""),), False))).topic is Topic.RUBBISH


def test_every_kind_of_frame_and_command_is_in_these_tables() -> None:
    frames = {type(frame) for frame, _, _ in FRAMES} | {wire.Raft}
    assert frames == {*get_args(wire.Frame), *get_args(m.RaftMessage)}
    assert {type(command) for command, _ in COMMANDS} == {*get_args(c.Command)}


@pytest.mark.parametrize(("command", "text"), COMMANDS)
def test_a_command_in_words(command: c.Command, text: str) -> None:
    said = told(wire.encode(wire.Propose(0, c.encode(batch(command))))).text
    assert said.startswith(f"Propose session 3 seq 7, 1 command: {text}")
    assert text.endswith(", ") or said.endswith(text)


def test_what_is_not_shown_is_counted() -> None:
    assert told(encoded(wire.Propose(0, c.encode(batch(put(*[b"x"] * 9)))))).text.endswith(
        "b'x' 1 B, and 3 more"
    )


def test_damaged_frames_are_told_of_too() -> None:
    chance = random.Random(7)
    topics = set()
    for frame, _, _ in FRAMES:
        for _ in range(60):
            data = bytearray(encoded(frame))
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            said = told(bytes(data[: chance.randint(1, len(data))]))
            assert said.text
            topics.add(said.topic)
    assert Topic.RUBBISH in topics
