"""Requests of commands to whichever replica answers: the Python client, failing as a command does.

Only the replicas that were named are asked, and if none of them can be reached that
is an answer too: a person waits for it. A request that may have taken effect is repeated
only when the caller says that a repetition is harmless: a read, or a write with an
``Idempotency-Key``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import httpx2
import msgspec

from raftq.cli.failure import Exit, Failure
from raftq.cli.options import DEFAULT_URL
from raftq.client.drivers import BlockingDriver
from raftq.client.effects import Request, Steps
from raftq.client.errors import OutcomeUnknown, Refused, Unavailable
from raftq.client.events import EventsCore
from raftq.client.exchange import Options, Session
from raftq.client.replicas import Replicas, split

T = TypeVar("T")


class Answer(msgspec.Struct, frozen=True):
    """A successful answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The decoded body."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise Failure("the answer is not JSON; is this the URL of a raftq API?") from None


class Client:
    """Requests to whichever replica answers, staying with the one that did."""

    def __init__(
        self,
        urls: Sequence[str] | None,
        timeout_s: float = 10.0,
        transport: httpx2.BaseTransport | None = None,
        key: str = "",
        ca_file: str | None = None,
    ) -> None:
        options = Options(
            timeout_s=timeout_s, try_timeout_s=timeout_s, discover=False, persistent=False
        )
        try:
            replicas = Replicas(split(urls or ()) or [DEFAULT_URL], None)
        except ValueError as error:
            raise Failure(str(error), Exit.USAGE) from None
        # Spreads clients in time; nobody could gain anything by guessing it.
        chance = random.random
        self._session = Session(replicas, options, clock=time.monotonic, chance=chance)
        try:
            self._driver = BlockingDriver(transport, key, ca_file)
        except OSError as error:
            raise Failure(f"{ca_file}: {error.strerror or error}", Exit.USAGE) from None

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
        wait_s: float = 0.0,
    ) -> Answer:
        """The answer, 204 included; everything else is a Failure.

        ``wait_s`` is how long the server itself may take on purpose.
        """
        request = Request(method, path, query or {}, headers or {}, body)
        steps = self._session.call(request, repeatable=repeatable, wait_s=wait_s)
        answer = self._run(steps)
        return Answer(answer.status, answer.headers, answer.body)

    def events(self, path: str, query: Mapping[str, str]) -> Iterator[Any]:
        """Events as they come, without end: a stream that breaks off is taken up elsewhere."""
        core = EventsCore(self._session, path, dict(query), msgspec.json.decode)
        while True:
            yield self._run(core.next())

    def _run(self, steps: Steps[T]) -> T:
        try:
            return self._driver.run(steps)
        except Refused as refused:
            raise Failure(str(refused), Exit.FAILED) from None
        except Unavailable as unavailable:
            raise Failure(str(unavailable), Exit.UNREACHABLE) from None
        except OutcomeUnknown as unknown:
            raise Failure(str(unknown), Exit.UNKNOWN) from None

    def close(self) -> None:
        """Close the connections."""
        self._driver.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
