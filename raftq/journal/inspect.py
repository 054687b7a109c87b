"""What lies on disk, for people: reads a journal and record files, and changes nothing.

Run it while the node is stopped, or expect a torn tail where the node is writing.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from raftq.disk import Disk
from raftq.journal import record_file, segment
from raftq.journal.faults import Corruption
from raftq.journal.survey import SegmentFacts, Survey
from raftq.journal.terms import TermFile

GOOD = "good"
TORN = "torn tail"
CORRUPT = "corrupt"
ABSENT = "absent"


class SegmentReport(msgspec.Struct, frozen=True, kw_only=True):
    """One segment. Indexes and terms are of all entries in it, void ones included."""

    path: str
    state: str
    first_index: int | None = None
    last_index: int | None = None
    first_term: int | None = None
    last_term: int | None = None
    records: int = 0
    seals: int = 0
    bytes: int = 0
    offset: int | None = None  # Of the fault.
    reason: str | None = None


class FileReport(msgspec.Struct, frozen=True):
    """One record file; ``detail`` says what is in it or what is wrong."""

    path: str
    state: str
    detail: str


class Report(msgspec.Struct, frozen=True):
    """A data directory's log and record files."""

    state: str  # The worst found.
    segments: tuple[SegmentReport, ...]
    files: tuple[FileReport, ...]
    base_index: int
    base_term: int
    last_index: int  # As far as the log can be followed.
    last_term: int


def inspect(
    disk: Disk, directory: str, *, term_file: str | None = None, record_files: Iterable[str] = ()
) -> Report:
    """Check the journal in ``directory`` and, when named, the term file and others."""
    files = [_record_file(disk, path) for path in record_files]
    if term_file is not None:
        files.append(_term_file(disk, term_file))
    if not disk.exists(directory):
        missing = SegmentReport(path=directory, state=ABSENT, reason="no such directory")
        return Report(_worst([ABSENT, *_states(files)]), (missing,), tuple(files), 0, 0, 0, 0)
    survey = Survey(disk, directory, cache_bytes=0)
    segments = _segments(directory, survey)
    return Report(
        _worst([*_states(files), *(report.state for report in segments)]),
        tuple(segments),
        tuple(files),
        survey.entries.base_index,
        survey.entries.base_term,
        survey.entries.last_index,
        survey.entries.last_term,
    )


def _segments(directory: str, survey: Survey) -> list[SegmentReport]:
    reports = [_segment(facts, survey) for facts in survey.segments]
    fault = survey.fault
    if fault is not None and all(facts.sequence != fault.sequence for facts in survey.segments):
        path = segment.path_of(directory, fault.sequence)
        state = CORRUPT if survey.corrupt else TORN
        reports.append(SegmentReport(path=path, state=state, offset=0, reason=fault.reason))
        reports.sort(key=lambda report: report.path)
    return reports


def _segment(facts: SegmentFacts, survey: Survey) -> SegmentReport:
    state, offset, reason = _verdict(facts, survey)
    first_index, last_index = facts.indexes or (None, None)
    first_term, last_term = facts.terms or (None, None)
    return SegmentReport(
        path=facts.path,
        state=state,
        first_index=first_index,
        last_index=last_index,
        first_term=first_term,
        last_term=last_term,
        records=facts.records,
        seals=facts.seals,
        bytes=facts.size,
        offset=offset,
        reason=reason,
    )


def _verdict(facts: SegmentFacts, survey: Survey) -> tuple[str, int | None, str | None]:
    fault = survey.fault
    if fault is None or facts.sequence < fault.sequence:
        return GOOD, None, None
    if facts.sequence == fault.sequence:
        return CORRUPT if survey.corrupt else TORN, fault.offset, fault.reason
    if survey.corrupt:
        return (GOOD, None, None) if facts.reason is None else (CORRUPT, facts.end, facts.reason)
    return TORN, 0, "follows a torn record: a start deletes it"


def _record_file(disk: Disk, path: str) -> FileReport:
    try:
        payload = record_file.load(disk, path)
    except Corruption as error:
        return FileReport(path, CORRUPT, error.reason)
    if payload is None:
        return FileReport(path, ABSENT, "never stored")
    return FileReport(path, GOOD, f"{len(payload)} bytes")


def _term_file(disk: Disk, path: str) -> FileReport:
    report = _record_file(disk, path)
    if report.state != GOOD:
        return report
    try:
        term = TermFile(disk, path)
    except Corruption as error:
        return FileReport(path, CORRUPT, error.reason)
    return FileReport(path, GOOD, f"term {term.term}, voted for {term.voted_for or 'nobody'}")


def _states(files: list[FileReport]) -> list[str]:
    return [report.state for report in files if report.state != ABSENT]


def _worst(states: list[str]) -> str:
    return max(states, key=[ABSENT, GOOD, TORN, CORRUPT].index, default=ABSENT)
