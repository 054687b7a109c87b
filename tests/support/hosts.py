"""Hosts in one machine: network namespaces on one bridge, each with a small disk of its own.

A host has the one address that its node binds; the bridge has one too, so that clients in
the root namespace reach every host whatever the hosts think of each other. Network faults
are rules in the receiver, between hosts only. Everything carries one prefix and belongs to
whoever holds the lock: what an earlier run left behind is found by it and removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

PREFIX = "rqchaos"  # Of namespaces, links, mounts and directories; a link's name has 15 places.
BRIDGE = f"{PREFIX}-br"
NETWORK = "10.77.0"
BRIDGE_ADDRESS = f"{NETWORK}.254"
LINK = "net0"  # The host's end of its cable.
DISK_BYTES = 192 << 20
NAMESPACES = Path("/run/netns")
LOCK_PATH = Path(tempfile.gettempdir()) / f"{PREFIX}.lock"
GONE_TIMEOUT_S = 10.0
BALLAST_CHUNK = 1 << 16
# Tool -> the Debian package that has it.
TOOLS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "nft": "nftables",
    "strace": "strace",
    "nsenter": "util-linux",
    "mount": "mount",
}


class Busy(Exception):
    """Another run has the hosts."""


class HostsFailed(Exception):
    """The machine did not do what was asked of it."""


class Host(NamedTuple):
    """One host."""

    name: str
    address: str
    namespace: str
    disk: Path

    @property
    def enter(self) -> list[str]:
        """What to put before a command to run it there; the process keeps its id."""
        return ["nsenter", f"--net={NAMESPACES / self.namespace}"]

    @property
    def ballast(self) -> Path:
        return self.disk / "ballast"

    def fill_disk(self) -> None:
        """Leave no free byte; again whenever something has been freed."""
        # Unbuffered: what a buffer still holds would be written, and fail, at the close.
        with self.ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(BALLAST_CHUNK))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def empty_disk(self) -> None:
        self.ballast.unlink(missing_ok=True)


class Hosts:
    """The named hosts, and a directory for what goes with them, while the ``with`` block lasts."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._hosts: dict[str, Host] = {}
        self._lock: int | None = None

    def __enter__(self) -> Self:
        self._lock = locked()
        try:
            sweep()
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def close(self) -> None:
        """Remove everything, processes in the namespaces included."""
        if self._lock is not None:
            try:
                sweep()
            finally:
                self.abandon()

    def abandon(self) -> None:
        """Leave everything behind, as a run that is killed does."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Faults between hosts; each lasts until ``heal``.

    def drop(self, receiver: str, senders: Iterable[str]) -> None:
        """The receiver hears nothing from the senders."""
        self._rules(receiver, senders, "drop")

    def reject(self, receiver: str, senders: Iterable[str]) -> None:
        """The receiver answers whatever comes from the senders with a reset."""
        self._rules(receiver, senders, "meta l4proto tcp reject with tcp reset")

    def lose(self, receiver: str, senders: Iterable[str], percent: int) -> None:
        """The receiver misses that share of the senders' packets, at random."""
        self._rules(receiver, senders, f"numgen random mod 100 <= {percent - 1} drop")

    def limit(self, name: str, rate: str) -> None:
        """The host sends no faster than that, to clients too; ``1mbit`` for example."""
        shape = ["tbf", "rate", rate, "burst", "10kb", "latency", "50ms"]
        run([*self[name].enter, "tc", "qdisc", "replace", "dev", LINK, "root", *shape])

    def heal(self) -> None:
        """All links are as they were."""
        for host in self:
            run([*host.enter, "nft", "flush", "chain", "inet", "faults", "in"])
            # There may be none to delete, which is as good.
            run([*host.enter, "tc", "qdisc", "del", "dev", LINK, "root"], check=False)

    def _rules(self, receiver: str, senders: Iterable[str], verdict: str) -> None:
        for sender in senders:
            if sender != receiver:
                rule = f"add rule inet faults in ip saddr {self[sender].address} {verdict}"
                run([*self[receiver].enter, "nft", rule])

    def _build(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-"))
        self._hosts = {
            name: Host(name, f"{NETWORK}.{n}", f"{PREFIX}-{name}", self.directory / name / "disk")
            for n, name in enumerate(self._names, start=1)
        }
        run(["ip", "link", "add", BRIDGE, "type", "bridge"])
        run(["ip", "address", "add", f"{BRIDGE_ADDRESS}/24", "dev", BRIDGE])
        run(["ip", "link", "set", BRIDGE, "up"])
        for host in self:
            self._plug_in(host)
            host.disk.mkdir(parents=True)
            size = f"size={DISK_BYTES}"
            run(["mount", "-t", "tmpfs", "-o", size, host.namespace, str(host.disk)])

    def _plug_in(self, host: Host) -> None:
        name = host.namespace
        run(["ip", "netns", "add", name])
        run(["ip", "link", "add", name, "type", "veth", "peer", "name", LINK, "netns", name])
        run(["ip", "link", "set", name, "master", BRIDGE, "up"])
        inside = ["ip", "-netns", name]
        run([*inside, "address", "add", f"{host.address}/24", "dev", LINK])
        for link in ("lo", LINK):
            run([*inside, "link", "set", link, "up"])
        run([*host.enter, "nft", "add table inet faults"])
        chain = "add chain inet faults in { type filter hook input priority 0; }"
        run([*host.enter, "nft", chain])


def unavailable() -> str | None:
    """Why there can be no hosts here, or nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = missing_packages()
    if missing:
        return f"missing: apt-get install {' '.join(missing)}"
    probe = f"{PREFIX}-probe-{os.getpid()}"
    try:
        run(["ip", "netns", "add", probe])
    except HostsFailed as error:
        return str(error)
    enter = ["nsenter", f"--net={NAMESPACES / probe}"]
    try:
        run([*enter, "nft", "add table inet faults"])
    except HostsFailed as error:
        return str(error)
    finally:
        run(["ip", "netns", "del", probe])
    return None


def missing_packages() -> list[str]:
    """Debian packages whose tools are not there."""
    return sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})


def locked() -> int:
    """The lock over all hosts of this machine, as a file descriptor; Busy if it is taken."""
    # Not inheritable: a node that outlives its run must not hold the lock.
    descriptor = os.open(LOCK_PATH, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Busy("another run on hosts of this machine is under way") from None
    return descriptor


def sweep() -> None:
    """Remove all that carries the prefix. Only for who holds the lock."""
    for namespace in _namespaces():
        _end_processes(namespace)
        run(["ip", "netns", "del", namespace])
    for link in _links():
        # Deleting a namespace deletes its cables, both ends, a moment later.
        run(["ip", "link", "del", link], check=False)
    for mounted in _mounts():
        run(["umount", "--lazy", mounted])
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}-*"):
        shutil.rmtree(directory, ignore_errors=True)


def leftovers() -> list[str]:
    """Everything there is that ``sweep`` would remove."""
    return [*_namespaces(), *_links(), *_mounts()]


def _namespaces() -> list[str]:
    found = NAMESPACES.iterdir() if NAMESPACES.exists() else iter(())
    probe = f"{PREFIX}-probe-"  # Somebody else's question, gone in a moment.
    return [
        path.name
        for path in found
        if path.name.startswith(f"{PREFIX}-") and not path.name.startswith(probe)
    ]


def _links() -> list[str]:
    links = json.loads(run(["ip", "-json", "link"]))
    return [link["ifname"] for link in links if link["ifname"].startswith(f"{PREFIX}-")]


def _mounts() -> list[str]:
    mounts = [line.split(" ") for line in Path("/proc/mounts").read_text().splitlines()]
    return [where for source, where, *_ in mounts if source.startswith(f"{PREFIX}-")]


def _end_processes(namespace: str) -> None:
    """Kill what runs in a namespace of ours, and wait until it is gone."""
    give_up_s = time.monotonic() + GONE_TIMEOUT_S
    while processes := run(["ip", "netns", "pids", namespace]).split():
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        if time.monotonic() > give_up_s:
            raise HostsFailed(f"processes in {namespace} cannot be killed: {processes}")
        time.sleep(0.02)


def run(command: Sequence[str], *, check: bool = True) -> str:
    """What a tool prints; HostsFailed with its complaint."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if check and done.returncode != 0:
        raise HostsFailed(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout
