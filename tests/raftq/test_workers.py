from __future__ import annotations

import threading

from raftq.workers import Workers


def test_work_that_waits_for_other_work_gets_a_thread_of_its_own() -> None:
    workers = Workers("test")
    first, second = threading.Event(), threading.Event()
    workers.submit(lambda: second.set() if first.wait(10) else None)
    workers.submit(first.set)
    assert second.wait(10)
    workers.shutdown()


def test_a_thread_that_is_idle_is_used_again() -> None:
    workers = Workers("test")
    names: set[str] = set()
    for _ in range(20):
        done = threading.Event()
        workers.submit(lambda done=done: (names.add(threading.current_thread().name), done.set()))  # type: ignore[misc]
        assert done.wait(10)
    workers.shutdown()
    assert len(names) < 5  # A thread says that it is done a moment before it is idle.


def test_shutdown_finishes_what_was_submitted() -> None:
    workers = Workers("test")
    done: list[int] = []
    for number in range(50):
        workers.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    workers.shutdown()
    assert sorted(done) == list(range(50))
