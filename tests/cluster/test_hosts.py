"""What is done to hosts is felt on them, and nothing is left of them."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

import hosts
from chaos import NAMES
from cluster import until
from hosts import BALLAST_CHUNK, BRIDGE_ADDRESS, Host, Hosts

PORT = 7_001
CONNECT = (
    "import socket, sys\n"
    "try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.4).close()\n"
    "except OSError as error: print(type(error).__name__)\n"
    "else: print('connected')"
)
LISTEN = (
    "import socket, sys\n"
    "server = socket.create_server((sys.argv[1], int(sys.argv[2])))\n"
    "print('ready', flush=True)\n"
    "while True: server.accept()[0].close()"
)


@contextlib.contextmanager
def listening(host: Host) -> Iterator[None]:
    """Somebody there accepts connections."""
    command = [*host.enter, sys.executable, "-S", "-c", LISTEN, host.address, str(PORT)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


def connect(sender: Host, receiver: Host) -> str:
    command = [*sender.enter, sys.executable, "-S", "-c", CONNECT, receiver.address, str(PORT)]
    return hosts.run(command).strip()


def test_links_are_cut_reset_and_healed(group: Hosts) -> None:
    n1, n2, n3 = group
    with listening(n1), listening(n2):
        assert connect(n1, n2) == "connected"
        group.drop("n2", ["n1"])
        assert connect(n1, n2) == "TimeoutError"
        assert connect(n3, n2) == "connected"
        # A connection needs both directions, whoever begins it.
        assert connect(n2, n1) == "TimeoutError"
        socket.create_connection((n2.address, PORT), 5, (BRIDGE_ADDRESS, 0)).close()
        group.heal()
        assert connect(n1, n2) == "connected"
        group.reject("n2", ["n1"])
        assert connect(n1, n2) == "ConnectionRefusedError"
        group.heal()
        group.lose("n2", ["n1"], 100)
        assert connect(n1, n2) == "TimeoutError"
        group.limit("n1", "1mbit")
        group.heal()
        assert connect(n1, n2) == "connected"


def test_a_full_disk_takes_nothing_until_it_is_emptied(group: Hosts) -> None:
    host = group["n1"]
    freed = host.disk / "freed"
    freed.write_bytes(bytes(BALLAST_CHUNK))
    host.fill_disk()
    with pytest.raises(OSError, match="No space left"):
        (host.disk / "more").write_bytes(bytes(BALLAST_CHUNK))
    freed.unlink()
    host.fill_disk()
    with pytest.raises(OSError, match="No space left"):
        (host.disk / "more").write_bytes(bytes(BALLAST_CHUNK))
    host.empty_disk()
    (host.disk / "more").write_bytes(bytes(BALLAST_CHUNK))
    assert os.statvfs(group["n2"].disk).f_bavail > 0


def test_hosts_are_for_one_run_at_a_time(group: Hosts) -> None:
    with pytest.raises(hosts.Busy), Hosts(NAMES):
        pass
    assert hosts.leftovers(), "the second run must not sweep away the first"


def test_the_next_run_removes_what_a_killed_one_left(group: Hosts) -> None:
    left = len(hosts.leftovers())
    command = [*group["n1"].enter, sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    process = subprocess.Popen(command)
    until(
        lambda: hosts.run(["ip", "netns", "pids", group["n1"].namespace]) != "",
        "the process is in its namespace",
    )
    group.abandon()
    with Hosts(NAMES) as second:
        assert process.wait(10) == -9
        assert len(hosts.leftovers()) == left
        assert second.directory != group.directory
        assert not group.directory.exists()
