"""A connection that asks and waits: to set up what is measured, and to greet before a load."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import ClassVar, Self

from loadtests.bench.client import Framing, connect

OK = 0
"""All that there is to say of what has no status."""
RECEIVE_BYTES = 1 << 16


class WholeFraming:
    """As many pieces of a protocol as are whole: see ``Framing``."""

    def __init__(self, pieces: Callable[[bytes], Iterable[tuple[int, int, int]]]) -> None:
        """``pieces``: those that are whole, one behind the other; the last number is the end."""
        self._pieces = pieces
        self._buffer = b""

    def feed(self, data: bytes) -> tuple[int, bytes] | None:
        """See ``Framing``."""
        data = self._buffer + data
        whole = max((end for _, _, end in self._pieces(data)), default=0)
        self._buffer = data[whole:]
        return (OK, data[:whole]) if whole else None


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
