"""The membership on disk and what the log says since."""

from __future__ import annotations

import os

import pytest

from raftq.consensus.messages import Kind, MembershipChange, membership_payload
from raftq.journal import Journal, LogEntry
from raftq.replica import membership
from raftq.replica.membership import Membership, MembershipFile, cluster_id
from simulation.disk import FaultyDisk

PATH = os.path.join("data", "members")
FOUNDERS = ("n1/a", "n2/b", "n3/c")
PLAIN = bytes([Kind.REGULAR]) + b"entry"


def change(*, add: bool, member: str) -> bytes:
    return bytes([Kind.MEMBERSHIP]) + membership_payload(MembershipChange(add, member))


OUT, IN = change(add=False, member="n3/c"), change(add=True, member="n3/x")


@pytest.fixture
def disk() -> FaultyDisk:
    disk = FaultyDisk(seed=1)
    disk.make_directory("data")
    return disk


@pytest.fixture
def file(disk: FaultyDisk) -> MembershipFile:
    """Of the founding."""
    file = MembershipFile(disk, PATH)
    file.store(Membership("c", 0, FOUNDERS))
    return file


def journal(disk: FaultyDisk, *payloads: bytes, after: int = 0) -> Journal:
    """With these entries after a base."""
    journal = Journal.open(disk, os.path.join("data", "journal"), segment_bytes=1 << 16)
    if after:
        journal.reset(after, 1)
    for index, payload in enumerate(payloads, start=after + 1):
        journal.append(payload, index, 1)
    return journal


def test_a_node_that_was_never_in_a_cluster_has_none(disk: FaultyDisk) -> None:
    file = MembershipFile(disk, PATH)
    file.applied(LogEntry(IN, 1, 1))
    file.advance(5)
    assert file.current is None
    assert file.cluster_id == ""
    assert file.at_end_of(journal(disk, IN)) == []
    assert not disk.exists(PATH)


def test_what_was_stored_survives_the_power(disk: FaultyDisk, file: MembershipFile) -> None:
    disk.crash()
    found = MembershipFile(disk, PATH)
    assert found.current == Membership("c", 0, FOUNDERS)
    assert found.cluster_id == "c"


LOGS = [
    # (index of the file, base of the journal, entries after it, members at its end)
    ("an empty log", 0, 0, (), FOUNDERS),
    ("nothing about members", 0, 0, (PLAIN, PLAIN), FOUNDERS),
    ("one out", 0, 0, (PLAIN, OUT), ("n1/a", "n2/b")),
    ("one out, one in", 0, 0, (OUT, PLAIN, IN, PLAIN), ("n1/a", "n2/b", "n3/x")),
    ("twice the same", 0, 0, (IN, IN), (*FOUNDERS, "n3/x")),
    ("the file knows the first already", 1, 0, (OUT, IN), (*FOUNDERS, "n3/x")),
    ("the file knows all", 2, 0, (OUT, IN), FOUNDERS),
    ("the file is ahead of the log", 9, 0, (OUT, IN), FOUNDERS),
    ("the log begins later", 5, 5, (OUT, PLAIN), ("n1/a", "n2/b")),
    ("the file is behind the log's beginning", 3, 5, (OUT,), ("n1/a", "n2/b")),
]


@pytest.mark.parametrize("read_bytes", [1, 4 << 20])
@pytest.mark.parametrize(
    ("index", "base", "entries", "members"), [one[1:] for one in LOGS], ids=[one[0] for one in LOGS]
)
def test_the_log_changes_what_the_file_says(
    disk: FaultyDisk,
    monkeypatch: pytest.MonkeyPatch,
    read_bytes: int,
    index: int,
    base: int,
    entries: tuple[bytes, ...],
    members: tuple[str, ...],
) -> None:
    monkeypatch.setattr(membership, "READ_BYTES", read_bytes)
    file = MembershipFile(disk, PATH)
    file.store(Membership("c", index, FOUNDERS))
    assert sorted(file.at_end_of(journal(disk, *entries, after=base))) == sorted(members)


def test_a_change_that_was_applied_is_on_disk(disk: FaultyDisk, file: MembershipFile) -> None:
    file.applied(LogEntry(IN, 4, 1))
    disk.crash()
    assert MembershipFile(disk, PATH).current == Membership("c", 4, (*FOUNDERS, "n3/x"))
    file.applied(LogEntry(OUT, 6, 1))
    assert file.current == Membership("c", 6, ("n1/a", "n2/b", "n3/x"))


@pytest.mark.parametrize("index", [3, 4])
def test_a_change_that_the_file_knows_already_is_not_applied_again(
    file: MembershipFile, index: int
) -> None:
    file.store(Membership("c", 4, FOUNDERS))
    file.applied(LogEntry(OUT, index, 1))
    file.advance(index)
    assert file.current == Membership("c", 4, FOUNDERS)


def test_advancing_keeps_the_members(disk: FaultyDisk, file: MembershipFile) -> None:
    file.advance(8)
    disk.crash()
    assert MembershipFile(disk, PATH).current == Membership("c", 8, FOUNDERS)


def test_storing_what_is_there_writes_nothing(disk: FaultyDisk, file: MembershipFile) -> None:
    disk.fails_after = 0
    file.store(Membership("c", 0, FOUNDERS))
    with pytest.raises(OSError, match="error"):
        file.store(Membership("c", 1, FOUNDERS))
    assert file.current == Membership("c", 0, FOUNDERS)


def test_a_cluster_is_named_by_its_founders_in_any_order() -> None:
    assert cluster_id(FOUNDERS) == cluster_id(reversed(FOUNDERS))
    assert cluster_id(FOUNDERS) != cluster_id(FOUNDERS[:2])
    assert cluster_id(("a/1", "b/2")) != cluster_id(("a/1", "b/3"))
