"""Requests of commands to whichever replica answers: the Python client, failing as a command does.

Only the replicas that were named are asked, and if none of them can be reached that
is an answer too: a person waits for it. A request that may have taken effect is repeated
only when the caller says that a repetition is harmless: a read, or a write with an
``Idempotency-Key``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import httpx2
import msgspec

from raftq.cli.failure import Exit, Failure
from raftq.cli.options import DEFAULT_URL
from raftq.client.drivers import CONNECT_TIMEOUT_S, BlockingDriver, in_words
from raftq.client.effects import Request
from raftq.client.errors import OutcomeUnknown, Refused, Unavailable, problem
from raftq.client.exchange import Options, Session
from raftq.client.replicas import Replicas, checked, split


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
    ) -> None:
        options = Options(
            timeout_s=timeout_s, try_timeout_s=timeout_s, discover=False, persistent=False
        )
        try:
            self._urls = [checked(url) for url in split(urls or ()) or [DEFAULT_URL]]
            replicas = Replicas(self._urls, None)
        except ValueError as error:
            raise Failure(str(error), Exit.USAGE) from None
        # Spreads clients in time; nobody could gain anything by guessing it.
        chance = random.random
        self._session = Session(replicas, options, clock=time.monotonic, chance=chance)
        self._driver = BlockingDriver(transport)
        self._transport = transport

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
        try:
            return Answer(*self._driver.run(steps))
        except Refused as refused:
            raise Failure(str(refused), Exit.FAILED) from None
        except Unavailable as unavailable:
            raise Failure(str(unavailable), Exit.UNREACHABLE) from None
        except OutcomeUnknown as unknown:
            raise Failure(str(unknown), Exit.UNKNOWN) from None

    def stream(
        self,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        silence_s: float,
    ) -> Iterator[tuple[str, str, str]]:
        """The blocks of server-sent events as they come: id, kind and data, or nothing.

        It ends as the stream does. What goes wrong is a Failure, and the next call
        goes to the next replica; ``silence_s`` without a word counts as that too.
        """
        url = self._urls[0]
        timeout = httpx2.Timeout(silence_s, connect=CONNECT_TIMEOUT_S)
        try:
            with (
                httpx2.Client(transport=self._transport) as http,
                http.stream(
                    "GET", url + path, params=query, headers=headers, timeout=timeout
                ) as response,
            ):
                if response.status_code != 200:
                    self._refuse_stream(response.status_code, response.read())
                yield from _blocks(response.iter_lines())
        except httpx2.TransportError as error:
            self._urls.append(self._urls.pop(0))
            raise Failure(f"{url} broke off: {in_words(error)}", Exit.UNREACHABLE) from None

    def _refuse_stream(self, status: int, body: bytes) -> None:
        refused = Refused(status, problem(body))
        if status == 503:
            self._urls.append(self._urls.pop(0))
            raise Failure(str(refused), Exit.UNREACHABLE)
        raise Failure(str(refused))

    def close(self) -> None:
        """Close the connections."""
        self._driver.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _blocks(lines: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    position, name, data = "", "", ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "id":
            position = value
        elif field == "event":
            name = value
        elif field == "data":
            data = value
        elif not line:
            yield position, name, data
            position, name, data = "", "", ""
