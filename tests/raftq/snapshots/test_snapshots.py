"""A snapshot arrives as it was sent or not at all, wherever the stream or the process stops."""

from __future__ import annotations

import hashlib
import itertools
import threading
from pathlib import Path

import msgspec
import pytest

from raftq import snapshots
from raftq.disk import File, OsDisk
from raftq.snapshots import Damaged, FileSpec, Manifest, Sink, Snapshot, Source
from raftq.stores.engines import ENGINES
from raftq.stores.home import Home
from raftq.stores.store import Store
from statemachine.kv import Reader

DISK = OsDisk()
NAMES = sorted(ENGINES)
END = b"\xff" * 4
CHUNK_BYTES = 3_000


def applied(reader: Reader) -> tuple[int, int, int]:
    index = int(reader.get(b"applied") or 0)
    return index, 3, index * 1000


def extra(index: int) -> bytes:
    return b"members at %d" % index


def advance(store: Store, index: int) -> None:
    """One round that leaves its index in two places."""
    store.kv.put(b"applied", b"%d" % index)
    store.kv.put(b"row", b"%d" % index)
    for number in range(40):
        store.kv.put(b"key%04d" % (index * 100 + number), b"%d" % number * 40)
    store.commit()


def make(home: Home, store: Store, tmp_path: Path) -> Snapshot:
    directory = str(tmp_path / "snapshots")
    return snapshots.make(home.engine, store, DISK, directory, applied=applied, extra=extra)


@pytest.fixture(params=NAMES)
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    return Home(DISK, str(tmp_path / "sender"), request.param)


@pytest.fixture
def snapshot(home: Home, tmp_path: Path) -> Snapshot:
    store = home.open_current()
    for index in range(1, 4):
        advance(store, index)
    made = make(home, store, tmp_path)
    home.close()
    return made


def pieces(snapshot: Snapshot) -> list[tuple[int, int, bytes]]:
    """The stream, as the sender would cut it."""
    source = Source(DISK, snapshot)
    cut = []
    for number, file in enumerate(snapshot.manifest.files):
        for offset in range(0, file.size_bytes, CHUNK_BYTES):
            cut.append((number, offset, source.read(number, offset, CHUNK_BYTES)))
    source.close()
    assert sum(len(data) for _, _, data in cut) == source.total_bytes
    return cut


def test_a_snapshot_travels_and_takes_the_place_of_the_store(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    receiver = Home(DISK, str(tmp_path / "receiver"), snapshot.manifest.engine)
    advance(receiver.open_current(), 1)
    manifest = snapshots.decode(snapshots.encode(snapshot.manifest))
    sink = Sink(DISK, receiver.incoming(), manifest)
    for number, offset, data in pieces(snapshot):
        assert not sink.complete
        sink.write(number, offset, data)
    assert sink.complete
    sink.finish()
    store = receiver.switch()
    assert (
        (manifest.index, manifest.term, manifest.stamp_ms)
        == applied(store.reader())
        == (3, 3, 3000)
    )
    assert manifest.extra == b"members at 3"
    assert len(list(store.reader().scan(b"key", b"kez"))) == 120
    receiver.close()


def test_a_stream_broken_anywhere_goes_on_where_it_stopped(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    stream = pieces(snapshot)
    for stop in range(len(stream)):
        directory = tmp_path / f"incoming-{stop}"
        directory.mkdir()
        sink = Sink(DISK, str(directory), snapshot.manifest)
        for number, offset, data in stream[:stop]:
            sink.write(number, offset, data)
        with pytest.raises(Damaged, match="ended at"):
            sink.finish()
        source = Source(DISK, snapshot)
        while not sink.complete:
            number, offset = sink.position
            sink.write(number, offset, source.read(number, offset, 777))
        source.close()
        sink.finish()
        same = {file.name: (directory / file.name).read_bytes() for file in snapshot.manifest.files}
        assert same == {name: (Path(snapshot.path) / "files" / name).read_bytes() for name in same}


def test_a_flipped_byte_is_found_and_the_file_named(snapshot: Snapshot, tmp_path: Path) -> None:
    stream = pieces(snapshot)
    for victim, (number, offset, data) in enumerate(stream):
        changed = [*stream]
        changed[victim] = (number, offset, data[:-1] + bytes([data[-1] ^ 1]))
        directory = tmp_path / f"incoming-{victim}"
        directory.mkdir()
        sink = Sink(DISK, str(directory), snapshot.manifest)
        with pytest.raises(Damaged) as caught:
            feed(sink, changed)
        assert caught.value.file == snapshot.manifest.files[number].name
        sink.close()


def feed(sink: Sink, stream: list[tuple[int, int, bytes]]) -> None:
    for number, offset, data in stream:
        sink.write(number, offset, data)


def manifest_of(*files: FileSpec) -> Manifest:
    return Manifest("memory", 1, 1, 1, files, b"")


def spec(name: str = "file", size_bytes: int = 4, sha256: bytes = b"." * 32) -> FileSpec:
    return FileSpec(name, size_bytes, sha256)


@pytest.mark.parametrize(
    ("number", "offset", "data"),
    [
        (0, 1, b"."),
        (1, 0, b"."),
        (-1, 0, b"."),
        (0, -1, b"."),
        (0, 0, b"....."),
        (7, 0, b""),
        (0, 0, b""),
    ],
)
def test_bytes_that_are_not_next_are_refused(
    tmp_path: Path, number: int, offset: int, data: bytes
) -> None:
    sink = Sink(DISK, str(tmp_path), manifest_of(spec(), spec("other")))
    with pytest.raises(Damaged):
        sink.write(number, offset, data)
    assert sink.position == (0, 0)
    sink.close()


def test_no_bytes_in_the_middle_of_a_file_mean_that_it_is_shorter(tmp_path: Path) -> None:
    sink = Sink(DISK, str(tmp_path), manifest_of(spec()))
    sink.write(0, 0, b"..")
    with pytest.raises(Damaged, match="file: shorter than 4 bytes"):
        sink.write(0, 2, b"")
    assert sink.position == (0, 2)
    sink.close()


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../up",
        "/etc/passwd",
        "a/b",
        "a\\b",
        ".hidden",
        "a\x00b",
        "a\n",
        "é",
        "x" * 129,
    ],
)
def test_a_name_that_could_leave_the_directory_is_refused(name: str) -> None:
    with pytest.raises(Damaged, match="manifest"):
        snapshots.decode(snapshots.encode(manifest_of(spec(name))))


@pytest.mark.parametrize(
    "manifest",
    [
        manifest_of(spec(size_bytes=-1)),
        manifest_of(spec(sha256=b"short")),
        manifest_of(spec(), spec()),
        "rubbish",
        ["memory", 1, 1],
    ],
)
def test_a_manifest_that_cannot_be_followed_is_refused(manifest: object) -> None:
    with pytest.raises(Damaged, match="manifest"):
        snapshots.decode(msgspec.msgpack.encode(manifest))


def test_empty_files_and_no_files_are_received(tmp_path: Path) -> None:
    empty = hashlib.sha256().digest()
    sink = Sink(DISK, str(tmp_path), manifest_of(spec("a", 0, empty), spec("b", 0, empty)))
    assert sink.complete
    sink.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    with pytest.raises(Damaged, match="b"):
        Sink(DISK, str(tmp_path), manifest_of(spec("a", 0, empty), spec("b", 0)))
    assert Sink(DISK, str(tmp_path), manifest_of()).complete


def test_leftovers_in_the_directory_do_not_get_into_a_file(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"new").digest()
    (tmp_path / "file").write_bytes(b"something longer")
    sink = Sink(DISK, str(tmp_path), manifest_of(spec("file", 3, digest)))
    sink.write(0, 0, b"new")
    sink.finish()
    assert (tmp_path / "file").read_bytes() == b"new"


def test_the_newest_two_are_kept_and_the_newest_is_found_after_a_restart(
    home: Home, tmp_path: Path
) -> None:
    directory = tmp_path / "snapshots"
    assert snapshots.latest(DISK, str(directory)) is None
    store = home.open_current()
    for index in (1, 2, 9, 10, 11):
        advance(store, index)
        made = make(home, store, tmp_path)
        assert snapshots.latest(DISK, str(directory)) == made
    assert [int(path.name.split("-")[1]) for path in sorted(directory.iterdir())] == [10, 11]
    home.close()


def test_a_snapshot_made_twice_at_one_index_is_replaced(home: Home, tmp_path: Path) -> None:
    store = home.open_current()
    advance(store, 5)
    make(home, store, tmp_path)
    made = make(home, store, tmp_path)
    assert len(list((tmp_path / "snapshots").iterdir())) == 1
    assert pieces(made)
    home.close()


def test_a_source_goes_on_reading_when_its_snapshot_is_removed(home: Home, tmp_path: Path) -> None:
    store = home.open_current()
    advance(store, 1)
    made = make(home, store, tmp_path)
    before = pieces(made)
    source = Source(DISK, made)
    for index in (2, 3, 4):
        advance(store, index)
        make(home, store, tmp_path)
    assert not Path(made.path).exists()
    assert [source.read(n, at, len(data)) for n, at, data in before] == [d for _, _, d in before]
    source.close()
    home.close()


def test_a_damaged_manifest_is_passed_over(home: Home, tmp_path: Path) -> None:
    store = home.open_current()
    advance(store, 1)
    older = make(home, store, tmp_path)
    advance(store, 2)
    newest = Path(make(home, store, tmp_path).path) / "MANIFEST"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert snapshots.latest(DISK, str(tmp_path / "snapshots")) == older
    home.close()


def test_a_snapshot_made_while_rounds_go_on_is_one_moment(home: Home, tmp_path: Path) -> None:
    store = home.open_current()
    advance(store, 1)
    made: list[Snapshot] = []
    maker = threading.Thread(target=lambda: made.append(make(home, store, tmp_path)))
    maker.start()
    index = 1
    while maker.is_alive():
        index += 1
        advance(store, index)
    maker.join()
    copy = home.engine.read(DISK, str(Path(made[0].path) / "files"))
    assert copy.get(b"row") == copy.get(b"applied") == b"%d" % made[0].manifest.index
    assert 1 <= made[0].manifest.index <= index
    assert made[0].manifest.extra == extra(made[0].manifest.index)
    copy.close()
    home.close()


class Killed(BaseException):
    """The process ends here."""


class MortalDisk(OsDisk):
    """Dies at the n-th change of a name."""

    def __init__(self, changes: int) -> None:
        super().__init__()
        self.left = changes

    def rename(self, source: str, target: str) -> None:
        self._change()
        super().rename(source, target)

    def remove_tree(self, path: str) -> None:
        self._change()
        super().remove_tree(path)

    def make_directory(self, path: str) -> None:
        self._change()
        super().make_directory(path)

    def sync_directory(self, path: str) -> None:
        self._change()
        super().sync_directory(path)

    def open(self, path: str, *, create: bool = False) -> File:  # type: ignore[override]  # Wider.
        self._change()
        return super().open(path, create=create)

    def _change(self) -> None:
        self.left -= 1
        if self.left <= 0:
            raise Killed


def test_a_kill_at_any_step_of_making_one_leaves_the_ones_before(
    home: Home, tmp_path: Path
) -> None:
    store = home.open_current()
    directory = str(tmp_path / "snapshots")
    steps = itertools.count(1)
    newest = 0
    finished = False
    while not finished:
        index = newest + 1
        advance(store, index)
        disk = MortalDisk(next(steps))
        try:
            snapshots.make(home.engine, store, disk, directory, applied=applied, extra=extra)
            finished = True
        except Killed:
            pass
        found = snapshots.latest(DISK, directory)
        if found is not None:
            assert found.manifest.index in (newest, index)
            assert all(data for _, _, data in pieces(found))
            newest = found.manifest.index
        assert found is not None or newest == 0
    assert next(steps) > 8
    assert newest == index
    assert "making" not in {path.name for path in Path(directory).iterdir()}
    home.close()
