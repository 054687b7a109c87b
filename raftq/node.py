"""One node as a process: the replica, its transport and its HTTP server on one loop.

``run`` is what ``raftq serve`` calls. Whatever goes wrong inside the replica ends the
process at once (``Fatal``): a node that has failed once must not go on answering.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import resource
import signal
import socket
from collections.abc import Callable

import uvloop

import api.app
from api.access.upkeep import Upkeep
from api.webhooks.runner import Runner
from raftq import logs
from raftq.clock import AsyncioRuntime
from raftq.config import Config, NodeConfig, split_address
from raftq.disk import OsDisk
from raftq.kernel_syncs import KernelSyncs
from raftq.metrics import Metrics
from raftq.replica.replica import Replica
from raftq.service import NodeService
from raftq.serving.server import HttpServer
from raftq.stores.home import Home
from raftq.tls.certificates import Certificates
from raftq.transport import configured
from raftq.workers import Workers

EXIT_FATAL = 70  # EX_SOFTWARE
EXIT_START = 78  # EX_CONFIG: it never ran
POSTING_GRACE_S = 3.0
GC_ALLOCATIONS = 50_000
M_MMAP_THRESHOLD = -3  # malloc.h
LARGE_BYTES = 256 * 1024
OTHER_FILES = 1_000
"""Of stores and journals, and connections of peers."""


class Posting:
    """Posting messages, beside everything else: if it breaks, other nodes take it over."""

    def __init__(self, service: NodeService) -> None:
        self._runner = Runner(service)
        self._task = asyncio.get_running_loop().create_task(self._runner.run())
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Finish what is being posted, or give it back."""
        await self._runner.stop(POSTING_GRACE_S)
        self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logs.logger("webhooks").error("posting has ended", exc_info=error)


class KeyUpkeep:
    """The operator's first key and the keys' last use, beside everything else."""

    def __init__(self, service: NodeService) -> None:
        upkeep = Upkeep(service, _announce)
        self._task = asyncio.get_running_loop().create_task(upkeep.run())
        self._task.add_done_callback(self._ended)

    def stop(self) -> None:
        """What was not reported yet is not."""
        self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logs.logger("keys").error("the upkeep of keys has ended", exc_info=error)


class Beside:
    """All that a node does beside answering requests."""

    def __init__(self, service: NodeService) -> None:
        self._upkeep = KeyUpkeep(service)
        self._posting = Posting(service) if service.webhooks.enabled else None

    async def stop(self) -> None:
        """Nothing of it goes on after this."""
        self._upkeep.stop()
        if self._posting is not None:
            await self._posting.stop()


def _announce(token: str) -> None:
    """To standard output, and to no log."""
    print(
        "\nThe operator's key, which may everything. It is shown only this once, and stored "
        f"nowhere:\n\n  {token}\n",
        flush=True,
    )


def run(config: Config, *, bootstrap: bool = False) -> int:
    """Serve until SIGTERM or SIGINT; the exit status."""
    logs.configure(config.log.level, config.log.format, config.node.name)
    return uvloop.run(_serve(config, bootstrap=bootstrap))


async def _serve(config: Config, *, bootstrap: bool) -> int:
    log = logs.logger("node")
    loop = asyncio.get_running_loop()
    zones = {one.name: one.zone for one in config.cluster.members if one.name != config.node.name}
    metrics = Metrics(node=config.node.name, zone=config.node.zone, peers=zones)

    def fatal(error: BaseException) -> None:
        log.critical("fatal: this node stops at once", error=repr(error), exc_info=error)
        os._exit(EXIT_FATAL)

    workers = Workers("raftq")
    runtime = AsyncioRuntime(loop, workers, fatal=fatal)
    try:
        listener = _listen(config.node.api_listen)
        disk = _disk(loop)
        tls = Certificates(config, runtime=runtime, log=logs.logger("tls"), meter=metrics)
        network = configured.network(
            config,
            runtime=runtime,
            fatal=fatal,
            log=logs.logger("transport"),
            meter=metrics,
            tls=tls.peer,
        )
        replica = Replica(
            config,
            runtime=runtime,
            disk=disk,
            network=network,
            home=Home(disk, config.node.data_dir, config.storage.engine),
            meter=metrics,
            log=logs.logger("replica"),
            bootstrap=bootstrap,
        )
        service = NodeService(replica, config, metrics, runtime)
        server = _server(config, service, metrics, tls)
        replica.start()
        tls.start()
    except Exception as error:
        log.critical("cannot start", error=str(error), kind=type(error).__name__)
        log.debug("cannot start", exc_info=error)
        return EXIT_START
    serving = loop.create_task(server.serve(sockets=[listener]))
    beside = Beside(service)
    settle_garbage_collector()
    _allow_files(config.api.connections_max + OTHER_FILES)
    _say_that_it_serves(service, config.node)
    await _told_to_stop(loop, reload=tls.reload)
    log.info("stopping")
    await beside.stop()
    await _stopped(replica)
    server.should_exit = True
    await serving
    network.close()
    await network.wait_closed()
    runtime.close()
    workers.shutdown()
    replica.close()
    log.info("stopped")
    return 0


def _server(
    config: Config, service: NodeService, metrics: Metrics, tls: Certificates
) -> HttpServer:
    if tls.api is not None:
        _keep_large_blocks_apart()
    return HttpServer(
        api.app.create(service, names=config.api.frontends, origins=config.api.cors_origins),
        config.api,
        metrics,
        request_bytes_max=config.limits.request_bytes_max,
        tls=tls.api,
    )


def _disk(loop: asyncio.AbstractEventLoop) -> OsDisk:
    """Threads sync its files where the kernel is too old to, or a sandbox forbids it."""
    try:
        return OsDisk(KernelSyncs(loop).begin)
    except OSError as error:
        logs.logger("node").info("the kernel does not sync by itself, threads do", error=str(error))
        return OsDisk()


def _say_that_it_serves(service: NodeService, node: NodeConfig) -> None:
    log = logs.logger("node")
    log.info("serving", api=node.api_url, peers=node.peer_listen)
    if accounts := service.accounts_without_keys():
        log.error("master keys are missing: these accounts are not served", accounts=accounts)


async def _told_to_stop(loop: asyncio.AbstractEventLoop, *, reload: Callable[[], None]) -> None:
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, reload)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


async def _stopped(replica: Replica) -> None:
    stopped = asyncio.Event()
    replica.stop(stopped.set)
    await stopped.wait()


def _allow_files(wanted: int) -> None:
    """As many open files as the system lets us have: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most < wanted:
        warning = "the limit of open files is below what api.connections_max needs"
        logs.logger("node").warning(warning, most=most, wanted=wanted)


def settle_garbage_collector() -> None:
    """Do not walk what lives as long as the process; collect young garbage in larger lots.

    Requests in flight survive many small collections, and each of these costs as much as
    answering several requests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 20, 50)


def _keep_large_blocks_apart() -> None:
    """Have large blocks mapped by themselves, whatever was freed before.

    Under TLS uvloop has one for each connection, and uses a page or two of it. Once one was freed,
    glibc has them among all others (mallopt(3), ``M_MMAP_THRESHOLD``): each comes to lie on what
    the handshake before it needed for a moment, and keeps these 20 KiB from being used again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # Not every C library has it.
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def _listen(address: str) -> socket.socket:
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(4096)
    listener.setblocking(False)
    return listener
