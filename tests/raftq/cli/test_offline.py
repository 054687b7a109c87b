"""``raftq journal inspect`` and ``raftq store verify`` on a data directory as a node leaves it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from command_line import CommandLine
from raftq.cli.failure import Exit
from raftq.disk import OsDisk
from raftq.journal import Journal, TermFile
from raftq.stores.home import Home
from statemachine.commands import Batch, Enqueue, Entry, NewMessage, encode
from statemachine.machine import Machine

ENTRIES = 20


def entry(number: int) -> Entry:
    message = NewMessage(body=b"%d" % number * 1_000, content_type="text/plain")
    return Entry(1, 1_000 + number, (Batch(0, 0, 0, (Enqueue("default", "jobs", (message,)),)),))


@pytest.fixture(params=["rocksdb", "sqlite", "memory"])
def data(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A node's data directory with a few entries, in order and at rest."""
    disk, directory = OsDisk(), str(tmp_path)
    journal = Journal.open(disk, os.path.join(directory, "journal"), segment_bytes=1 << 20)
    home = Home(disk, directory, request.param)
    store = home.open_current()
    machine = Machine(store.kv)
    for index in range(1, ENTRIES + 1):
        journal.append(encode(entry(index)), index, 1)
        machine.apply(index, 1, entry(index))
    machine.end_round()
    store.commit()
    store.flush()
    home.close()
    work = journal.begin_sync()
    assert work is not None
    work.run()
    journal.end_sync(work)
    journal.seal()
    journal.close()
    TermFile(disk, os.path.join(directory, "term")).store(1, "n1")
    return tmp_path


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)


def test_what_is_whole_is_said_to_be_good(data: Path, run: CommandLine) -> None:
    journal = run("journal", "inspect", data)
    assert (journal.code, journal.err) == (Exit.DONE, "")
    assert f"good: entries 1 to {ENTRIES}, last term 1" in journal.out
    assert "voted for n1" in journal.out
    store = run("store", "verify", data)
    assert (store.code, store.err) == (Exit.DONE, "")
    assert f"applied index {ENTRIES}, term 1" in store.out


def test_reports_are_there_for_programs(data: Path, run: CommandLine) -> None:
    journal = json.loads(run("journal", "inspect", data, "--json").out)
    assert (journal["state"], journal["last_index"]) == ("good", ENTRIES)
    store = json.loads(run("store", "verify", data, "--json").out)
    assert (store["good"], store["applied_index"], len(store["digest"])) == (True, ENTRIES, 32)


@pytest.mark.parametrize("data", ["memory"], indirect=True)
def test_a_damaged_record_is_named_with_its_file_and_offset(data: Path, run: CommandLine) -> None:
    (segment,) = (data / "journal").glob("*.segment")
    flip(segment, 3_000)
    for flags in ([], ["--json"]):
        result = run("journal", "inspect", data, *flags)
        assert result.code == Exit.FAILED
        assert f"{segment} at offset " in result.err


@pytest.mark.parametrize("data", ["memory"], indirect=True)
def test_a_damaged_vote_is_named_with_its_file(data: Path, run: CommandLine) -> None:
    flip(data / "term", -1)
    result = run("journal", "inspect", data)
    assert result.code == Exit.FAILED
    assert str(data / "term") in result.err


# SQLite has no checksums: what its own check cannot see is left to the replicas' digests.
@pytest.mark.parametrize(
    ("data", "pattern"), [("rocksdb", "*.sst"), ("memory", "*")], indirect=["data"]
)
def test_a_damaged_store_is_named_with_its_file(data: Path, pattern: str, run: CommandLine) -> None:
    (file,) = (data / "db-1").glob(pattern)
    flip(file, 500)
    for flags in ([], ["--json"]):
        result = run("store", "verify", data, *flags)
        assert result.code == Exit.FAILED
        assert str(file) in result.err


def test_looking_changes_nothing(data: Path, run: CommandLine) -> None:
    def content() -> dict[str, bytes]:
        files = [path for path in data.rglob("*") if path.is_file()]
        return {str(path.relative_to(data)): path.read_bytes() for path in files}

    before = content()
    run("journal", "inspect", data)
    run("store", "verify", data)
    assert content() == before
