"""The two drivers: they perform the effects of the core, by blocking or by awaiting.

``blocking`` and ``awaiting`` turn an operation of the core, a method that gives
``Steps``, into a method of the public classes, with the operation's own signature.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar, assert_never

import httpx2

from raftq.client.answers import MessageId
from raftq.client.effects import (
    Answer,
    Broken,
    Effect,
    Open,
    Opened,
    Pause,
    Receive,
    Reply,
    Request,
    Resolve,
    Send,
    Shut,
    Spawn,
    Steps,
    T,
    Wait,
)

P = ParamSpec("P")
U = TypeVar("U")

CONNECT_TIMEOUT_S = 1.0
HTTP_OK = 200
JOIN_TIMEOUT_S = 5.0
# Long polls hold a connection each. Idle ones are given up before a server does so.
LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=4.0)
_UNREACHED = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.UnsupportedProtocol,
)


class BlockingDriver:
    """Runs steps in the thread that asks for it, any number of threads at a time."""

    def __init__(
        self,
        transport: httpx2.BaseTransport | None = None,
        key: str = "",
        ca_file: str | None = None,
    ) -> None:
        self._http = httpx2.Client(
            transport=transport, limits=LIMITS, headers=_bearing(key), verify=_trust(ca_file)
        )
        # One generator at a time runs; they wait outside. This is what makes the core as
        # free of races here as it is in an event loop.
        self._turn = threading.RLock()
        self._jobs: set[threading.Thread] = set()

    def run(self, steps: Steps[T]) -> T:
        """What the steps return."""
        reply: Reply | None = None
        try:
            while True:
                with self._turn:
                    effect = steps.send(reply)
                reply = self._perform(effect)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            with self._turn:
                steps.close()

    def new_event(self) -> threading.Event:
        """For ``Wait``."""
        return threading.Event()

    def new_future(self) -> concurrent.futures.Future[MessageId]:
        """For ``Resolve``."""
        return concurrent.futures.Future()

    def close(self) -> None:
        """Wait for what runs in the background, which was told to end; close connections."""
        for job in list(self._jobs):
            if job is not threading.current_thread():
                job.join(JOIN_TIMEOUT_S)
        self._http.close()

    def _perform(self, effect: Effect) -> Reply | None:
        match effect:
            case Send():
                return self._send(effect)
            case Open() | Receive() | Shut():
                return self._streaming(effect)
            case Pause(seconds):
                time.sleep(seconds)
            case Wait(event, timeout_s):
                assert isinstance(event, threading.Event)
                event.wait(timeout_s)
            case Spawn(steps):
                self._spawn(steps)
            case Resolve(results):
                for future, result in results:
                    # False if somebody has cancelled it.
                    if future.set_running_or_notify_cancel():
                        _settle(future, result)
            case _ as unreachable:
                assert_never(unreachable)
        return None

    def _send(self, effect: Send) -> Answer | Broken:
        try:
            response = self._http.send(
                _request(self._http, effect.url, effect.request, effect.timeout_s)
            )
        except httpx2.TransportError as error:
            return _broken(error)
        return Answer(response.status_code, response.headers, response.content)

    def _streaming(self, effect: Open | Receive | Shut) -> Reply | None:
        try:
            match effect:
                case Open(url, asked, silence_s):
                    request = _request(self._http, url, asked, silence_s)
                    response = self._http.send(request, stream=True)
                    status, headers = response.status_code, response.headers
                    if status != HTTP_OK:
                        return Answer(status, headers, response.read())
                    return Opened(status, headers, _Stream(response, response.iter_bytes()))
                case Receive(stream):
                    piece: bytes = next(stream.pieces, b"")
                    return piece
                case Shut(stream):
                    stream.response.close()
        except httpx2.TransportError as error:
            return _broken(error)
        return None

    def _spawn(self, steps: Steps[None]) -> None:
        def work() -> None:
            try:
                self.run(steps)
            finally:
                self._jobs.discard(threading.current_thread())

        # A daemon: a program that forgets to close must still be able to end.
        job = threading.Thread(target=work, name="raftq-client", daemon=True)
        self._jobs.add(job)
        job.start()


class AsyncDriver:
    """Runs steps in a task of the running loop."""

    def __init__(
        self,
        transport: httpx2.AsyncBaseTransport | None = None,
        key: str = "",
        ca_file: str | None = None,
    ) -> None:
        self._http = httpx2.AsyncClient(
            transport=transport, limits=LIMITS, headers=_bearing(key), verify=_trust(ca_file)
        )
        self._jobs: set[asyncio.Task[None]] = set()

    async def run(self, steps: Steps[T]) -> T:
        """What the steps return."""
        reply: Reply | None = None
        try:
            while True:
                effect = steps.send(reply)
                reply = await self._perform(effect)
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            steps.close()

    def new_event(self) -> asyncio.Event:
        """For ``Wait``."""
        return asyncio.Event()

    def new_future(self) -> asyncio.Future[MessageId]:
        """For ``Resolve``."""
        return asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        """Wait for what runs in the background, which was told to end; close connections."""
        jobs = self._jobs - {asyncio.current_task()}
        if jobs:
            _, late = await asyncio.wait(jobs, timeout=JOIN_TIMEOUT_S)
            for job in late:
                job.cancel()
        await self._http.aclose()

    async def _perform(self, effect: Effect) -> Reply | None:
        match effect:
            case Send():
                return await self._send(effect)
            case Open() | Receive() | Shut():
                return await self._streaming(effect)
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case Wait(event, timeout_s):
                assert isinstance(event, asyncio.Event)
                try:
                    async with asyncio.timeout(timeout_s):
                        await event.wait()
                except TimeoutError:
                    pass
            case Spawn(steps):
                job = asyncio.create_task(self.run(steps), name="raftq-client")
                self._jobs.add(job)
                job.add_done_callback(self._jobs.discard)
            case Resolve(results):
                for future, result in results:
                    if not future.done():
                        _settle(future, result)
            case _ as unreachable:
                assert_never(unreachable)
        return None

    async def _send(self, effect: Send) -> Answer | Broken:
        try:
            response = await self._http.send(
                _request(self._http, effect.url, effect.request, effect.timeout_s)
            )
        except httpx2.TransportError as error:
            return _broken(error)
        return Answer(response.status_code, response.headers, response.content)

    async def _streaming(self, effect: Open | Receive | Shut) -> Reply | None:
        try:
            match effect:
                case Open(url, asked, silence_s):
                    request = _request(self._http, url, asked, silence_s)
                    response = await self._http.send(request, stream=True)
                    status, headers = response.status_code, response.headers
                    if status != HTTP_OK:
                        return Answer(status, headers, await response.aread())
                    return Opened(status, headers, _Stream(response, response.aiter_bytes()))
                case Receive(stream):
                    piece: bytes = await anext(stream.pieces, b"")
                    return piece
                case Shut(stream):
                    await stream.response.aclose()
        except httpx2.TransportError as error:
            return _broken(error)
        return None


class _Stream(NamedTuple):
    """An answer whose body comes in pieces."""

    response: httpx2.Response
    pieces: Iterator[bytes] | AsyncIterator[bytes]


class _Blocks(Protocol):
    _driver: BlockingDriver
    _core: Any


class _Awaits(Protocol):
    _driver: AsyncDriver
    _core: Any


def blocking(
    operation: Callable[Concatenate[Any, P], Steps[T]],
) -> Callable[Concatenate[Any, P], T]:
    """A method that runs the core's operation in the calling thread."""

    @functools.wraps(operation)
    def method(self: _Blocks, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._driver.run(operation(self._core, *args, **kwargs))

    return method


def awaiting(
    operation: Callable[Concatenate[Any, P], Steps[T]],
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """A method that runs the core's operation in the calling task."""

    @functools.wraps(operation)
    async def method(self: _Awaits, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._driver.run(operation(self._core, *args, **kwargs))

    return method


def then(
    call: Callable[Concatenate[Any, P], T], shell: Callable[[Any, T], U]
) -> Callable[Concatenate[Any, P], U]:
    """Like ``call``, with its result put into ``shell(driver, result)``."""

    @functools.wraps(call)
    def method(self: _Blocks, /, *args: P.args, **kwargs: P.kwargs) -> U:
        return shell(self._driver, call(self, *args, **kwargs))

    return method


def later(
    call: Callable[Concatenate[Any, P], Awaitable[T]], shell: Callable[[Any, T], U]
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, U]]:
    """Like ``then``, for a call that is awaited."""

    @functools.wraps(call)
    async def method(self: _Awaits, /, *args: P.args, **kwargs: P.kwargs) -> U:
        return shell(self._driver, await call(self, *args, **kwargs))

    return method


def _bearing(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _trust(ca_file: str | None) -> ssl.SSLContext:
    """In the authorities of the file and no others; without one in those that everybody trusts."""
    return _widely_trusted() if ca_file is None else ssl.create_default_context(cafile=ca_file)


@functools.cache
def _widely_trusted() -> ssl.SSLContext:
    """Read once for all clients: there are many, and it takes longer than most requests."""
    return httpx2.create_ssl_context()


def _request(
    http: httpx2.Client | httpx2.AsyncClient, url: str, request: Request, timeout_s: float
) -> httpx2.Request:
    return http.build_request(
        request.method,
        url + request.path,
        params=request.query or None,
        # As bytes: a header of a message may be any text, in UTF-8.
        headers=[(name.encode(), value.encode()) for name, value in request.headers.items()],
        content=request.body,
        timeout=httpx2.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
    )


def _broken(error: httpx2.TransportError) -> Broken:
    return Broken(in_words(error), reached=not isinstance(error, _UNREACHED))


def in_words(error: httpx2.TransportError) -> str:
    """The operating system's reason, without the layers it came through."""
    cause: BaseException = error
    while (cause.__cause__ or cause.__context__) is not None:
        cause = cause.__cause__ or cause.__context__ or cause
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    return str(error) or type(error).__name__


def _settle(future: Any, result: str | Exception) -> None:
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
