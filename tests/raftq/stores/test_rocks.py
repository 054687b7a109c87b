"""RocksDB's traps, each shown to be fenced: locks, kills, and bytes that changed on disk."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import until
from raftq.disk import OsDisk
from raftq.stores import sst
from raftq.stores.rocks import LESS_URGENT, Rocks, RocksCopy, examine
from raftq.stores.store import StoreBusy, StoreCorruption, StoreError

DISK = OsDisk()
END = b"\xff" * 4
ROWS = {b"key%05d" % n: b"%d" % n * 40 for n in range(2_000)}

# A process that writes rounds, each setting many keys and the marker to the same number,
# flushes now and then, says after which round, and dies in the middle without closing.
WRITER = textwrap.dedent("""
    import os, sys, threading
    from raftq.disk import OsDisk
    from raftq.stores.rocks import Rocks

    store = Rocks(OsDisk(), sys.argv[1])
    rounds, deadly = int(sys.argv[2]), int(sys.argv[3])
    first = int(store.kv.get(b"marker") or 0) + 1
    for number in range(first, first + rounds):
        for key in range(20):
            store.kv.put(b"row%02d" % key, b"%d" % number)
        store.kv.put(b"new%08d" % number, b"." * 2000)
        store.kv.delete_range(b"new", b"new%08d" % (number - 50))
        store.kv.put(b"marker", b"%d" % number)
        store.commit()
        if number % 40 == 0:
            store.flush()
            print(number, flush=True)
        if number == first + deadly:
            threading.Thread(target=store.flush).start()
    os._exit(9)
""")


@pytest.fixture
def directory(tmp_path: Path) -> str:
    """A closed store with ``ROWS``, flushed into one table file."""
    path = str(tmp_path / "store")
    store = Rocks(DISK, path)
    for key, value in ROWS.items():
        store.kv.put(key, value)
    store.commit()
    store.flush()
    store.close()
    return path


def table_of(directory: str) -> Path:
    (table,) = Path(directory).glob("*.sst")
    return table


def bytes_read() -> int:
    """By this process, of files, from the cache of the system or not."""
    return int(Path("/proc/self/io").read_text().split()[1])


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def merged(directory: str, rows: dict[bytes, bytes]) -> Rocks:
    """An open store with the rows in one table that was merged from several."""
    store = Rocks(DISK, directory)
    tables, keys = 8, sorted(rows)  # As many as are merged into the next level.
    for first in range(tables):
        for key in keys[first::tables]:
            store.kv.put(key, rows[key])
        store.commit()
        store.flush()
    until(lambda: len(list(Path(directory).glob("*.sst"))) == 1, "the merge")
    return store


def blamed(directory: str, rows: dict[bytes, bytes]) -> set[str | None]:
    """The files that are found damaged by looking at them alone, or by a scan."""
    named = {damage.file for damage in examine(DISK, directory)}
    try:
        copy = RocksCopy(DISK, directory)
        try:
            assert dict(copy.scan(b"", END)) == rows
        finally:
            copy.close()
    except StoreCorruption as error:
        named.add(error.file)
    return named


def test_a_second_owner_is_refused_and_changes_nothing(directory: str) -> None:
    store = Rocks(DISK, directory)
    config = Path(directory) / "rocksdict-config.json"
    before = config.stat().st_mtime_ns
    with pytest.raises(StoreBusy, match="open elsewhere"):
        Rocks(DISK, directory)
    assert config.stat().st_mtime_ns == before
    store.close()
    Rocks(DISK, directory).close()


@pytest.mark.parametrize("content", [b"", b'{"raw_m', None])
def test_a_torn_configuration_of_the_binding_does_not_matter(
    directory: str, content: bytes | None
) -> None:
    config = Path(directory) / "rocksdict-config.json"
    config.unlink()
    if content is not None:
        config.write_bytes(content)
    store = Rocks(DISK, directory)
    assert dict(store.reader().scan(b"", END)) == ROWS
    store.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_loses_whole_rounds_from_the_end_and_nothing_flushed(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    path = str(tmp_path / "store")
    for _ in range(3):
        rounds = chance.randrange(30, 200)
        command = [sys.executable, "-c", WRITER, path, str(rounds), str(chance.randrange(rounds))]
        died = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert died.returncode == 9, died.stderr
        flushed = [int(line) for line in died.stdout.split()]
        store = Rocks(DISK, path)
        marker = int(store.reader().get(b"marker") or 0)
        assert marker >= max(flushed, default=0)
        rows = dict(store.reader().scan(b"row", b"rox"))
        assert set(rows.values()) <= {b"%d" % marker}
        kept = [int(key[3:]) for key, _ in store.reader().scan(b"new", b"nex")]
        assert kept == list(range(max(marker - 50, 1), marker + 1))[: len(kept)]
        assert len(kept) == min(marker, 51)
        store.close()


def flush_unless_closed(store: Rocks) -> None:
    with contextlib.suppress(StoreError):
        store.flush()


def test_closing_waits_for_a_flush_elsewhere(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    for _ in range(5):
        store = Rocks(DISK, path)
        for number in range(3_000):
            store.kv.put(b"key%05d" % number, b"." * 1000)
        store.commit()
        flusher = threading.Thread(target=flush_unless_closed, args=(store,))
        flusher.start()
        flusher.join(0.001)
        store.close()
        flusher.join()


def test_using_a_closed_store_is_an_error(directory: str) -> None:
    store = Rocks(DISK, directory)
    store.close()
    store.kv.put(b"a", b"")
    for use in (store.commit, store.flush, store.frozen, lambda: store.reader().get(b"a")):
        with pytest.raises(StoreError):
            use()


def test_a_flipped_byte_anywhere_in_a_table_is_noticed_and_named(directory: str) -> None:
    """Not only noticed: no scan or get may answer with fewer or other bytes before that."""
    table = table_of(directory)
    size = table.stat().st_size
    positions = random.Random(1).sample(range(size), 60) + list(range(size - 1500, size, 100))
    for position in positions:
        flip(table, position)
        assert table.name in blamed(directory, ROWS), position
        flip(table, position)
    assert examine(DISK, directory) == []


def test_a_bad_part_of_a_filter_is_noticed_where_the_engine_does_without_it(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "store")
    rows = {b"key%05d" % n: b"%d" % n * 20 for n in range(8_000)}  # For a filter of three parts.
    store = merged(path, rows)
    store.close()
    table = table_of(path)
    size = table.stat().st_size
    for position in range(size - 12_000, size, 250):  # The filter has ten bits for each row.
        flip(table, position)
        assert table.name in blamed(path, rows), position
        flip(table, position)


def test_a_lookup_in_a_large_table_reads_a_part_of_its_filter_and_index(tmp_path: Path) -> None:
    """The whole filter might not fit into a shard of the cache, and be read again each time."""
    rows = {b"key%07d" % number: b"" for number in range(1_000_000)}
    store = merged(str(tmp_path / "store"), rows)
    kept_bytes, lookups = 1 << 20, 20
    before = bytes_read()
    for key in sorted(rows)[:: len(rows) // lookups]:
        assert store.reader().get(key) == b""
    assert bytes_read() - before < kept_bytes
    store.close()


def test_a_scan_behind_a_large_value_does_not_read_it_each_time(tmp_path: Path) -> None:
    """The block that ends with it is the one that might have what comes next."""
    store = Rocks(DISK, str(tmp_path / "store"))
    store.kv.put(b"a", random.Random(1).randbytes(3 << 20))
    store.kv.put(b"c", b"")
    store.commit()
    store.flush()
    scans, before = 20, bytes_read()
    for _ in range(scans):
        assert list(store.reader().scan(b"b", b"bb")) == []
    assert bytes_read() - before < 8 << 20
    store.close()


def test_a_scan_and_a_get_raise_at_a_bad_block_of_an_open_store(directory: str) -> None:
    flip(table_of(directory), 5_000)
    store = Rocks(DISK, directory)
    rows: list[tuple[bytes, bytes]] = []
    with pytest.raises(StoreCorruption) as caught:
        rows.extend(store.reader().scan(b"", END))
    assert caught.value.file == table_of(directory).name
    with pytest.raises(StoreCorruption):
        list(store.kv.scan(b"", END))
    with pytest.raises(StoreCorruption):
        list(store.frozen().scan(b"", END))
    outcomes = []
    for key, value in ROWS.items():
        try:
            outcomes.append(store.reader().get(key) == value)
        except StoreCorruption:
            outcomes.append(False)
    assert 0 < outcomes.count(False) < 200
    store.close()


def test_a_truncated_or_missing_table_is_refused_by_name(directory: str, tmp_path: Path) -> None:
    name = table_of(directory).name
    size = table_of(directory).stat().st_size
    for keep in (0, size // 2, size - 1, None):
        damaged = tmp_path / f"damaged-{keep}"
        shutil.copytree(directory, damaged)
        if keep is None:
            (damaged / name).unlink()
        else:
            with (damaged / name).open("r+b") as file:
                file.truncate(keep)
        with pytest.raises(StoreCorruption, match=name) as caught:
            Rocks(DISK, str(damaged))
        assert caught.value.file == name


def positions_of_lengths(log: bytes) -> Iterator[int]:
    """Where a log in RocksDB's format says how long its records are, and of which type."""
    position = 0
    while position < len(log):
        yield from (position + 4, position + 5, position + 6)
        position += 7 + int.from_bytes(log[position + 4 : position + 6], "little")


def test_a_manifest_that_forgets_a_flush_is_refused(tmp_path: Path) -> None:
    """RocksDB takes a bad length in it for the torn end of a crash, and opens with less."""
    path = tmp_path / "store"
    command = [sys.executable, "-c", WRITER, str(path), "170", "1000"]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 9
    (manifest,) = path.glob("MANIFEST-*")
    reasons = []
    for position in positions_of_lengths(manifest.read_bytes()):
        damaged = tmp_path / "damaged"
        shutil.copytree(path, damaged)
        flip(damaged / manifest.name, position)
        try:
            store = Rocks(DISK, str(damaged))
            assert store.reader().get(b"marker") == b"160", position
            store.close()
        except StoreCorruption as error:
            reasons.append(str(error))
        shutil.rmtree(damaged)
    # A forgotten deletion makes it look for a table that is rightly gone: it names both.
    assert [reason for reason in reasons if "MANIFEST" not in reason] == []
    assert any("had been flushed" in reason for reason in reasons)


def test_a_store_whose_files_are_gone_is_not_begun_anew(directory: str) -> None:
    for path in Path(directory).iterdir():
        if path.name != "FLUSHED":
            path.unlink()
    with pytest.raises(StoreCorruption, match="had been flushed"):
        Rocks(DISK, directory)


def test_a_table_of_another_format_is_not_taken_for_a_good_one(directory: str) -> None:
    table = table_of(directory)
    with table.open("r+b") as file:
        file.seek(-12, 2)
        file.write((6).to_bytes(4, "little"))
    with pytest.raises(StoreCorruption, match="not ours"):
        sst.check(DISK, str(table))


def test_what_compacts_leaves_the_machine_to_what_answers(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        from raftq.disk import OsDisk
        from raftq.stores.rocks import Rocks

        Rocks(OsDisk(), sys.argv[1])
        print(os.getpriority(os.PRIO_PROCESS, 0))
        for task in Path("/proc/self/task").iterdir():
            try:
                if (task / "comm").read_text().startswith("rocksdb"):
                    print(os.getpriority(os.PRIO_PROCESS, int(task.name)))
            except (FileNotFoundError, ProcessLookupError):
                pass  # It has ended.
    """)
    command = [sys.executable, "-c", program, str(tmp_path / "store")]
    told = subprocess.run(command, capture_output=True, timeout=60, check=True, text=True).stdout
    own, *engines = map(int, told.split())
    assert engines
    assert min(engines) >= min(own + LESS_URGENT, 19)
