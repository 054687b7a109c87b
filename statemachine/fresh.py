"""Fresh messages: those of lane 0 at or above the queue's head, never claimed, in order.

No index tells which are fresh; the head does. The oldest are also kept in memory
(the window), so that a claim of what was just enqueued costs no scan, and a claim
of a backlog one scan for many messages. The window is a prefix of what is fresh:
it may be emptied at any time, and nothing that is written depends on it.
"""

from __future__ import annotations

from statemachine import keys, records
from statemachine.records import TIMED
from statemachine.state import Fresh, Queue, State

WINDOW_MESSAGES_MAX = 512
FILL_MESSAGES = 64
FILL_BYTES = 256 << 10


def append(state: State, queue: Queue, message: Fresh) -> None:
    """A message was enqueued and stored: keep it at hand if the window reaches to the end."""
    if queue.window_is_all:
        queue.window.append(message)
        state.window_bytes += len(message[4])
        if len(queue.window) >= WINDOW_MESSAGES_MAX:
            queue.window_is_all = False


def first(state: State, queue: Queue) -> Fresh | None:
    """The oldest, or None."""
    if not queue.window:
        _fill(state, queue, FILL_MESSAGES)
    return queue.window[0] if queue.window else None


def take(state: State, queue: Queue, limit: int) -> list[Fresh]:
    """Up to ``limit`` of the oldest, which are not fresh nor counted as ready afterwards.

    It may be fewer than there are; it is none only if there are none.
    """
    window = queue.window
    if not window:
        _fill(state, queue, limit)
    count = len(window)
    if not count:
        return []
    if count <= limit:
        taken = list(window)
        window.clear()
    else:
        taken = [window.popleft() for _ in range(limit)]
    record = queue.record
    record.head = keys.number(taken[-1][0]) + 1
    record.ready -= len(taken)
    return taken


def forget_window(queue: Queue) -> None:
    """Something fresh was taken out from between."""
    queue.window.clear()
    queue.window_is_all = queue.record.ready == queue.record.returned


def settle_head(state: State, queue: Queue) -> None:
    """Move the head up to the oldest, so that no later scan walks over what is gone."""
    oldest = first(state, queue)
    queue.record.head = state.next_id if oldest is None else keys.number(oldest[0])


def _fill(state: State, queue: Queue, want: int) -> None:
    record = queue.record
    if queue.window_is_all or record.ready == record.returned:
        queue.window_is_all = True
        return
    window, size = queue.window, 0
    want = max(want, FILL_MESSAGES)
    low, high = queue.messages + keys.message_id(record.head), queue.messages + keys.LANE_END
    for key, data in state.kv.scan(low, high):
        times = records.times(data)
        timed = bool(times.flags & TIMED)
        window.append((key[-keys.ID_BYTES :], times.expires_ms, times.bytes, timed, data))
        size += len(data)
        if len(window) >= want or size >= FILL_BYTES:
            break
    else:
        queue.window_is_all = True
    state.window_bytes += size
