"""A client of the API that knows several replicas: any of them will do for any request.

A request that reached nobody, or was answered 503 (nothing was done), goes to the
next replica. One that may have taken effect is repeated only when the caller says
that a repetition is harmless: a read, or a write with an ``Idempotency-Key``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec

from raftq.cli.failure import Exit, Failure
from raftq.cli.options import DEFAULT_URL

CONNECT_TIMEOUT_S = 3.0
PAUSE_S = 0.2  # Between two rounds over all replicas: an election takes about a second.


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


class Problem(msgspec.Struct, frozen=True):
    """What is read of an ``application/problem+json``."""

    title: str = ""
    detail: str = ""
    reason: str = ""


class Client:
    """Requests to whichever replica answers, staying with the one that did."""

    def __init__(
        self,
        urls: Sequence[str] | None,
        timeout_s: float = 10.0,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        given = [url for text in urls or () for url in text.split(",") if url.strip()]
        self._urls = [_checked(url) for url in given or [DEFAULT_URL]]
        self._timeout_s = timeout_s
        limits = httpx2.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
        self._http = httpx2.Client(timeout=limits, transport=transport)

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
        deadline_s = time.monotonic() + self._timeout_s + wait_s
        read_s = httpx2.Timeout(self._timeout_s + wait_s, connect=self._http.timeout.connect)
        while True:
            failures = []
            for _ in range(len(self._urls)):
                request = self._http.build_request(
                    method,
                    self._urls[0] + path,
                    params=query or None,
                    content=body,
                    headers=headers,
                    timeout=read_s,
                )
                outcome = self._try(request, repeatable)
                if isinstance(outcome, Answer):
                    return outcome
                failures.append(outcome)
                self._urls.append(self._urls.pop(0))
            hopeless = all(failure.unreached for failure in failures)
            if hopeless or time.monotonic() + PAUSE_S >= deadline_s:
                raise Failure("; ".join(str(f) for f in failures), failures[-1].code)
            time.sleep(PAUSE_S)

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
        timeout = httpx2.Timeout(silence_s, connect=self._http.timeout.connect)
        try:
            with self._http.stream(
                "GET", url + path, params=query, headers=headers, timeout=timeout
            ) as response:
                if response.status_code != 200:
                    response.read()
                    self._refuse_stream(response)
                yield from _blocks(response.iter_lines())
        except httpx2.TransportError as error:
            self._urls.append(self._urls.pop(0))
            raise Failure(f"{url} broke off: {_words(error)}", Exit.UNREACHABLE) from None

    def _refuse_stream(self, response: httpx2.Response) -> None:
        if response.status_code == 503:
            self._urls.append(self._urls.pop(0))
            raise Failure(_problem(response), Exit.UNREACHABLE)
        raise Failure(_problem(response))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _try(self, request: httpx2.Request, repeatable: bool) -> Answer | _Attempt:
        """The answer, or why another replica should be asked; raises if none should."""
        url = self._urls[0]
        try:
            response = self._http.send(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            return _Attempt(f"cannot reach {url}: {_words(error)}", Exit.UNREACHABLE, True)
        except httpx2.TransportError as error:
            attempt = _Attempt(f"{url} broke off: {_words(error)}", Exit.UNKNOWN)
            if repeatable:
                return attempt
            raise Failure(f"{attempt}; it may have happened or not", Exit.UNKNOWN) from None
        if response.status_code < 300:
            return Answer(response.status_code, response.headers, response.content)
        problem = _problem(response)
        if response.status_code == 503:
            return _Attempt(f"{url}: {problem}", Exit.UNREACHABLE)
        if response.status_code == 504 and repeatable:
            return _Attempt(f"{url}: {problem}", Exit.UNKNOWN)
        raise Failure(problem, Exit.UNKNOWN if response.status_code == 504 else Exit.FAILED)


class _Attempt(Failure):
    """One replica's failure that leaves the others to be tried."""

    def __init__(self, message: str, code: Exit, unreached: bool = False) -> None:
        super().__init__(message, code)
        self.unreached = unreached


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


def _checked(url: str) -> str:
    parts = urlsplit(url.strip())
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise Failure(f'"{url}" is not a URL such as {DEFAULT_URL}', Exit.USAGE)
    return url.strip().rstrip("/")


def _words(error: httpx2.TransportError) -> str:
    """The operating system's reason, without the layers it came through."""
    cause: BaseException = error
    while (cause.__cause__ or cause.__context__) is not None:
        cause = cause.__cause__ or cause.__context__ or cause
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return str(error) or type(error).__name__


def _problem(response: httpx2.Response) -> str:
    """Title, detail and reason in one line."""
    try:
        problem = msgspec.json.decode(response.content, type=Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        problem = Problem()
    if not problem.title:
        return f"HTTP {response.status_code} {response.reason_phrase}"
    detail = f": {problem.detail}" if problem.detail else ""
    return f"{problem.title}{detail} ({problem.reason})"
