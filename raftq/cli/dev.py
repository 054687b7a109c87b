"""``raftq dev``: a cluster of three in one terminal, to try things out.

Each node is a process of its own, as in production, with a configuration and a
data directory under ``--data``; what was in the queues is there again at the next
start.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from raftq.cli import devfiles, session
from raftq.cli.children import Child
from raftq.cli.devfiles import DevNode
from raftq.cli.failure import Exit

READY_WITHIN_S = 60.0
POLL_S = 0.1
STOP_WITHIN_S = 15.0
COLOURS = {"n1": 36, "n2": 33, "n3": 35}  # Cyan, yellow, magenta.
BASE_PORT_MAX = 65_535 - devfiles.PEER_PORT_OFFSET - len(devfiles.ZONES)


def dev(
    data: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("data"),
    base_port: Annotated[
        int,
        typer.Option(min=1, max=BASE_PORT_MAX, help="First of three API ports; peers: + 1000."),
    ] = 8001,
    engine: Annotated[str, typer.Option(help="rocksdb, sqlite or memory.")] = "rocksdb",
    log_format: Annotated[str, typer.Option(help="human or json.")] = "human",
    keys: Annotated[
        bool, typer.Option("--keys", help="Ask clients for keys, as a cluster in earnest does.")
    ] = False,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="Override a key on all nodes, as section.key=value."),
    ] = None,
) -> None:
    """Run three nodes in three zones until Ctrl-C."""
    cluster = devfiles.nodes(base_port)
    devfiles.check_ports(cluster)
    paths = devfiles.write(data, cluster, engine=engine, log_format=log_format, keys=keys)
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    printer = _Printer(coloured)
    environment = _environment(os.environ, coloured)
    children = []
    for node, path in zip(cluster, paths, strict=True):
        command = [sys.executable, "-m", "raftq", "serve", "--config", str(path.absolute())]
        command += [part for text in sets or () for part in ("--set", text)]
        children.append(Child(node.name, command, environment, printer.line))
    raise typer.Exit(asyncio.run(_run(cluster, children, printer, _session(cluster, data, keys))))


async def _run(
    cluster: Sequence[DevNode], children: Sequence[Child], printer: _Printer, text: str
) -> int:
    """Until a signal, or until no child is left; the exit code."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def stop() -> None:
        for child in children:
            # The second time somebody asks, the nodes get no more time.
            (child.kill if stopped.is_set() else child.stop)()
        stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    running = asyncio.ensure_future(_all(children))
    waiting = asyncio.ensure_future(stopped.wait())
    announcing = asyncio.ensure_future(_announce(cluster, printer, text))
    ending: list[asyncio.Task[Any]] = [running, waiting]
    await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
    announcing.cancel()
    waiting.cancel()
    await asyncio.wait([running], timeout=STOP_WITHIN_S)
    for child in children:
        child.kill()
    await running
    return Exit.FAILED if any(child.gave_up for child in children) else Exit.DONE


async def _all(children: Sequence[Child]) -> None:
    await asyncio.gather(*(child.run() for child in children))


async def _announce(cluster: Sequence[DevNode], printer: _Printer, text: str) -> None:
    """Print the session as soon as every node serves."""
    clock = asyncio.get_running_loop().time
    deadline_s = clock() + READY_WITHIN_S
    waiting = list(cluster)
    while waiting and clock() < deadline_s:
        waiting = [node for node in waiting if not await _ready(node)]
        await asyncio.sleep(POLL_S)
    if waiting:
        names = ", ".join(node.name for node in waiting)
        printer.note(f"Not ready after {READY_WITHIN_S:.0f} s: {names}. See the lines above.")
        return
    where = "\n".join(f"  {node.name}  zone {node.zone}  {node.api_url}" for node in cluster)
    printer.note(f"Three nodes are ready. Ctrl-C stops them.\n\n{where}\n\n{text}")


def _session(cluster: Sequence[DevNode], data: Path, keys: bool) -> str:
    """What to do with the cluster, and who may."""
    urls = [node.api_url for node in cluster]
    if keys:
        return session.text(urls, devfiles.key(data))
    note = "No keys are asked for: everybody on this machine may do everything (--keys: ask)."
    return f"{note}\n\n{session.text(urls)}"


async def _ready(node: DevNode) -> bool:
    """Whether /readyz answers 200; one small request needs no client."""
    try:
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection(devfiles.HOST, node.api_port)
            try:
                head = f"GET /readyz HTTP/1.1\r\nHost: {devfiles.HOST}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode())
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except OSError:
        return False


def _environment(environ: Mapping[str, str], coloured: bool) -> dict[str, str]:
    """The children's: without settings that cannot be the same for all three."""
    own = ("RAFTQ_NODE__", "RAFTQ_CLUSTER__")
    kept = {key: value for key, value in environ.items() if not key.startswith(own)}
    return {**kept, "PYTHONUNBUFFERED": "1", **({"FORCE_COLOR": "1"} if coloured else {})}


class _Printer:
    """One terminal for all: each line says which node it is from."""

    def __init__(self, coloured: bool) -> None:
        self._coloured = coloured

    def line(self, name: str, text: str) -> None:
        mark = f"\x1b[1;{COLOURS[name]}m{name}\x1b[0m" if self._coloured else name
        print(f"{mark} | {text}", flush=True)

    def note(self, text: str) -> None:
        print(f"\n{text}", flush=True)
