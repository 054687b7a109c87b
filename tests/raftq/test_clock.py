from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvloop

from raftq.clock import AsyncioRuntime, ClockOffset
from raftq.runtime import Runtime


class Node:
    """A runtime, and what reached its fatal handler."""

    def __init__(self, executor: ThreadPoolExecutor, offset: ClockOffset | None = None) -> None:
        self.errors: list[BaseException] = []
        self.failed = asyncio.Event()
        self.runtime = AsyncioRuntime(
            asyncio.get_running_loop(), executor, self._fatal, offset=offset
        )
        self.contract: Runtime = self.runtime

    def _fatal(self, error: BaseException) -> None:
        self.errors.append(error)
        self.failed.set()


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def fail() -> None:
    raise LookupError("a bug")


def test_the_wall_clock_steps_with_its_offset_and_the_monotonic_one_does_not(
    executor: ThreadPoolExecutor,
) -> None:
    async def scenario() -> None:
        offset = ClockOffset()
        runtime = Node(executor, offset).runtime
        wall_ms, monotonic_s = runtime.wall_ms(), runtime.monotonic()
        offset.ms = -3_600_000
        assert -3_600_000 <= runtime.wall_ms() - wall_ms < -3_500_000
        assert 0 <= runtime.monotonic() - monotonic_s < 100

    asyncio.run(scenario())


def test_chance_is_in_range_and_does_not_repeat(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        runtime = Node(executor).runtime
        numbers = [runtime.random() for _ in range(100)]
        assert all(0 <= number < 1 for number in numbers)
        assert len(set(numbers)) > 90
        assert len({runtime.token(16) for _ in range(100)}) == 100
        assert len(runtime.token(32)) == 32

    asyncio.run(scenario())


def test_callbacks_run_after_the_call_that_registered_them(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        node = Node(executor)
        order: list[str] = []
        last = asyncio.Event()

        def soon() -> None:
            order.append("soon")
            node.runtime.call_soon(lambda: order.append("sooner than later"))
            node.runtime.call_later(0.01, last.set)
            order.append("end of soon")

        node.runtime.call_soon(soon)
        node.runtime.call_later(0.001, lambda: order.append("cancelled")).cancel()
        assert order == []
        await asyncio.wait_for(last.wait(), 5)
        assert order == ["soon", "end of soon", "sooner than later"]
        assert node.errors == []

    uvloop.run(scenario())


def test_work_runs_off_the_loop_and_its_end_is_told_on_it(executor: ThreadPoolExecutor) -> None:
    async def scenario() -> None:
        runtime = Node(executor).runtime
        told: asyncio.Queue[tuple[int | None, BaseException | None, int]] = asyncio.Queue()

        def done(result: int | None, error: BaseException | None) -> None:
            told.put_nowait((result, error, threading.get_ident()))

        here = threading.get_ident()
        runtime.offload(threading.get_ident, done)
        result, error, thread = await asyncio.wait_for(told.get(), 5)
        assert (error, thread) == (None, here)
        assert result not in (None, here)

        def broken() -> int:
            raise OSError(5, "disk")

        runtime.offload(broken, done)
        result, error, thread = await asyncio.wait_for(told.get(), 5)
        assert (result, str(error), thread) == (None, "[Errno 5] disk", here)

    uvloop.run(scenario())


def offloaded(runtime: AsyncioRuntime) -> None:
    runtime.offload(lambda: None, lambda _result, _error: fail())


@pytest.mark.parametrize(
    "register",
    [
        lambda runtime: runtime.call_soon(fail),
        lambda runtime: runtime.call_later(0.001, fail),
        offloaded,
    ],
    ids=["soon", "later", "offloaded"],
)
def test_an_exception_in_a_callback_stops_the_node_once_and_all_callbacks(
    executor: ThreadPoolExecutor, register: Callable[[AsyncioRuntime], None]
) -> None:
    async def scenario() -> None:
        node = Node(executor)
        afterwards: list[int] = []
        register(node.runtime)
        await asyncio.wait_for(node.failed.wait(), 5)
        node.runtime.call_soon(lambda: afterwards.append(1))
        node.runtime.call_soon(fail)
        node.runtime.offload(lambda: 1, lambda _result, _error: afterwards.append(2))
        node.runtime.fail(ValueError("a consequence"))
        await asyncio.sleep(0.02)
        assert [str(error) for error in node.errors] == ["a bug"]
        assert afterwards == []

    uvloop.run(scenario())


def test_work_that_ends_after_the_loop_is_not_told() -> None:
    executor = ThreadPoolExecutor(1)
    end = threading.Event()
    told: list[object] = []

    async def scenario() -> None:
        Node(executor).runtime.offload(end.wait, lambda *result: told.append(result))

    uvloop.run(scenario())
    end.set()
    executor.shutdown(wait=True)
    assert told == []
