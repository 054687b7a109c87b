"""The journal as the engine asks for it, also when its beginning is cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftq.consensus.core_log import CoreLog
from raftq.consensus.messages import Kind
from raftq.disk import OsDisk
from raftq.journal import Journal, TermFile

BASE = 7


@pytest.fixture
def log(tmp_path: Path) -> CoreLog:
    """Entries 8 to 10, of the terms 3, 3 and 4; the base is of term 2."""
    disk = OsDisk()
    journal = Journal.open(
        disk, str(tmp_path / "journal"), segment_bytes=4_096, cache_bytes=1 << 20
    )
    journal.reset(BASE, 2)
    for index, term in ((8, 3), (9, 3), (10, 4)):
        journal.append(bytes((Kind.REGULAR,)), index, term)
    return CoreLog(journal, TermFile(disk, str(tmp_path / "term")), BASE)


@pytest.mark.parametrize(
    ("position", "index", "term"), [(0, 7, 2), (1, 8, 3), (3, 10, 4), (-1, 10, 4), (-4, 7, 2)]
)
def test_positions_count_from_the_base_or_from_the_end(
    log: CoreLog, position: int, index: int, term: int
) -> None:
    assert len(log) == 4
    assert log[position][1:] == (index, term)
    assert log.at(index) == log[position]


@pytest.mark.parametrize("position", [4, -5])
def test_what_is_not_kept_is_no_entry(log: CoreLog, position: int) -> None:
    with pytest.raises(IndexError):
        log[position]
