"""One set of tests for every engine: what ``raftq.stores.store`` promises.

The examples say what each promise means; the state machine at the end drives an
engine and a plain dictionary side by side and compares all views after each step.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from memory_kv import MemoryKV
from raftq.disk import OsDisk
from raftq.stores.engines import ENGINES, Engine
from raftq.stores.overlay import Overlay
from raftq.stores.store import Frozen, Store, StoreError
from statemachine.kv import KV, Reader

END = b"\xff" * 4
DISK = OsDisk()


@pytest.fixture(params=sorted(ENGINES))
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def store(engine: Engine, directory: str) -> Iterator[Store]:
    opened = engine.open(DISK, directory)
    yield opened
    opened.close()


def everything(reader: Reader) -> dict[bytes, bytes]:
    rows = list(reader.scan(b"", END))
    assert rows == sorted(rows)
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def put_all(store: Store, text: str) -> None:
    """Each letter is a key with itself as its value, in one committed round."""
    for letter in text:
        store.kv.put(letter.encode(), letter.encode())
    store.commit()


def keys(reader: Reader, low: bytes = b"", high: bytes = END) -> str:
    return b"".join(key for key, _ in reader.scan(low, high)).decode()


# A round over the committed keys "bdfh": +k puts, -k deletes, j~k deletes a range; and the
# keys that are there afterwards.
ROUNDS = [
    ("", "bdfh"),
    ("+a", "abdfh"),
    ("+e", "bdefh"),
    ("+z", "bdfhz"),
    ("+d", "bdfh"),
    ("+g +e +a +c", "abcdefgh"),
    ("-d", "bfh"),
    ("-c", "bdfh"),
    ("+c -c", "bdfh"),
    ("-d +d", "bdfh"),
    ("-d +d -d", "bfh"),
    ("c~g", "bh"),
    ("d~e", "bfh"),  # The start is in the range,
    ("c~f", "bfh"),  # the end is not.
    ("d~d", "bdfh"),
    ("f~c", "bdfh"),
    ("+e d~g", "bh"),
    ("c~g +d", "bdh"),
    ("c~g +e", "beh"),
    ("-d c~e", "bfh"),
    ("+e d~g +e", "beh"),
    ("-d c~e +d", "bdfh"),
    ("c~e d~g", "bh"),
    ("c~e e~g", "bh"),
    ("c~g d~e", "bh"),
    ("d~e c~g", "bh"),
    ("f~g b~c", "dh"),
    ("b~i", ""),
    ("b~i +e -e", ""),
]


def run(kv: KV, script: str) -> None:
    for step in script.split():
        if step[0] == "+":
            kv.put(step[1:].encode(), step.encode())
        elif step[0] == "-":
            kv.delete(step[1:].encode())
        else:
            low, _, high = step.encode().partition(b"~")
            kv.delete_range(low, high)


@pytest.mark.parametrize(("script", "expected"), ROUNDS)
def test_a_round_sees_its_writes_and_others_see_them_when_it_ends(
    store: Store, script: str, expected: str
) -> None:
    put_all(store, "bdfh")
    run(store.kv, script)
    assert keys(store.kv) == expected
    assert [letter for letter in "abcdefgh" if store.kv.get(letter.encode())] == [
        letter for letter in "abcdefgh" if letter in expected
    ]
    assert keys(store.reader()) == "bdfh"
    store.commit()
    assert keys(store.kv) == keys(store.reader()) == expected


@pytest.mark.parametrize(("script", "expected"), ROUNDS)
def test_a_committed_round_is_there_after_close_and_open(
    engine: Engine, directory: str, script: str, expected: str
) -> None:
    store = engine.open(DISK, directory)
    put_all(store, "bdfh")
    run(store.kv, script)
    store.commit()
    store.flush()
    store.close()
    store = engine.open(DISK, directory)
    assert keys(store.kv) == expected
    store.close()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (b"", END, "abcdefgh"),
        (b"c", b"f", "cde"),
        (b"c", b"c", ""),
        (b"f", b"c", ""),
        (b"c", b"c\x00", "c"),
        (b"c\x00", b"e", "d"),
        (b"x", END, ""),
        (b"", b"b", "a"),
    ],
)
def test_a_scan_merges_pending_and_committed_keys_in_order(
    store: Store, low: bytes, high: bytes, expected: str
) -> None:
    put_all(store, "bdfh")
    for key in (b"g", b"a", b"e", b"c"):
        store.kv.put(key, key)
    assert keys(store.kv, low, high) == expected


def test_pending_keys_of_one_key_space_are_in_order_however_they_came(store: Store) -> None:
    put_all(store, "kt")
    names = ["ke", "ka", "kc", "kg", "kb", "kf", "kd"]
    for name in names:
        store.kv.put(name.encode(), b"")
    store.kv.delete_range(b"kc", b"ke")
    store.kv.put(b"kcc", b"")
    assert [key for key, _ in store.kv.scan(b"k", b"l")] == [
        *(b"k", b"ka", b"kb", b"kcc", b"ke", b"kf", b"kg")
    ]
    assert [key for key, _ in store.kv.scan(b"kb", b"kf")] == [b"kb", b"kcc", b"ke"]


def test_a_scan_shows_the_pending_value_of_a_committed_key(store: Store) -> None:
    put_all(store, "ab")
    store.kv.put(b"a", b"new")
    assert list(store.kv.scan(b"a", b"c")) == [(b"a", b"new"), (b"b", b"b")]


def test_two_scans_of_one_round_do_not_disturb_each_other(store: Store) -> None:
    put_all(store, "abcdef")
    store.kv.put(b"bb", b"")
    left, right = store.kv.scan(b"a", b"z"), store.kv.scan(b"d", b"z")
    assert next(left)[0] == b"a"
    assert next(right)[0] == b"d"
    assert [key for key, _ in left] == [b"b", b"bb", b"c", b"d", b"e", b"f"]
    assert [key for key, _ in right] == [b"e", b"f"]


def test_a_scan_stopped_early_does_not_hamper_the_next_round(store: Store) -> None:
    put_all(store, "abc")
    for _ in range(3):
        assert next(iter(store.kv.scan(b"a", b"z")))[0] == b"a"
    put_all(store, "d")
    assert keys(store.kv, b"c", b"z") == "cd"


def test_an_unfinished_scan_kept_over_a_commit_does_not_feed_old_rows_to_the_next(
    store: Store,
) -> None:
    put_all(store, "abc")
    kept = store.kv.scan(b"a", b"z")
    next(kept)
    put_all(store, "d")
    del kept
    assert keys(store.kv) == "abcd"


def test_what_is_born_and_gone_within_a_round_leaves_no_trace() -> None:
    """Not even that it is deleted: an engine would keep it, and scans walk over it."""
    overlay = Overlay(MemoryKV({b"old": b"1"}))
    for key in (b"a", b"b", b"c", b"d"):
        overlay.put_new(key, b"")
    overlay.put(b"b", b"2")
    overlay.delete(b"a")
    overlay.delete(b"old")
    overlay.delete_range(b"c", b"d")
    assert [key for key, _ in overlay.scan(b"", END)] == [b"b", b"d"]
    assert overlay.get(b"a") is None
    assert overlay.take() == ([(b"c", b"d")], {b"b": b"2", b"d": b"", b"old": None})
    assert overlay.take() == ([], {})


def test_an_empty_value_is_not_an_absent_key(store: Store) -> None:
    store.kv.put(b"a", b"")
    assert store.kv.get(b"a") == b""
    store.commit()
    assert store.reader().get(b"a") == b""
    assert store.reader().get(b"b") is None
    assert list(store.reader().scan(b"", END)) == [(b"a", b"")]


def test_keys_and_values_are_any_bytes(store: Store) -> None:
    rows = {bytes([a, b]): bytes([b, a]) * 3 for a in (0, 1, 127, 254) for b in (0, 128, 255)}
    for key, value in rows.items():
        store.kv.put(key, value)
    assert everything(store.kv) == rows
    store.commit()
    assert everything(store.reader()) == rows


def test_big_values_come_back(store: Store) -> None:
    big = {b"big%d" % size: bytes([size % 251]) * size for size in (1 << 20, (1 << 23) + 1)}
    for key, value in big.items():
        store.kv.put(key, value)
    store.commit()
    store.flush()
    assert {key: store.reader().get(key) for key in big} == big


def test_a_readers_scan_shows_the_moment_it_was_asked_for(store: Store) -> None:
    put_all(store, "bdf")
    unstarted = store.reader().scan(b"", END)
    started = store.reader().scan(b"", END)
    assert next(started)[0] == b"b"
    store.kv.delete_range(b"c", b"e")
    store.kv.put(b"f", b"new")
    store.kv.put(b"g", b"g")
    store.commit()
    assert list(started) == [(b"d", b"d"), (b"f", b"f")]
    assert list(unstarted) == [(b"b", b"b"), (b"d", b"d"), (b"f", b"f")]
    assert keys(store.reader()) == "bfg"


def test_a_frozen_view_does_not_move(store: Store) -> None:
    put_all(store, "bdf")
    view = store.frozen()
    half = view.scan(b"", END)
    rows = [next(half)]
    for text in ("ace", "xyz"):
        put_all(store, text)
        store.kv.delete(b"d")
        store.kv.put(b"f", b"new")
        store.commit()
        store.flush()
    assert [*rows, *half] == [(b"b", b"b"), (b"d", b"d"), (b"f", b"f")]
    assert everything(view) == {b"b": b"b", b"d": b"d", b"f": b"f"}
    assert [view.get(key) for key in (b"a", b"b", b"d", b"f")] == [None, b"b", b"d", b"f"]
    view.close()
    view.close()
    with pytest.raises(StoreError):
        view.get(b"b")


def test_a_scan_cut_off_by_close_raises_instead_of_ending(engine: Engine, directory: str) -> None:
    store = engine.open(DISK, directory)
    put_all(store, "abcdef")
    view = store.frozen()
    scans = [store.reader().scan(b"", END), view.scan(b"", END), store.reader().scan(b"", END)]
    for scan in scans[:2]:
        next(scan)
    store.close()
    for scan in scans:
        with pytest.raises(StoreError):
            list(scan)
    with pytest.raises(StoreError):
        view.get(b"a")


def test_a_store_closes_though_scans_and_views_are_held_and_opens_again(
    engine: Engine, directory: str
) -> None:
    store = engine.open(DISK, directory)
    put_all(store, "abc")
    store.flush()
    held = [store.reader().scan(b"", END), store.frozen().scan(b"", END), store.kv.scan(b"", END)]
    views = [store.frozen(), store.frozen()]
    for scan in held:
        next(scan)
    store.close()
    again = engine.open(DISK, directory)
    assert keys(again.reader()) == "abc"
    again.close()
    assert len(held) + len(views) == 5


def test_closing_twice_is_harmless(engine: Engine, directory: str) -> None:
    store = engine.open(DISK, directory)
    store.close()
    store.close()


def test_a_checkpoint_is_what_was_committed_and_opens(
    store: Store, engine: Engine, tmp_path: Path
) -> None:
    put_all(store, "ab")
    store.flush()
    put_all(store, "c")
    store.kv.put(b"d", b"pending")
    store.checkpoint(str(tmp_path / "copy"))
    store.commit()
    copy = engine.read(DISK, str(tmp_path / "copy"))
    assert keys(copy) == "abc"
    assert copy.get(b"c") == b"c"
    copy.close()
    opened = engine.open(DISK, str(tmp_path / "copy"))
    assert keys(opened.kv) == "abc"
    put_all(opened, "x")
    opened.close()
    assert keys(store.reader()) == "abcd"


def test_reading_a_store_changes_no_file_in_it(engine: Engine, directory: str) -> None:
    store = engine.open(DISK, directory)
    put_all(store, "abc")
    store.flush()
    put_all(store, "d")
    store.close()

    def state() -> dict[str, tuple[int, bytes]]:
        return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in Path(directory).iterdir()}

    before = state()
    copy = engine.read(DISK, directory)
    assert keys(copy, b"", b"d") == "abc"
    copy.close()
    assert engine.examine(DISK, directory) == []
    assert state() == before


def test_reading_where_there_is_no_store_is_refused(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        engine.read(DISK, str(tmp_path))


def test_checkpoints_and_flushes_elsewhere_hold_whole_rounds_while_rounds_go_on(
    store: Store, engine: Engine, tmp_path: Path
) -> None:
    """Every round sets all of eight keys to its number: a torn copy would hold two numbers."""
    stop = threading.Event()
    paths = [str(tmp_path / f"copy-{number}") for number in range(5)]
    failures: list[BaseException] = []

    def copy() -> None:
        try:
            for path in paths:
                store.flush()
                store.checkpoint(path)
        except BaseException as error:
            failures.append(error)
        stop.set()

    worker = threading.Thread(target=copy)
    worker.start()
    number = 0
    while not stop.is_set() or number < 3:
        number += 1
        for key in range(8):
            store.kv.put(b"key%d" % key, b"%d" % number + b"." * 1000)
        store.commit()
        assert len(set(dict(store.reader().scan(b"", END)).values())) == 1
    worker.join()
    assert failures == []
    for path in paths:
        opened = engine.open(DISK, path)
        assert len(set(everything(opened.reader()).values())) <= 1
        opened.close()


class Comparison(RuleBasedStateMachine):
    """An engine and two dictionaries: what is committed, and what the round makes of it."""

    engine: Engine
    key = st.binary(min_size=1, max_size=3).map(lambda data: bytes(byte % 4 for byte in data))
    value = st.binary(max_size=20)
    born = Bundle("born")

    @initialize()
    def start(self) -> None:
        self.temporary = TemporaryDirectory()
        self.directory = f"{self.temporary.name}/store"
        self.store = self.engine.open(DISK, self.directory)
        self.committed: dict[bytes, bytes] = {}
        self.round: dict[bytes, bytes] = {}
        self.views: list[tuple[Frozen, dict[bytes, bytes]]] = []
        self.scan: tuple[Iterator[tuple[bytes, bytes]], list[tuple[bytes, bytes]]] | None = None
        self.copies = self.births = 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.temporary.cleanup()

    @rule(key=key, value=value)
    def put(self, key: bytes, value: bytes) -> None:
        self.store.kv.put(key, value)
        self.round[key] = value

    @rule(target=born, key=key, value=value)
    def put_new(self, key: bytes, value: bytes) -> bytes:
        self.births += 1
        key += b"!%d" % self.births  # It never was there, and never will be again.
        self.store.kv.put_new(key, value)
        self.round[key] = value
        return key

    @rule(key=born, value=value)
    def put_again(self, key: bytes, value: bytes) -> None:
        if key in self.round:
            self.put(key, value)

    @rule(key=consumes(born))
    def delete_born(self, key: bytes) -> None:
        self.delete(key)

    @rule(key=born)
    def get_born(self, key: bytes) -> None:
        assert self.store.kv.get(key) == self.round.get(key)

    @rule(key=key)
    def delete(self, key: bytes) -> None:
        self.store.kv.delete(key)
        self.round.pop(key, None)

    @rule(low=key, high=key)
    def delete_range(self, low: bytes, high: bytes) -> None:
        self.store.kv.delete_range(low, high)
        self.round = {k: v for k, v in self.round.items() if not low <= k < high}

    @rule()
    def commit(self) -> None:
        self.store.commit()
        self.committed = dict(self.round)

    @rule()
    def flush(self) -> None:
        self.store.flush()

    @rule()
    def freeze(self) -> None:
        self.views.append((self.store.frozen(), dict(self.committed)))

    @precondition(lambda self: self.views)
    @rule()
    def thaw(self) -> None:
        view, expected = self.views.pop(0)
        assert everything(view) == expected
        view.close()

    @rule(low=key, high=key, count=st.integers(0, 3))
    def begin_scan(self, low: bytes, high: bytes, count: int) -> None:
        rows = self.store.reader().scan(low, high)
        expected = sorted((k, v) for k, v in self.committed.items() if low <= k < high)
        assert list(islice(rows, count)) == expected[:count]
        self.scan = rows, expected[count:]

    @precondition(lambda self: self.scan)
    @rule()
    def end_scan(self) -> None:
        assert self.scan is not None
        rows, expected = self.scan
        assert list(rows) == expected
        self.scan = None

    @rule(low=key, high=key, count=st.integers(0, 5))
    def scan_some(self, low: bytes, high: bytes, count: int) -> None:
        expected = sorted((k, v) for k, v in self.round.items() if low <= k < high)
        assert list(islice(self.store.kv.scan(low, high), count)) == expected[:count]

    @rule()
    def reopen(self) -> None:
        """What is flushed stays; the pending writes of the round are lost."""
        self.store.flush()
        self.views, self.scan = [], None
        self.store.close()
        self.store = self.engine.open(DISK, self.directory)
        self.round = dict(self.committed)

    @rule()
    def copy(self) -> None:
        self.copies += 1
        path = f"{self.temporary.name}/copy-{self.copies}"
        self.store.checkpoint(path)
        reader = self.engine.read(DISK, path)
        assert everything(reader) == self.committed
        reader.close()

    @invariant()
    def every_view_agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        assert everything(self.store.kv) == self.round
        assert everything(self.store.reader()) == self.committed
        for key in [bytes([a, b]) for a in range(4) for b in range(4)]:
            assert self.store.kv.get(key) == self.round.get(key)
            assert self.store.reader().get(key) == self.committed.get(key)
        for view, expected in self.views:
            assert everything(view) == expected


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_an_engine_does_what_a_dictionary_does(name: str) -> None:
    machine = type(f"Comparison_{name}", (Comparison,), {"engine": ENGINES[name]})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=25, stateful_step_count=30, deadline=None)
    )
