"""Commands that wait to be sent: each account's in order, and of all accounts in fair shares.

Taken by deficit round robin (Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit
Round-Robin", SIGCOMM 1995): accounts have turns, each turn is worth ``QUANTUM`` more, and
what is too dear waits for the account's next turn. While two accounts both have something
to send, what they were given differs by a quantum and a command at most.

Room is shared by dynamic thresholds (Choudhury and Hahne, "Dynamic Queue Length Thresholds
for Shared-Memory Packet Switches", IEEE/ACM Transactions on Networking 6(2), 1998): an account
may have ``SHARE`` times as much waiting as there is still room. One account alone cannot
fill the last ninth, and many find room in equal parts without being counted.

An account that is alone pays for none of this: it is taken from first in, first out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from statemachine.commands import Command

COMMAND_COST = 512  # Of a command beside its bytes, in bytes: to be parsed, applied and answered.
QUANTUM = 32 << 10
SHARE = 8
NOBODY = frozenset[str]()

A = TypeVar("A")


class Waiting(msgspec.Struct, Generic[A], frozen=True):
    """A command, and who is to hear what becomes of it."""

    command: Command
    size: int
    done: Callable[[A], None]
    since: float
    early: bool
    account: str
    is_joined: bool = False
    """Whether the next one of its account goes along with it, in the same batch."""


def requests_of(ones: Sequence[Waiting[A]]) -> int:
    """How many requests have asked for these commands, of each all that it asks for."""
    return sum([not one.is_joined for one in ones])


class _Flow(Generic[A]):
    """What waits of one account."""

    __slots__ = ("account", "deficit", "size", "waiting")

    def __init__(self, account: str) -> None:
        self.account = account
        self.waiting: deque[Waiting[A]] = deque()
        self.size = 0
        self.deficit = 0  # How much it may still be given in this turn.

    def give(self, taken: list[Waiting[A]], commands_max: int, left: int) -> int:
        """Move what fits to ``taken``; the bytes that are left, negative when it is full."""
        waiting, before = self.waiting, left
        while waiting and len(taken) < commands_max:
            size = waiting[0].size
            if size > left and taken:
                self.size -= before - left
                return -1
            left -= self._move(taken)
        self.size -= before - left
        return left

    def give_its_share(self, taken: list[Waiting[A]], commands_max: int, left: int) -> int:
        """Like ``give``, as far as this turn pays for it."""
        waiting = self.waiting
        while waiting and len(taken) < commands_max:
            size = waiting[0].size
            if size + COMMAND_COST > self.deficit:
                return left
            if size > left and taken:
                return -1
            count = len(taken)
            size = self._move(taken)
            left -= size
            self.size -= size
            # What goes along was not asked for its price: the next turn is worth less.
            self.deficit -= size + COMMAND_COST * (len(taken) - count)
        return left

    def _move(self, taken: list[Waiting[A]]) -> int:
        """Move the first to ``taken``, and what goes along with it; their bytes."""
        one = self.waiting.popleft()
        taken.append(one)
        size = one.size
        while one.is_joined:
            one = self.waiting.popleft()
            taken.append(one)
            size += one.size
        return size


class Backlog(Generic[A]):
    """All that waits on one node."""

    def __init__(self, *, commands_max: int, bytes_max: int) -> None:
        self._commands_max = commands_max
        self._bytes_max = bytes_max
        self._flows: dict[str, _Flow[A]] = {}  # Only those of which something waits.
        self._turns: deque[_Flow[A]] = deque()  # The first has its turn.
        self._has_begun = False  # The first of them was given its quantum.
        self._count = self._size = 0
        self.requests = 0
        """That the commands are of: those that are joined are of one."""
        self._latest = ""  # Whose command came last,
        self._mixed_at = float("-inf")  # and when one came that was not of the same as before.

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """Bytes of all commands that wait."""
        return self._size

    def add(self, ones: Sequence[Waiting[A]], taken: int) -> bool:
        """Queue commands of one account behind its others; False if there is no room for all.

        ``taken`` is how many commands take up room elsewhere.
        """
        one, size = ones[0], sum([one.size for one in ones])
        room = self._commands_max - self._count - taken - len(ones) + 1
        room_bytes = self._bytes_max - self._size - size
        flow = self._flows.get(one.account)
        if flow is None:
            if room <= 0 or room_bytes < 0:
                return False
            flow = self._flows[one.account] = _Flow(one.account)
            self._turns.append(flow)
        elif len(flow.waiting) >= SHARE * room or flow.size > SHARE * room_bytes:
            return False
        if one.account != self._latest and one.account:  # A node's own come now and then.
            if self._latest:
                self._mixed_at = one.since
            self._latest = one.account
        flow.waiting.extend(ones)
        flow.size += size
        self._count += len(ones)
        self.requests += 1
        self._size += size
        return True

    def is_shared(self, since: float) -> bool:
        """Whether commands of more than one account have come since then."""
        return self._mixed_at >= since

    def take(
        self, *, commands_max: int, bytes_max: int, held_up: frozenset[str] = NOBODY
    ) -> list[Waiting[A]]:
        """The next that fit together, each account's in order; nothing of who is held up.

        It is at least one if any waits of anybody else.
        """
        taken: list[Waiting[A]] = []
        left = bytes_max
        turns = self._turns
        passed_over = 0
        while passed_over < len(turns):
            flow = turns[0]
            if flow.account in held_up:
                self._pass_over(flow)
                passed_over += 1
                continue
            passed_over = 0
            if len(turns) == 1:
                flow.deficit, self._has_begun = 0, False
                left = flow.give(taken, commands_max, left)
            else:
                if not self._has_begun:
                    flow.deficit, self._has_begun = flow.deficit + QUANTUM, True
                left = flow.give_its_share(taken, commands_max, left)
            is_full = left < 0 or len(taken) >= commands_max
            if not flow.waiting:
                self._leave(flow)
            elif not is_full:
                turns.rotate(-1)
                self._has_begun = False
            if is_full:
                break  # Whose turn it is goes on with it in the next batch.
        self._count -= len(taken)
        self.requests -= requests_of(taken)
        self._size -= sum([one.size for one in taken])
        return taken

    def expired(self, before: float) -> list[Waiting[A]]:
        """Take out all that has been waiting since earlier than that."""
        found: list[Waiting[A]] = []
        for flow in list(self._turns):
            waiting = flow.waiting
            while waiting and waiting[0].since < before:
                found.append(waiting.popleft())
                flow.size -= found[-1].size
            if not waiting:
                self._leave(flow)
        self._count -= len(found)
        self.requests -= requests_of(found)
        self._size -= sum([one.size for one in found])
        return found

    def _pass_over(self, flow: _Flow[A]) -> None:
        """Its turn goes on when it comes again, and is worth no more for that."""
        if self._has_begun:
            flow.deficit, self._has_begun = flow.deficit - QUANTUM, False
        self._turns.rotate(-1)

    def _leave(self, flow: _Flow[A]) -> None:
        """An account of which nothing waits saves up nothing for later."""
        if self._turns[0] is flow:
            self._turns.popleft()
            self._has_begun = False
        else:
            self._turns.remove(flow)
        del self._flows[flow.account]
