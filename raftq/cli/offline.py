"""``raftq journal`` and ``raftq store``: what lies on the disk of a stopped node.

Both only read. What is damaged is named by file and offset, and the exit code is 1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from raftq.cli import output
from raftq.cli.failure import Exit, Failure
from raftq.cli.options import Json
from raftq.disk import OsDisk

if TYPE_CHECKING:
    from raftq.journal.inspect import Report, SegmentReport

journal_app = typer.Typer(help="Look at a stopped node's journal.", no_args_is_help=True)
store_app = typer.Typer(help="Check a stopped node's store.", no_args_is_help=True)

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The node's data_dir.")]
# As raftq.replica lays out a data directory.
JOURNAL, TERM, RECORD_FILES = "journal", "term", ("identity", "members", "CURRENT-DB")


@journal_app.callback()
def _journal() -> None:
    """Look at a stopped node's journal."""


@store_app.callback()
def _store() -> None:
    """Check a stopped node's store."""


@journal_app.command("inspect")
def inspect_journal(directory: Directory, as_json: Json = False) -> None:
    """Read every record. A torn tail is normal after a crash; the node cuts it off itself."""
    # Late, as are the engines below: the other commands need neither.
    from raftq.journal import inspect

    path = _existing(directory)
    report = inspect.inspect(
        OsDisk(),
        os.path.join(path, JOURNAL),
        term_file=os.path.join(path, TERM),
        record_files=[os.path.join(path, name) for name in RECORD_FILES],
    )
    if report.state == inspect.ABSENT:
        raise Failure(f"{path} holds no journal")
    if as_json:
        output.print_json(msgspec.to_builtins(report))
    else:
        columns = ("segment", "state", "first", "last", "terms", "records", "seals", "bytes")
        output.print_table(columns, [_segment_row(segment) for segment in report.segments])
        rows = [(os.path.basename(file.path), file.state, file.detail) for file in report.files]
        output.print_table(("file", "state", "content"), rows)
        typer.echo(
            f"{report.state}: entries {report.base_index + 1:,} to {report.last_index:,}, "
            f"last term {report.last_term}"
        )
    _end(list(_journal_faults(report, inspect.CORRUPT)))


@store_app.command("verify")
def verify_store(directory: Directory, as_json: Json = False) -> None:
    """Read every key and check every file's checksums."""
    from raftq.stores import verify
    from raftq.stores.store import StoreCorruption, StoreError
    from statemachine import digest, queries
    from statemachine.kv import Reader

    state: dict[str, int | str] = {}

    def read_state(reader: Reader) -> str:
        index, term, stamp_ms = queries.applied(reader)
        state.update(applied_index=index, applied_term=term, stamp_ms=stamp_ms)
        state["digest"] = digest.digest(reader).hex()
        return f"applied index {index}, term {term}"

    try:
        report = verify.verify(OsDisk(), _existing(directory), read_state)
    except StoreCorruption as error:
        raise Failure(f"damaged: {error}") from None
    except StoreError as error:
        raise Failure(str(error)) from None
    if as_json:
        output.print_json({**msgspec.to_builtins(report), **state, "good": report.good})
    else:
        output.print_table(
            ("file", "bytes"), [(file.name, file.size_bytes) for file in report.files]
        )
        typer.echo(
            f"{report.directory} ({report.engine}): {report.keys:,} keys, {report.bytes:,} bytes; "
            f"{report.machine or 'no state'}"
        )
        if "digest" in state:
            typer.echo(f"digest {state['digest']}")
    _end(
        [
            f"{os.path.join(report.directory, damage.file or '')}: {damage.reason}"
            for damage in report.damage
        ]
    )


def _segment_row(segment: SegmentReport) -> tuple[object, ...]:
    terms: object = segment.first_term
    if segment.last_term != segment.first_term:
        terms = f"{segment.first_term} to {segment.last_term}"
    return (
        os.path.basename(segment.path),
        segment.state,
        segment.first_index,
        segment.last_index,
        terms,
        segment.records,
        segment.seals,
        segment.bytes,
    )


def _journal_faults(report: Report, corrupt: str) -> Iterator[str]:
    for segment in report.segments:
        if segment.state == corrupt:
            yield f"{segment.path} at offset {segment.offset}: {segment.reason}"
    for file in report.files:
        if file.state == corrupt:
            yield f"{file.path}: {file.detail}"


def _existing(directory: Path) -> str:
    if not directory.is_dir():
        raise Failure(f"{directory}: no such directory", Exit.USAGE)
    return str(directory)


def _end(faults: list[str]) -> None:
    if faults:
        raise Failure("damaged:\n" + "\n".join(f"  {fault}" for fault in faults))
