"""A snapshot goes over in pieces, and only a whole one is installed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

import msgspec
import pytest

from fake_runtime import FakeRuntime
from raftq import snapshots
from raftq.replica import transfer
from raftq.replica.transfer import Fetching, Serving
from raftq.replica.wire import GROUP, Frame, SnapshotChunk, SnapshotFetch, SnapshotOffer
from raftq.snapshots import FileSpec, Manifest, Snapshot
from raftq.stores.home import Home
from simulation.disk import FaultyDisk
from simulation.world import World

CHUNK_BYTES = 10
TERM = 4
FILES = {"a": b"x" * 25, "b": b"", "c": b"0123456789", "d": b"end"}
TO_THE_END = [(0, 0), (0, 10), (0, 20), (2, 0), (3, 0)]
Placed = tuple[int, int]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "CHUNK_BYTES", CHUNK_BYTES)


def manifest_of(files: dict[str, bytes], index: int) -> Manifest:
    specs = [FileSpec(n, len(data), hashlib.sha256(data).digest()) for n, data in files.items()]
    return Manifest("memory", index, 3, 99, tuple(specs), b"extra")


def stored(disk: FaultyDisk, files: dict[str, bytes], index: int) -> Snapshot:
    """A complete snapshot, as ``snapshots.make`` leaves it."""
    path = f"snapshots/{index}"
    disk.make_directory(os.path.join(path, "files"))
    for name, data in files.items():
        disk.open(os.path.join(path, "files", name), create=True).pwrite(data, 0)
    return Snapshot(path, manifest_of(files, index))


class Leader:
    """The serving side."""

    def __init__(self, runtime: FakeRuntime) -> None:
        self.runtime = runtime
        self.disk = FaultyDisk(seed=1)
        self.sent: list[tuple[str, Frame]] = []
        self.makers: list[Callable[[Snapshot], None]] = []
        self.serving = Serving(self, self.disk, runtime, self.send)

    def send(self, peer: str, frame: Frame) -> bool:
        self.sent.append((peer, frame))
        return True

    def make_snapshot(self, done: Callable[[Snapshot], None]) -> None:
        self.makers.append(done)

    def made(self, index: int = 50, files: dict[str, bytes] = FILES) -> None:
        self.makers.pop(0)(stored(self.disk, files, index))

    def ready(self) -> None:
        """A snapshot at 50 has been made."""
        self.serving.offer("n2", TERM, 40)
        self.made()

    def take_sent(self) -> list[tuple[str, Frame]]:
        taken, self.sent = self.sent, []
        return taken

    def offers(self, peer: str = "n2", base_index: int = 40) -> list[tuple[str, int, int]]:
        """To whom it offers which snapshot in which term, when this peer needs one."""
        self.serving.offer(peer, TERM, base_index)
        return [
            (to, frame.term, snapshots.decode(frame.manifest).index)
            for to, frame in self.take_sent()
            if isinstance(frame, SnapshotOffer)
        ]

    def fetch(self, file: int, offset: int, index: int = 50) -> list[tuple[str, Frame]]:
        self.serving.on_fetch("n2", SnapshotFetch(GROUP, index, file, offset))
        self.runtime.settle()
        return self.take_sent()


class Follower:
    """The fetching side."""

    def __init__(self, runtime: FakeRuntime) -> None:
        self.runtime = runtime
        self.disk = FaultyDisk(seed=2)
        self.disk.make_directory("data")
        self.sent: list[tuple[str, Frame]] = []
        self.installed: list[tuple[int, str, int]] = []
        home = Home(self.disk, "data", "memory")
        self.fetching = Fetching(self.disk, home, runtime, self.send, self.install)

    def send(self, peer: str, frame: Frame) -> bool:
        self.sent.append((peer, frame))
        return True

    def install(self, manifest: Manifest, sender: str, term: int) -> None:
        self.installed.append((manifest.index, sender, term))

    def offer(self, peer: str = "n1", term: int = TERM, index: int = 50) -> None:
        self.fetching.on_offer(peer, term, manifest_of(FILES, index))

    def chunk(
        self, place: Placed, data: bytes | None = None, *, peer: str = "n1", index: int = 50
    ) -> None:
        """This piece comes in (the right one unless ``data``), and is written."""
        file, offset = place
        if data is None:
            data = list(FILES.values())[file][offset : offset + CHUNK_BYTES]
        self.fetching.on_chunk(peer, SnapshotChunk(GROUP, index, file, offset, data))
        self.runtime.settle()

    def take_wanted(self) -> list[tuple[str, int, Placed]]:
        """(of whom, of which snapshot, which piece) it has asked for."""
        taken, self.sent = self.sent, []
        return [
            (peer, frame.index, (frame.file, frame.offset))
            for peer, frame in taken
            if isinstance(frame, SnapshotFetch)
        ]

    def received(self) -> dict[str, bytes]:
        names = self.disk.list("data/incoming")
        return {name: bytes(self.disk.bytes_of(f"data/incoming/{name}")) for name in names}


@pytest.fixture
def leader() -> Leader:
    return Leader(FakeRuntime())


@pytest.fixture
def follower() -> Follower:
    return Follower(FakeRuntime())


def test_a_snapshot_goes_from_the_offer_to_its_end_one_chunk_at_a_time() -> None:
    runtime = FakeRuntime()
    leader, follower = Leader(runtime), Follower(runtime)
    leader.ready()
    leader.serving.offer("n2", TERM, 40)
    asked: list[Placed] = []
    while leader.sent or follower.sent:
        assert len(leader.sent) + len(follower.sent) == 1
        for _, frame in leader.take_sent():
            if isinstance(frame, SnapshotOffer):
                offered = snapshots.decode(frame.manifest)
                follower.fetching.on_offer("n1", frame.term, offered)
            else:
                assert isinstance(frame, SnapshotChunk)
                follower.fetching.on_chunk("n1", frame)
        for _, frame in follower.sent:
            assert isinstance(frame, SnapshotFetch)
            asked.append((frame.file, frame.offset))
            leader.serving.on_fetch("n2", frame)
        follower.sent = []
        runtime.settle()
    assert asked == TO_THE_END
    assert follower.installed == [(50, "n1", TERM)]
    assert follower.received() == FILES
    assert not follower.fetching.active
    assert leader.serving.sent == 1


# The leader.


def test_one_snapshot_is_made_however_many_need_it_and_offered_when_it_is_there(
    leader: Leader,
) -> None:
    assert leader.offers("n2") == []
    assert leader.offers("n3") == []
    assert len(leader.makers) == 1
    leader.made()
    assert leader.offers("n2") == [("n2", TERM, 50)]
    assert leader.offers("n3") == [("n3", TERM, 50)]
    assert leader.makers == []


def test_an_offer_is_repeated_after_a_while_unless_the_peer_is_fetching(leader: Leader) -> None:
    leader.ready()
    assert len(leader.offers()) == 1
    leader.runtime.pass_time(transfer.OFFER_AGAIN_S - 0.1)
    assert leader.offers() == []
    leader.fetch(0, 0)
    leader.runtime.pass_time(transfer.OFFER_AGAIN_S - 0.1)
    assert leader.offers() == []
    leader.runtime.pass_time(0.2)
    assert len(leader.offers()) == 1


BASES = [("the log still follows on it", 50, True), ("the log begins later", 51, False)]


@pytest.mark.parametrize(("base_index", "good"), [b[1:] for b in BASES], ids=[b[0] for b in BASES])
def test_a_snapshot_that_the_log_does_not_follow_on_is_made_anew(
    leader: Leader, base_index: int, good: bool
) -> None:
    leader.ready()
    assert bool(leader.offers(base_index=base_index)) is good
    assert bool(leader.makers) is not good


def test_the_log_is_kept_for_those_who_fetch_and_a_while_after_the_last(leader: Leader) -> None:
    assert leader.serving.needed_from() is None
    leader.ready()
    assert leader.serving.needed_from() == 50
    leader.runtime.pass_time(transfer.KEEP_S - 1)
    leader.fetch(0, 0)
    leader.runtime.pass_time(transfer.KEEP_S - 1)
    assert leader.serving.needed_from() == 50
    leader.runtime.pass_time(2)
    assert leader.serving.needed_from() is None
    # The log may have gone meanwhile: whoever comes now gets a new one.
    assert leader.offers() == []
    assert len(leader.makers) == 1


def test_a_new_snapshot_takes_the_place_of_the_old_and_is_offered_at_once(leader: Leader) -> None:
    leader.ready()
    assert leader.offers() == [("n2", TERM, 50)]
    assert leader.offers(base_index=60) == []
    leader.made(index=70)
    assert leader.offers(base_index=60) == [("n2", TERM, 70)]
    assert leader.serving.needed_from() == 70
    assert leader.fetch(0, 0, index=50) == []
    assert len(leader.fetch(0, 0, index=70)) == 1


@pytest.mark.parametrize(("index", "file"), [(49, 0), (51, 0), (50, len(FILES)), (50, -1)])
def test_what_is_not_there_is_not_answered(leader: Leader, index: int, file: int) -> None:
    leader.ready()
    assert leader.fetch(file, 0, index=index) == []
    assert leader.serving.needed_from() == 50


def test_a_snapshot_of_nothing_is_made_anew(leader: Leader) -> None:
    assert leader.offers(base_index=0) == []
    leader.made(index=0)
    assert leader.offers(base_index=0) == []
    leader.made(index=3)
    assert leader.offers(base_index=0) == [("n2", TERM, 3)]
    assert leader.serving.needed_from() == 3


def test_before_there_is_a_snapshot_nothing_is_answered(leader: Leader) -> None:
    assert leader.fetch(0, 0) == []


def test_a_snapshot_that_cannot_be_read_is_made_anew(
    leader: Leader, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader.ready()

    def read(_source: snapshots.Source, _file: int, _offset: int, _count: int) -> bytes:
        raise OSError("rotten")

    monkeypatch.setattr(snapshots.Source, "read", read)
    assert leader.fetch(0, 0) == []
    assert leader.serving.needed_from() is None
    assert leader.offers() == []
    assert len(leader.makers) == 1


def test_only_a_snapshot_that_went_over_whole_is_counted(leader: Leader) -> None:
    leader.ready()
    for place in TO_THE_END[:-1]:
        leader.fetch(*place)
    assert leader.serving.sent == 0
    leader.fetch(*TO_THE_END[-1])
    assert leader.serving.sent == 1


# The follower.


def test_an_offer_is_answered_by_asking_for_the_beginning(follower: Follower) -> None:
    assert not follower.fetching.active
    follower.offer()
    assert follower.fetching.active
    assert follower.take_wanted() == [("n1", 50, (0, 0))]


STRAY = [
    # (what is wrong, the piece, its sender, its snapshot)
    ("another snapshot", (0, 10), "n1", 51),
    ("an older snapshot", (0, 10), "n1", 49),
    ("another sender", (0, 10), "n3", 50),
    ("a piece that came already", (0, 0), "n1", 50),
    ("a piece that is not next", (0, 20), "n1", 50),
    ("a piece of another file", (2, 0), "n1", 50),
]


@pytest.mark.parametrize(
    ("place", "peer", "index"), [s[1:] for s in STRAY], ids=[s[0] for s in STRAY]
)
def test_a_stray_piece_changes_nothing(
    follower: Follower, place: Placed, peer: str, index: int
) -> None:
    follower.offer()
    follower.chunk((0, 0))
    follower.take_wanted()
    follower.chunk(place, peer=peer, index=index)
    assert follower.take_wanted() == []
    for good in TO_THE_END[1:]:
        follower.chunk(good)
    assert follower.installed == [(50, "n1", TERM)]
    assert follower.received() == FILES


def test_what_comes_without_an_offer_is_ignored(follower: Follower) -> None:
    follower.chunk((0, 0))
    assert follower.sent == []
    assert not follower.fetching.active


DAMAGES = [
    ("other bytes", (0, 20), b"xxxxX"),
    ("too many bytes", (0, 20), b"xxxxxx"),
    ("in the last file", (3, 0), b"END"),
    ("no bytes", (0, 20), b""),
]


@pytest.mark.parametrize(("place", "data"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES])
def test_after_a_damaged_piece_the_next_offer_begins_anew(
    follower: Follower, place: Placed, data: bytes
) -> None:
    follower.offer()
    before = TO_THE_END[: TO_THE_END.index(place)]
    for good in before:
        follower.chunk(good)
    follower.take_wanted()
    follower.chunk(place, data)
    assert not follower.fetching.active
    assert follower.take_wanted() == []
    follower.chunk(place)
    assert follower.installed == []
    follower.offer()
    assert follower.take_wanted() == [("n1", 50, (0, 0))]
    for good in TO_THE_END:
        follower.chunk(good)
    assert follower.received() == FILES
    assert follower.installed == [(50, "n1", TERM)]


def test_a_second_offer_of_the_same_snapshot_goes_on_where_it_stopped(follower: Follower) -> None:
    follower.offer()
    follower.chunk((0, 0))
    follower.take_wanted()
    # The same state, of another leader: its files are the same or the digests will tell.
    follower.offer("n3", TERM + 1)
    assert follower.take_wanted() == [("n3", 50, (0, 10))]
    for place in TO_THE_END[1:]:
        follower.chunk(place, peer="n3")
    assert follower.installed == [(50, "n3", TERM + 1)]
    assert follower.received() == FILES


def test_an_offer_of_another_snapshot_begins_anew(follower: Follower) -> None:
    follower.offer()
    follower.chunk((0, 0))
    follower.take_wanted()
    follower.offer(index=60)
    assert follower.take_wanted() == [("n1", 60, (0, 0))]
    assert follower.disk.open_files <= 1


def test_pieces_that_come_while_one_is_written_are_ignored(follower: Follower) -> None:
    follower.offer()
    follower.take_wanted()
    for _ in range(2):
        follower.fetching.on_chunk("n1", SnapshotChunk(GROUP, 50, 0, 0, b"x" * CHUNK_BYTES))
    assert len(follower.runtime.background) == 1
    follower.runtime.settle()
    assert follower.take_wanted() == [("n1", 50, (0, 10))]


@pytest.mark.parametrize("index", [50, 60], ids=["the same snapshot", "another"])
def test_an_offer_that_comes_while_a_piece_is_written_changes_nothing(
    follower: Follower, index: int
) -> None:
    follower.offer()
    for place in TO_THE_END:
        follower.take_wanted()
        file, offset = place
        data = list(FILES.values())[file][offset : offset + CHUNK_BYTES]
        follower.fetching.on_chunk("n1", SnapshotChunk(GROUP, 50, file, offset, data))
        follower.offer("n3", TERM + 1, index)
        assert follower.take_wanted() == []
        follower.runtime.settle()
        assert {peer for peer, _, _ in follower.take_wanted()} <= {"n1"}
    assert follower.installed == [(50, "n1", TERM)]
    assert follower.received() == FILES


def test_a_snapshot_that_cannot_begin_is_refused_and_the_next_offer_taken(
    follower: Follower,
) -> None:
    good = manifest_of({"a": b"", "b": b"x"}, 60)
    broken = FileSpec("a", 0, b"." * 32)  # Of no bytes, and not even those are what they should be.
    wrong = msgspec.structs.replace(good, files=(broken, good.files[1]))
    follower.offer()
    follower.chunk((0, 0))
    follower.take_wanted()
    follower.fetching.on_offer("n1", TERM, wrong)
    assert follower.sent == []
    assert not follower.fetching.active
    follower.chunk((0, 10))
    assert follower.sent == []
    follower.fetching.on_offer("n1", TERM, good)
    assert follower.take_wanted() == [("n1", 60, (1, 0))]
    follower.chunk((1, 0), b"x", index=60)
    assert follower.installed == [(60, "n1", TERM)]


def test_a_snapshot_of_another_engine_is_refused() -> None:
    world = World(1)
    world.start()
    world.until(world.settled, 10, "the first leader")
    leader = world.leader()
    assert leader is not None
    node = next(one for one in world.alive if one is not leader)
    replica, offered = node.running, manifest_of(FILES, 1_000)
    for engine, taken in (("sqlite", False), ("memory", True)):
        manifest = msgspec.structs.replace(offered, engine=engine)
        term = replica.consensus.term
        replica.snapshot_offered(leader.name, leader.running.self_id, term, manifest)
        assert replica._fetching.active is taken
    assert sum("snapshot is of another engine" in line for line in node.log) == 1


def test_what_is_being_installed_is_not_touched_by_the_next_offer(follower: Follower) -> None:
    follower.offer()
    for place in TO_THE_END:
        follower.chunk(place)
    follower.take_wanted()
    follower.offer(index=60)
    assert follower.take_wanted() == []
    assert follower.received() == FILES
    follower.fetching.installing_is_over()
    follower.offer(index=60)
    assert follower.take_wanted() == [("n1", 60, (0, 0))]


def test_a_received_snapshot_survives_the_power(follower: Follower) -> None:
    follower.offer()
    for place in TO_THE_END:
        follower.chunk(place)
    follower.disk.crash()
    assert follower.received() == FILES


def test_an_error_of_the_disk_is_fatal(follower: Follower) -> None:
    follower.offer()
    follower.disk.fails_after = 0
    with pytest.raises(OSError, match="error"):
        follower.chunk((0, 0))


def test_a_chunk_is_bounded_on_the_way(leader: Leader) -> None:
    leader.ready()
    [(peer, frame)] = leader.fetch(0, 10)
    assert (peer, frame) == ("n2", SnapshotChunk(GROUP, 50, 0, 10, b"x" * CHUNK_BYTES))
    assert len(msgspec.msgpack.encode(frame)) < 4 * CHUNK_BYTES


def test_a_read_that_fails_because_a_newer_snapshot_is_there_does_not_discard_that(
    leader: Leader,
) -> None:
    leader.ready()
    leader.serving.on_fetch("n2", SnapshotFetch(GROUP, 50, 0, 0))
    leader.serving.offer("n3", TERM, 60)  # The log begins later by now: another one is made.
    leader.made(index=70)
    leader.runtime.settle()  # The read of the old one finds its files closed.
    assert leader.serving.needed_from() == 70
