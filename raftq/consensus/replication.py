"""The leader's side of the log: what each member was sent, what it holds, what it lacks.

Entries are sent ahead, up to a window of bytes that were not acknowledged; where the
logs turn out to differ, one append at a time looks for where they agree. An
acknowledgement counts only as far as this leader's own disk goes.
"""

from __future__ import annotations

from collections import defaultdict, deque

from raftq.consensus import engine_messages, guard
from raftq.consensus.core import Core
from raftq.consensus.guard import Seen
from raftq.consensus.host import Host
from raftq.consensus.messages import Append, AppendReply, Beat
from raftq.journal import Journal, LogEntry

APPEND_BYTES_MAX = 1 << 20


class Progress:
    """What a leader has sent to one member and not heard back about."""

    def __init__(self) -> None:
        self.window: deque[tuple[int, int]] = deque()  # (last index, bytes) of each append
        self.window_bytes = 0
        self.commit_sent = 0
        self.acknowledged = 0  # As the member said; may be ahead of this leader's own disk.
        self.probe: int | None = None  # Looking for where the logs agree, from here downwards.

    def sent(self, last_index: int, size: int) -> None:
        """An append is on its way."""
        self.window.append((last_index, size))
        self.window_bytes += size

    def heard(self, index: int) -> None:
        """The member holds everything up to ``index``."""
        while self.window and self.window[0][0] <= index:
            self.window_bytes -= self.window.popleft()[1]

    def restart(self) -> None:
        """What was on its way is lost."""
        self.window.clear()
        self.window_bytes = 0
        self.commit_sent = 0
        self.probe = None


class Replication:
    """What a leader does for its members; idle on any other node."""

    def __init__(
        self, seen: Seen, core: Core, journal: Journal, host: Host, window_bytes: int
    ) -> None:
        self._seen, self._core, self._journal, self._host = seen, core, journal, host
        self._window_bytes = window_bytes
        self._connected: dict[str, None] = {}
        self._progress: defaultdict[str, Progress] = defaultdict(Progress)
        self.due = False  # A heartbeat, or something to send again.

    def restart(self) -> None:
        """Another term, another leadership: nothing is known."""
        self._progress.clear()

    def reaches(self, member: str) -> bool:
        """Whether there is a connection."""
        return member in self._connected

    def set_connected(self, member: str, connected: bool) -> None:
        """What was in flight on a connection that ends may be lost."""
        if connected:
            self._connected[member] = None
        else:
            self._connected.pop(member, None)
        if self._seen.is_leader and member in self._progress:
            self._progress[member].restart()
            # Send again from what it is known to hold, unless that is nothing yet.
            if (held := self._core.match_index(member)) > 0:
                self._core.set_next_index(member, held + 1)

    def synced(self) -> None:
        """This leader's own disk has caught up: count what was held back."""
        for member in self._core.others:
            progress = self._progress[member]
            if progress.acknowledged > self._core.match_index(member):
                self._count(member, progress)

    def on_reply(self, sender: str, message: AppendReply) -> None:
        """A member says what it holds, or what it wants."""
        if message.term > self._seen.term and sender in self._seen.members:
            self._core.observe_term(message.term)
            self._host.wake()
            return
        if refusal := guard.refuse_append_reply(self._seen, sender, message):
            self._host.intervened(refusal)
            return
        progress = self._progress[sender]
        if message.success:
            held = message.next_index - 1
            assert held <= self._seen.last_index, f"{sender} vouches for {held}, beyond the log"
            progress.acknowledged = max(progress.acknowledged, held)
            progress.heard(held)
            progress.probe = None
            self._count(sender, progress)
        elif (
            progress.probe is None
            or message.next_index < progress.probe
            or self._can_go_on(sender, message.next_index)
        ):
            # Its log may be longer than this one, with a tail that never was committed.
            wanted = min(message.next_index, self._seen.last_index + 1)
            # What it has vouched for it has, whatever a late refusal says; but a second one is
            # believed: it may have lost what nobody had sealed.
            if progress.probe is None and (held := self._core.match_index(sender)) > 0:
                wanted = max(wanted, held + 1)
            progress.restart()
            progress.probe = wanted
            self._core.deliver(sender, engine_messages.append_reply(wanted, success=False))
            self.due = True
            self._host.wake()
        # Otherwise it answers an append that was under way before the probe.

    def _can_go_on(self, member: str, wanted: int) -> bool:
        """It was taken to need a snapshot, but what it wants next is in the log."""
        return self._core.next_index(member) <= self._seen.base_index < wanted

    def _count(self, member: str, progress: Progress) -> None:
        core = self._core
        before, next_index = core.match_index(member), core.next_index(member)
        held = min(progress.acknowledged, self._journal.durable_index)
        core.deliver(member, engine_messages.append_reply(held + 1, success=True))
        # The core would go back to what was acknowledged and send the rest again.
        next_index = max(next_index, core.next_index(member))
        core.set_next_index(member, next_index)
        # There may be something to commit, or room in the window for more.
        if core.match_index(member) > max(before, core.commit_index) or (
            next_index <= self._seen.last_index
        ):
            self._host.wake()

    def flush(self) -> None:
        """Send what the members lack; once per turn, however much was appended."""
        due, self.due = self.due, False
        for member in self._core.others:
            if member in self._connected:
                self._send_to(member, self._progress[member], due)

    def _send_to(self, member: str, progress: Progress, due: bool) -> None:
        next_index, last = self._core.next_index(member), self._seen.last_index
        commit = min(self._seen.commit_index, self._journal.durable_index)
        news = due or commit > progress.commit_sent
        if not news and next_index > last:
            return
        if next_index <= self._seen.base_index:
            if due:
                self._host.send(member, Beat(self._seen.term))
                self._host.needs_snapshot(member)
            return
        sent = False
        if progress.probe is not None and due:
            next_index = max(progress.probe, self._seen.base_index + 1)
            progress.window.clear()
            progress.window_bytes = 0
        limit = self._window_bytes if progress.probe is None else 1
        while next_index <= last and progress.window_bytes < limit:
            entries = self._journal.slice(next_index, last, APPEND_BYTES_MAX)
            if not self._send_append(member, next_index - 1, commit, entries):
                return
            next_index = entries[-1].index + 1
            progress.sent(next_index - 1, sum([len(entry.payload) for entry in entries]))
            self._core.set_next_index(member, next_index)
            sent = True
        if sent or (news and self._send_append(member, next_index - 1, commit, [], due)):
            progress.commit_sent = commit

    def _send_append(
        self,
        member: str,
        prev_index: int,
        commit: int,
        entries: list[LogEntry],
        is_heartbeat: bool = False,
    ) -> bool:
        prev_term = self._journal.term_at(prev_index)
        assert prev_term is not None, (prev_index, self._seen.base_index, self._seen.last_index)
        pairs = tuple([(entry.term, entry.payload) for entry in entries])
        return self._host.send(
            member, Append(self._seen.term, prev_index, prev_term, commit, pairs, is_heartbeat)
        )
