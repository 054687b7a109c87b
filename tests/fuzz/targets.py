"""All that reads bytes which somebody else has had: peers, strangers, and the disk.

A target prepares what it damages, and gives an execution to be repeated. That takes what is
declared to be raised; anything else that comes out of it is a finding.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import msgspec

from fuzz.mutation import mutated
from fuzz.samples import encoded, samples
from raftq import snapshots
from raftq.consensus.messages import Kind, MembershipChange, membership_change
from raftq.journal import Corruption, Journal, layout, record_file
from raftq.replica import wire
from raftq.replica.membership import Membership, decode_membership
from raftq.transport.frames import FrameDecoder, ProtocolError
from raftq.transport.handshake import NONCE_BYTES, Acceptor, Dialler, Identity, Refused
from simulation.disk import FaultyDisk
from statemachine import commands

Execution = Callable[[], None]
Target = Callable[[random.Random], Execution]
CORPUS = 400
FRAME_BYTES_MAX = 1_000


def frames(chance: random.Random) -> Execution:
    """``FrameDecoder``: what comes out is within the limit, and of what went in."""
    corpus = [len(part).to_bytes(4, "big") + part for part in map(chance.randbytes, range(120))]

    def feed() -> None:
        decoder = FrameDecoder(FRAME_BYTES_MAX)
        data = b"".join(mutated(corpus, chance) for _ in range(3))
        cut = chance.randrange(len(data) + 1)
        found: list[bytes] = []
        try:
            for part in (data[:cut], data[cut:]):
                found += decoder.feed(part)
        except ProtocolError:
            return
        assert all(len(frame) <= FRAME_BYTES_MAX for frame in found)
        assert sum(len(frame) + 4 for frame in found) <= len(data)

    return feed


def handshake(chance: random.Random) -> Execution:
    """Both ends: damaged greetings are refused or waited upon, and never proven."""
    secret = chance.randbytes(32)
    low, high = (Identity("cluster", name, secret) for name in ("n1", "n2"))

    def nonce() -> bytes:
        return chance.randbytes(NONCE_BYTES)

    said: list[bytes] = []
    for _ in range(50):
        dialler, acceptor = Dialler(low, "n2", nonce()), Acceptor(high, {"n1"}, nonce())
        challenge = acceptor.feed(dialler.hello)
        proof = dialler.feed(challenge)
        said += [dialler.hello, challenge, proof, acceptor.feed(proof), dialler.hello + proof]

    def feed() -> None:
        end = (
            Acceptor(high, {"n1"}, nonce())
            if chance.random() < 0.7
            else Dialler(low, "n2", nonce())
        )
        data = mutated(said, chance)
        cut = chance.randrange(len(data) + 1)
        try:
            for part in (data[:cut], data[cut:]):
                end.feed(part)
        except Refused:
            return
        assert not end.done

    return feed


def peer_frames(chance: random.Random) -> Execution:
    """``wire.decode``: what it lets through can be said again."""
    corpus = encoded(wire.Frame, chance, CORPUS)

    def decode() -> None:
        try:
            frame = wire.decode(mutated(corpus, chance))
        except msgspec.MsgspecError:
            return
        assert wire.decode(wire.encode(frame)) == frame

    return decode


def batches(chance: random.Random) -> Execution:
    """``commands.decode_batch`` and ``decode_entry``: what they let through can be said again."""
    corpus = [encoded(kind, chance, CORPUS) for kind in (commands.Batch, commands.Entry)]
    decoders = (commands.decode_batch, commands.decode_entry)

    def decode() -> None:
        which = chance.randrange(2)
        try:
            found = decoders[which](mutated(corpus[which], chance))
        except msgspec.MsgspecError:
            return
        assert decoders[which](commands.encode(found)) == found

    return decode


def memberships(chance: random.Random) -> Execution:
    """Memberships out of entries and out of manifests."""
    changes = [
        bytes([Kind.MEMBERSHIP]) + data for data in encoded(MembershipChange, chance, CORPUS)
    ]
    whole = encoded(Membership, chance, CORPUS)

    def decode() -> None:
        try:
            if chance.random() < 0.5:
                membership_change(mutated(changes, chance) or b"\x00")
            else:
                decode_membership(mutated(whole, chance))
        except msgspec.MsgspecError:
            return

    return decode


def snapshot(chance: random.Random) -> Execution:
    """The receiver of snapshots: manifests and pieces; no file but of the manifest is written."""
    corpus = []
    for drawn in samples(snapshots.Manifest, chance, CORPUS):
        names = (f"{number}.sst" for number in range(3))
        files = tuple(
            snapshots.FileSpec(name, chance.randrange(60), chance.randbytes(32)) for name in names
        )
        corpus.append(snapshots.encode(msgspec.structs.replace(drawn, files=files)))

    def receive() -> None:
        try:
            manifest = snapshots.decode(mutated(corpus, chance))
        except snapshots.Damaged:
            return
        assert all("/" not in file.name and file.name != ".." for file in manifest.files)
        if len(manifest.files) > 10 or chance.random() < 0.9:
            return
        disk = FaultyDisk()
        disk.make_directory("/in")
        try:
            sink = snapshots.Sink(disk, "/in", manifest)
            for _ in range(4):
                number, offset = sink.position
                data = chance.randbytes(chance.randrange(40))
                sink.write(number, offset + (chance.random() < 0.1), data)
            sink.finish()
        except snapshots.Damaged:
            pass
        named = {f"/in/{file.name}" for file in manifest.files}
        assert set(disk.files()) <= named

    return receive


def segments(chance: random.Random) -> Execution:
    """The reader of segments: each record it finds is one that was written."""
    data = _segment(chance)
    written = {bytes(record.payload) for record in _scanned(data)}

    def scan() -> None:
        damaged = mutated([data], chance)
        header = layout.decode_header(damaged, 1)
        for _ in layout.seals(damaged, 1):
            pass
        if isinstance(header, layout.Header):
            found = layout.scan(damaged, header)
            assert {bytes(record.payload) for record in found.records} <= written

    return scan


def recovery(chance: random.Random) -> Execution:
    """Opening a damaged journal: it is refused, or holds a beginning of what was written."""
    disk = _written(chance)
    images = {path: bytes(disk.bytes_of(path)) for path in disk.files()}
    with_all = _opened(disk)
    everything = with_all.slice(1, with_all.last_index)

    def open_damaged() -> None:
        damaged = FaultyDisk()
        damaged.make_directory(DIRECTORY)
        hit = chance.choice(list(images))
        for path, image in images.items():
            with_file = damaged.open(path, create=True)
            with_file.pwrite(mutated([image], chance) if path == hit else image, 0)
        try:
            journal = _opened(damaged)
        except Corruption:
            return
        found = journal.slice(1, journal.last_index) if journal.last_index else []
        assert found == everything[: len(found)]

    return open_damaged


def record_files(chance: random.Random) -> Execution:
    """Small record files: what was stored, or Corruption."""
    disk = FaultyDisk()
    disk.make_directory("/data")
    record_file.store(disk, "/data/term", b"payload")
    image = bytes(disk.bytes_of("/data/term"))

    def load() -> None:
        disk.bytes_of("/data/term")[:] = mutated([image], chance)
        with contextlib.suppress(Corruption):
            assert record_file.load(disk, "/data/term") == b"payload"

    return load


DIRECTORY = "/data/log"


def _opened(disk: FaultyDisk) -> Journal:
    return Journal.open(disk, DIRECTORY, segment_bytes=1024, cache_bytes=1 << 20)


def _written(chance: random.Random) -> FaultyDisk:
    disk = FaultyDisk()
    journal = _opened(disk)
    for index in range(1, 30):
        journal.append(chance.randbytes(chance.randrange(1, 90)), index, 1)
        if index % 5 == 0:
            work = journal.begin_sync()
            assert work is not None
            work.run()
            journal.end_sync(work)
    return disk


def _segment(chance: random.Random) -> bytes:
    disk = _written(chance)
    return bytes(disk.bytes_of(min(path for path in disk.files() if path.startswith(DIRECTORY))))


def _scanned(data: bytes) -> list[layout.Record]:
    header = layout.decode_header(data, 1)
    assert isinstance(header, layout.Header)
    return layout.scan(data, header).records


# Each with its share of the executions: opening a whole journal takes a thousand times as long.
TARGETS: dict[str, tuple[Target, float]] = {
    "frames": (frames, 0.15),
    "handshake": (handshake, 0.15),
    "peer_frames": (peer_frames, 0.2),
    "batches": (batches, 0.2),
    "memberships": (memberships, 0.05),
    "snapshot": (snapshot, 0.1),
    "segments": (segments, 0.09),
    "record_files": (record_files, 0.05),
    "recovery": (recovery, 0.01),
}
