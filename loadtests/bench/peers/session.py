"""A connection that asks and waits: to set up what is measured, and to greet before a load."""

from __future__ import annotations

import abc
from types import TracebackType
from typing import ClassVar, Self

from loadtests.bench.client import Framing, connect

RECEIVE_BYTES = 1 << 16


class Session(abc.ABC):
    """A context manager that hangs up; a load goes on with ``socket`` instead."""

    framing: ClassVar[type[Framing]]

    def __init__(self, port: int, timeout_s: float | None = None) -> None:
        """``timeout_s``: of each wait; None: that of connecting."""
        self.socket = connect(port)
        if timeout_s is not None:
            self.socket.settimeout(timeout_s)
        self._framing = self.framing()
        try:
            self.greet()
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    @abc.abstractmethod
    def greet(self) -> None:
        """Until it is let in."""

    def received(self) -> tuple[int, bytes]:
        """The next answer; ``OSError`` if there is none."""
        while True:
            data = self.socket.recv(RECEIVE_BYTES)
            if not data:
                raise ConnectionError("the server hung up")
            if (answer := self._framing.feed(data)) is not None:
                return answer
