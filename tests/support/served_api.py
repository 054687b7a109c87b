"""The real API over a service in this process, on a port of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
import uvloop

import api.app
from api.ports import Service


@contextmanager
def served(service: Service) -> Iterator[str]:
    """Serve it from a thread; gives the URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        api.app.create(service), log_config=None, lifespan="off", ws="none", access_log=False
    )
    server = uvicorn.Server(config)
    # The loop that nodes have: asyncio's own would wait for acknowledgements (Nagle).
    runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)

    def serve() -> None:
        with runner:
            runner.run(server.serve([listener]))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
