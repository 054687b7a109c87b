"""What a message costs inside a node: one part of its way at a time, without the others.

No network and no client: what is left is our own code, the store and the disk, in
microseconds of CPU a message. Medians of rounds that take turns, so that a machine
that is slower for a while slows all of them. Entries are decoded before, as the leader has them.
Calls are counted, too, which does not depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import NamedTuple

import uvloop
from rich.table import Table

from api.app import create
from loadtests import ROOT
from loadtests.bench import calls, exchanges, machine
from loadtests.bench.records import Record, Records, console
from loadtests.bench.together import Together
from local_service import Instant
from raftq.clock import AsyncioRuntime
from raftq.disk import OsDisk
from raftq.kernel_syncs import KernelSyncs
from raftq.node import settle_garbage_collector
from raftq.stores.rocks import Rocks
from raftq.workers import Workers
from statemachine import commands
from statemachine.commands import (
    Ack,
    Batch,
    Claim,
    Command,
    Enqueue,
    Entry,
    NewMessage,
    PartAck,
    PartPut,
    Transact,
    TransactAndClaim,
)
from statemachine.machine import Machine
from statemachine.outcomes import Claimed, Outcome, SessionOpened
from steps import claim_of
from wires import Wire, ask, connected

ACCOUNT, QUEUE = "bench", "inside"
BODY_BYTES = 1024
ROUNDS = 30
REQUESTS = 200  # Of a round, one after the other on a connection.
CLAIM = b'"claim":"%s"' % exchanges.NO_CLAIM.encode()
SYNCS = 100
ENTRIES = 20
US = 1e6


class Shape(NamedTuple):
    """Of an entry: how many commands, of how many messages each."""

    commands: int
    messages: int


SHAPES = (Shape(1, 1), Shape(16, 1), Shape(1, 64))


class Requests:
    """From the bytes of a request to those of its answer: puts, and transactions that claim too."""

    def __init__(self) -> None:
        self._intake = connected(create(Instant()), Wire())
        in_one = exchanges.Transactions(QUEUE, 1, BODY_BYTES)
        in_one.first()
        again = in_one.next(exchanges.OK, CLAIM)
        assert again is not None
        self._requests = {
            "HTTP and API": exchanges.put_request(QUEUE, 1, BODY_BYTES),
            "HTTP and API, in one": again,
        }

    async def round(self) -> list[Record]:
        """A row for each."""
        return [await self._row(part, request) for part, request in self._requests.items()]

    async def calls(self) -> list[Record]:
        """The same, counted."""
        rows = []
        for part, request in self._requests.items():
            await ask(self._intake, request)  # Once before it counts.
            counts = Counter[str]()
            with calls.counted(counts):
                await ask(self._intake, request)
            rows.append(calls.row(part, counts, 1))
        return rows

    async def _row(self, part: str, request: bytes) -> Record:
        began_s = time.thread_time()
        for _ in range(REQUESTS):
            await ask(self._intake, request)
        return {"part": part, "us": (time.thread_time() - began_s) / REQUESTS * US}


class Applying:
    """Entries of one shape against a store in a directory: puts, then claims, then acks.

    Between these are transactions, each of which acks, puts, and claims what is next.
    """

    def __init__(self, directory: Path, shape: Shape) -> None:
        self._shape = shape
        self._store = Rocks(OsDisk(), str(directory))
        self._machine = Machine(self._store.kv)
        self._index = self._seq = 0
        (opened,) = self._apply(Batch(0, 0, 0, (commands.OpenSession("n1/0"),)))
        assert isinstance(opened, SessionOpened)
        self._session = opened.session
        message = NewMessage(b"x" * BODY_BYTES, "application/json")
        self._enqueue = Enqueue(ACCOUNT, QUEUE, (message,) * shape.messages)

    def round(self) -> Iterator[Record]:
        """A row for each of put, claim, all three in one, and ack."""
        count, claim = self._shape.commands, Claim(ACCOUNT, QUEUE, self._shape.messages)
        puts: list[Command] = [self._enqueue] * count
        claims: list[Command] = [claim] * count
        yield self._row("put", [puts] * ENTRIES)
        held: list[list[int]] = []
        yield self._row("claim", [claims] * ENTRIES, held)
        part = PartPut(QUEUE, self._enqueue.messages)
        in_one: list[list[Command]] = [
            [
                TransactAndClaim(Transact(ACCOUNT, (PartAck(QUEUE, one),), (part,)), claim)
                for one in each
            ]
            for each in held
        ]
        held = []
        yield self._row("in one", in_one, held)
        yield self._row("ack", [[Ack(ACCOUNT, QUEUE, one) for one in each] for each in held])

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()

    def _row(
        self, kind: str, entries: list[list[Command]], held: list[list[int]] | None = None
    ) -> Record:
        """``held`` gets the claims of each entry."""
        spent_s = 0.0
        for each in entries:
            self._seq += 1
            batch = Batch(self._session, self._seq, self._seq, tuple(each))
            began_s = time.thread_time()
            outcomes = self._apply(batch)
            spent_s += time.thread_time() - began_s
            if held is not None:
                given = [claim_of(outcome) for outcome in outcomes]
                held.append([one.claim for one in given if isinstance(one, Claimed)])
        messages = len(entries) * self._shape.commands * self._shape.messages
        part = f"apply {kind}, {self._shape.commands} x {self._shape.messages} an entry"
        return {"part": part, "us": spent_s / messages * US}

    def _apply(self, batch: Batch) -> tuple[Outcome, ...]:
        self._index += 1
        entry = Entry(commands.ENTRY_VERSION, self._index, (batch,))
        (result,) = self._machine.apply(self._index, 1, entry)
        self._machine.end_round()
        self._store.commit()
        self._machine.take_woken()
        self._machine.take_noted()
        return result.outcomes


class Syncing:
    """An fdatasync of a kilobyte: in place, by a thread, and by the kernel.

    A node leaves it to the kernel, and to a thread where the kernel does not do it.
    """

    def __init__(self, directory: Path) -> None:
        loop = asyncio.get_running_loop()
        self._ways = {"sync in place": self._in_place, "sync by a thread": self._by_a_thread}
        begin_sync = None
        with suppress(OSError):
            begin_sync = KernelSyncs(loop).begin
            self._ways["sync by the kernel"] = self._by_the_kernel
        self._file = OsDisk(begin_sync).open(str(directory / "synced"), create=True)
        self._file.truncate(SYNCS * BODY_BYTES)
        self._workers = Workers("sync")
        self._runtime = AsyncioRuntime(loop, self._workers, _give_up)

    async def round(self) -> list[Record]:
        """A row for each."""
        return [await self._row(part, sync) for part, sync in self._ways.items()]

    def close(self) -> None:
        """End the thread."""
        self._workers.shutdown()
        self._file.close()

    async def _row(self, part: str, sync: Callable[[], asyncio.Future[None]]) -> Record:
        began_s, cpu_s = time.perf_counter(), time.process_time()
        for number in range(SYNCS):
            self._file.pwrite(bytes(BODY_BYTES), number * BODY_BYTES)
            await sync()
        return {
            "part": part,
            "us": (time.process_time() - cpu_s) / SYNCS * US,
            "wall_us": (time.perf_counter() - began_s) / SYNCS * US,
        }

    def _in_place(self) -> asyncio.Future[None]:
        self._file.sync()
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def _by_a_thread(self) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._runtime.offload(self._file.sync, lambda _result, error: _settle(done, error))
        return done

    def _by_the_kernel(self) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        assert self._file.begin_sync(lambda error: _settle(done, error))
        return done


def _settle(done: asyncio.Future[None], error: BaseException | None) -> None:
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


def _give_up(error: BaseException) -> None:
    raise error


def main() -> int:
    """The exit code."""
    asked = _arguments()
    records = Records(asked.out, "inside")
    records.add({"kind": "run", "body_bytes": BODY_BYTES, **machine.describe(ROOT)})
    with tempfile.TemporaryDirectory(prefix="raftq-inside-", dir=asked.dir) as directory:
        rows, called = uvloop.run(_rounds(Path(directory), asked.rounds))
    for part in dict.fromkeys(row["part"] for row in rows):
        of_part = [row for row in rows if row["part"] == part]
        record: Record = {"kind": "inside", "part": part}
        for name in ("us", "wall_us"):
            if name in of_part[0]:
                record[name] = round(median(row[name] for row in of_part), 2)
        records.add(record)
    for row in called:
        records.add({"kind": "calls", **row})
    _show(records.kept)
    return 0


async def _rounds(directory: Path, rounds: int) -> tuple[list[Record], list[Record]]:
    """What was timed, and what was counted."""
    requests, syncing = Requests(), Syncing(directory)
    together = Together(directory / "together")
    applying = [Applying(directory / str(number), shape) for number, shape in enumerate(SHAPES)]
    rows: list[Record] = []
    settle_garbage_collector()
    for number in range(rounds + 1):
        found = [*await requests.round(), *together.round(), *await syncing.round()]
        for each in applying:
            found.extend(each.round())
        if number:  # The first is to warm up.
            rows.extend(found)
    called = [*await requests.calls(), *together.calls()]
    together.close()
    syncing.close()
    for each in applying:
        each.close()
    return rows, called


def _show(kept: list[Record]) -> None:
    table = Table(title="inside a node, a message of 1 KiB", title_justify="left")
    for column in ("part", "CPU, us", "time, us"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for one in kept:
        if one["kind"] == "inside":
            wall = f"{one['wall_us']:,.1f}" if "wall_us" in one else ""
            table.add_row(one["part"], f"{one['us']:,.1f}", wall)
    console().print(table)
    called = Table(title="how many calls that is", title_justify="left")
    for column in ("part", "of Python", "others", "that encode or decode"):
        called.add_column(column, justify="left" if column == "part" else "right")
    for one in kept:
        if one["kind"] == "calls":
            called.add_row(one["part"], *[f"{one[kind]:,.1f}" for kind in calls.KINDS])
    console().print(called)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.inside", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each part (%(default)s)")
    parser.add_argument("--out", type=Path, help="the JSON lines; default: a file in reports/")
    parser.add_argument("--dir", type=Path, help="a directory on the disk to measure")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
