"""Snapshots on their way: made and served by a leader, fetched and installed by a follower.

The follower asks for every chunk, so there is one in flight, and a stream that broke
goes on where it stopped. Nothing is believed before size and SHA-256 of every file fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from raftq.disk import Disk
from raftq.replica.wire import GROUP, Frame, SnapshotChunk, SnapshotFetch, SnapshotOffer
from raftq.runtime import Runtime
from raftq.snapshots import Damaged, Manifest, Sink, Snapshot, Source, encode
from raftq.stores.home import Home

CHUNK_BYTES = 1 << 20
OFFER_AGAIN_S = 2.0
BEGINNINGS_MAX = 3  # A peer that was restarted begins anew; so does one for which nothing fits.
KEEP_S = 300.0


class Maker(Protocol):
    """Makes a snapshot of the present state, off the loop."""

    def make_snapshot(self, done: Callable[[Snapshot], None]) -> None:
        """Call ``done`` when it is on disk."""
        ...


class Serving:
    """A leader's snapshot, for whoever needs it."""

    def __init__(
        self, maker: Maker, disk: Disk, runtime: Runtime, send: Callable[[str, Frame], bool]
    ) -> None:
        self._maker = maker
        self._disk = disk
        self._runtime = runtime
        self._send = send
        self._source: Source | None = None
        self._manifest: Manifest | None = None
        self._making = False
        self._offered: dict[str, float] = {}
        self._begun: dict[str, int] = {}  # How often each peer has asked for the first piece.
        self._used_at = 0.0
        self.sent = 0

    def needed_from(self) -> int | None:
        """The log must be kept after this index while somebody is fetching."""
        if self._manifest is None or self._runtime.monotonic() - self._used_at > KEEP_S:
            return None
        return self._manifest.index

    def offer(self, peer: str, term: int, base_index: int) -> None:
        """A peer lacks what the log no longer holds; called at each heartbeat until it does not."""
        now = self._runtime.monotonic()
        manifest = self._manifest
        if manifest is None or manifest.index < max(base_index, 1) or self.needed_from() is None:
            self._make()
            return
        if now - self._offered.get(peer, float("-inf")) < OFFER_AGAIN_S:
            return
        self._offered[peer] = now
        self._used_at = now
        self._send(peer, SnapshotOffer(GROUP, term, encode(manifest)))

    def on_fetch(self, peer: str, fetch: SnapshotFetch) -> None:
        """Answer with one chunk."""
        manifest, source = self._manifest, self._source
        if manifest is None or source is None or manifest.index != fetch.index:
            return  # It will be offered another one.
        if not 0 <= fetch.file < len(manifest.files):
            return
        if self._keeps_beginning(peer, fetch):
            self._manifest = None  # It gets something else than the manifest says: make another.
            return
        self._used_at = self._offered[peer] = self._runtime.monotonic()

        def read() -> bytes:
            return source.read(fetch.file, fetch.offset, CHUNK_BYTES)

        def done(data: bytes | None, error: BaseException | None) -> None:
            if error is not None or data is None:
                if self._source is source:
                    self._manifest = None  # Unreadable: make another one.
                return
            self._send(peer, SnapshotChunk(GROUP, fetch.index, fetch.file, fetch.offset, data))
            if fetch.file == len(manifest.files) - 1:
                size = manifest.files[fetch.file].size_bytes
                self.sent += fetch.offset + len(data) >= size

        self._runtime.offload(read, done)

    def _keeps_beginning(self, peer: str, fetch: SnapshotFetch) -> bool:
        if (fetch.file, fetch.offset) == (0, 0):
            self._begun[peer] = self._begun.get(peer, 0) + 1
        return self._begun.get(peer, 0) > BEGINNINGS_MAX

    def _make(self) -> None:
        if self._making:
            return
        self._making = True

        def made(snapshot: Snapshot) -> None:
            self._making = False
            if self._source is not None:
                self._source.close()
            self._manifest = snapshot.manifest
            self._source = Source(self._disk, snapshot)
            self._used_at = self._runtime.monotonic()
            self._offered.clear()
            self._begun.clear()

        self._maker.make_snapshot(made)


class Fetching:
    """A follower's side: one snapshot at a time."""

    def __init__(
        self,
        disk: Disk,
        home: Home,
        runtime: Runtime,
        send: Callable[[str, Frame], bool],
        install: Callable[[Manifest, str, int], None],
    ) -> None:
        self._disk = disk
        self._home = home
        self._runtime = runtime
        self._send = send
        self._install = install  # (manifest, sender, term); the files are in ``home.incoming``.
        self._sink: Sink | None = None
        self._manifest: Manifest | None = None
        self._sender = ""
        self._term = 0
        self._busy = False  # A chunk is being written, or the whole being installed.

    @property
    def active(self) -> bool:
        """Whether a snapshot is coming in."""
        return self._sink is not None

    def on_offer(self, peer: str, term: int, manifest: Manifest) -> None:
        """Begin, or go on with, the snapshot that the leader of ``term`` offers."""
        if self._busy:
            return
        self._sender, self._term = peer, term
        if self._sink is None or manifest != self._manifest:
            if self._sink is not None:
                self._sink.close()
            self._sink = self._manifest = None
            try:
                self._sink = Sink(self._disk, self._home.incoming(), manifest)
            except Damaged:
                return  # Not even what is empty fits; another offer will come.
            self._manifest = manifest
        self._ask()

    def on_chunk(self, peer: str, chunk: SnapshotChunk) -> None:
        """Write one chunk, then ask for the next."""
        sink, manifest = self._sink, self._manifest
        if sink is None or manifest is None or self._busy or peer != self._sender:
            return
        if chunk.index != manifest.index or (chunk.file, chunk.offset) != sink.position:
            return
        self._busy = True

        def write() -> bool:
            sink.write(chunk.file, chunk.offset, chunk.data)
            if sink.complete:
                sink.finish()
            return sink.complete

        def done(complete: bool | None, error: BaseException | None) -> None:
            self._busy = False
            if isinstance(error, Damaged):
                sink.close()
                self._sink = self._manifest = None  # The next offer begins anew.
            elif error is not None:
                raise error
            elif complete:
                self._busy = True  # Until it is installed: the directory must stay as it is.
                self._sink = self._manifest = None
                self._install(manifest, self._sender, self._term)
            else:
                self._ask()

        self._runtime.offload(write, done)

    def installing_is_over(self) -> None:
        """The received snapshot was installed, or not wanted any more."""
        self._busy = False

    def _ask(self) -> None:
        assert self._sink is not None
        assert self._manifest is not None
        file, offset = self._sink.position
        self._send(self._sender, SnapshotFetch(GROUP, self._manifest.index, file, offset))
