from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import msgspec

from raftq import logs
from raftq.clock import AsyncioRuntime
from raftq.config import Config
from raftq.metrics import Metrics
from raftq.transport.configured import network


class Handler:
    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def connected(self, peer: str) -> None:
        pass

    def disconnected(self, peer: str) -> None:
        pass

    def received(self, peer: str, frame: bytes) -> None:
        self.frames.append(frame)


def config(name: str, ports: dict[str, int]) -> Config:
    members = [
        {"name": each, "peer": f"127.0.0.1:{port}", "api_url": f"http://{each}"}
        for each, port in ports.items()
    ]
    return msgspec.convert(
        {
            "node": {"name": name, "peer_listen": f"127.0.0.1:{ports[name]}"},
            "cluster": {"name": "east", "secret": "sixteen bytes or more", "members": members},
        },
        Config,
    )


def test_two_nodes_with_a_configuration_talk_and_count(
    free_ports: tuple[int, int],
) -> None:
    ports = dict(zip(("n1", "n2"), free_ports, strict=True))

    async def scenario() -> None:
        errors: list[BaseException] = []
        handlers = {name: Handler() for name in ports}
        meters = {name: Metrics(peers={"n1": "a", "n2": "b"}) for name in ports}
        with ThreadPoolExecutor(1) as executor:
            runtime = AsyncioRuntime(asyncio.get_running_loop(), executor, errors.append)
            networks = {
                name: network(
                    config(name, ports),
                    runtime=runtime,
                    fatal=errors.append,
                    log=logs.logger("transport"),
                    meter=meters[name],
                    tls=None,
                )
                for name in ports
            }
            for name, each in networks.items():
                each.start(handlers[name])
            async with asyncio.timeout(10):
                while not networks["n1"].send("n2", b"hello"):  # noqa: ASYNC110  # Nothing to await.
                    await asyncio.sleep(0.005)
                while not handlers["n2"].frames:  # noqa: ASYNC110  # Nothing to await.
                    await asyncio.sleep(0.005)
            for each in networks.values():
                each.close()
            for each in networks.values():
                await each.wait_closed()
        assert (handlers["n2"].frames, errors) == ([b"hello"], [])
        assert (meters["n1"].frames_sent, meters["n2"].frame_bytes_received) == (1, 5)
        assert meters["n1"].frames_dropped > 0

    asyncio.run(scenario())
