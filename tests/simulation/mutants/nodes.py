"""Mutants of a node: batches on their way, entries made and applied, log time."""

from __future__ import annotations

from raftq.consensus.consensus import Consensus
from raftq.replica.applier import Applier
from raftq.replica.duties import Duties
from raftq.replica.sequencer import Sequencer
from raftq.replica.stamps import Stamps
from raftq.replica.submitter import Submitter
from raftq.replica.waiters import Waiters
from raftq.replica.watch import Watch
from simulation.mutants.damage import Edit, Mutant, mutant

RESENT = "for flight in self._in_flight.values():\n        self._send_lost(flight)"
RESULTS = "results = self.machine.apply(entry.index, entry.term, decoded)"

MUTANTS: tuple[Mutant, ...] = (
    # Batches.
    mutant(
        "barrier-answered-at-once",
        "A linearizable read does not go through the log.",
        Edit(
            Submitter,
            "submit",
            "if account is None:",
            "if isinstance(command, Barrier):\n"
            "        from statemachine.outcomes import Done as Fine\n"
            "        done(Fine())\n"
            "        return\n"
            "    if account is None:",
        ),
    ),
    mutant(
        "sequence-reused-after-restart",
        "A node takes up the session of its life before, and counts from one again.",
        Edit(Submitter, "__init__", 'f"{name}/{runtime.token(8).hex()}"', "name"),
    ),
    mutant(
        "session-of-another-node",
        "A node takes whatever session is opened for its own.",
        Edit(Submitter, "session_opened", "token == self._token and ", ""),
    ),
    mutant(
        "outcome-of-another-session",
        "A batch is settled by any node's batch of the same number.",
        Edit(Submitter, "applied", "if session != self._session:", "if False:"),
    ),
    mutant(
        "outcome-of-another-command",
        "The commands of a batch are told each other's outcomes.",
        Edit(
            Submitter,
            "applied",
            "for waiting, outcome in zip(flight.waiting, outcomes, strict=True):",
            "for waiting, outcome in zip(flight.waiting, reversed(outcomes), strict=True):",
        ),
    ),
    mutant(
        "retry-drops-the-last",
        "A batch that is sent again lacks its last command.",
        Edit(
            Submitter,
            "_send",
            "patience_s = 0.0",
            "at, patience_s = flight.batch, 0.0\n"
            "    if flight.send_again_at and at.commands[1:]:\n"
            "        few = Batch(at.session, at.seq, at.floor, at.commands[:-1])\n"
            "        flight.encoded = commands.encode(few)",
        ),
    ),
    mutant(
        "retry-as-a-new-batch",
        "After a change of leader the same commands go out again under a new number.",
        Edit(
            Submitter,
            "leader_changed",
            RESENT,
            "for flight in self._in_flight.values():\n"
            "        for one in flight.waiting:\n"
            "            self._backlog.add(one, 0)\n"
            "        self._in_flight_commands -= len(flight.waiting)\n"
            "    self._in_flight.clear()",
        ),
    ),
    mutant(
        "never-sent-again",
        "A batch that was lost on its way is never sent again.",
        Edit(
            Submitter,
            "leader_changed",
            RESENT,
            "pass",
        ),
        Edit(
            Submitter,
            "_watch",
            "if now > flight.send_again_at:",
            "if False:",
        ),
        Edit(
            Submitter,
            "_send_overtaken",
            "if flight.sent < applied.sent:",
            "if False:",
        ),
    ),
    mutant(
        "unknown-told-as-not-submitted",
        "Who waited too long for a batch under way hears that it never left.",
        Edit(
            Submitter,
            "_give_up",
            'waiting.done(Unknown("no majority answered in time"))',
            'waiting.done(NotSubmitted("no_leader"))',
        ),
    ),
    mutant(
        "refused-and-sent-all-the-same",
        "Who waited too long for a leader hears that nothing was done, and then it is done.",
        Edit(
            Submitter,
            "_watch",
            'waiting.done(NotSubmitted("no_leader"))',
            'waiting.done(NotSubmitted("no_leader"))\n'
            "        self._backlog.add(msgspec.structs.replace(waiting, done=_ignore), 0)",
        ),
    ),
    # Entries.
    mutant(
        "own-entry-in-anothers-place",
        # What was appended is forgotten when the leadership goes: the second defence.
        "A former leader applies what it wrote at an index, whatever was committed there.",
        Edit(Sequencer, "clear", "self._appended.clear()", "pass"),
        Edit(
            Sequencer,
            "take",
            "return self._appended.pop((index, term), None)",
            "return next((e for (at, _), e in self._appended.items() if at == index), None)",
        ),
    ),
    mutant(
        "entry-applied-to-nothing",
        "An entry that cannot be applied is passed over (here: each 50th, on one node).",
        Edit(
            Applier,
            "_apply_regular",
            RESULTS,
            "try:\n"
            "        if entry.index % 50 == 0 and self._listener.name == 'n2':\n"
            "            raise StoreBehindJournal\n"
            "        results = self.machine.apply(entry.index, entry.term, decoded)\n"
            "    except StoreBehindJournal:\n"
            "        self.machine.apply(entry.index, entry.term, None)\n"
            "        return",
        ),
    ),
    mutant(
        "outcome-depends-on-the-node",
        "One node sees each entry a millisecond later.",
        Edit(
            Applier,
            "_apply_regular",
            RESULTS,
            "if self._listener.name == 'n2':\n"
            "        late = decoded.stamp_ms + 1\n"
            "        decoded = Entry(decoded.version, late, decoded.batches)\n"
            f"    {RESULTS}",
        ),
    ),
    # Log time.
    mutant(
        "applied-at-local-time",
        "Leases, delays and times to live end by each node's own clock.",
        Edit(
            Applier,
            "_apply_regular",
            RESULTS,
            "own = self._stamps._runtime.wall_ms()\n"
            "    decoded = Entry(decoded.version, own, decoded.batches)\n"
            f"    {RESULTS}",
        ),
    ),
    mutant(
        "swept-at-local-time",
        "The leader looks at its wall clock, not at log time, for what is due.",
        Edit(
            Watch,
            "_propose",
            "now_ms = self._stamps.now_ms()",
            "now_ms = self._stamps._runtime.wall_ms()",
        ),
    ),
    mutant(
        "log-time-follows-the-wall",
        "A step of the leader's wall clock is a step of log time.",
        Edit(Stamps, "_now_ms", "if not self._live:", "if True:"),
    ),
    mutant(
        "log-time-stands-still",
        "A leader stamps all its entries with the time of its first.",
        Edit(
            Sequencer,
            "_append",
            "stamp_ms = max(self._stamps.now_ms(), self._last_stamp_ms, self._earliest_ms)",
            "stamp_ms = self._last_stamp_ms or self._stamps.now_ms()",
        ),
    ),
    mutant(
        "never-swept",
        "Nothing that is due is swept.",
        Edit(Watch, "_propose", "self.arm()\n    else:", "self.arm()\n    elif False:"),
    ),
    mutant(
        "sweeps-end-with-the-leader",
        "A sweep that was under way when leadership went is waited for ever after.",
        Edit(Duties, "leads_no_more", "self._sweeps.done()", "pass"),
    ),
    # Wake-ups.
    mutant(
        "apply-not-woken",
        "A node whose commit index or disk has moved on does not look what to apply.",
        Edit(Consensus, "_wake_to_apply", "self._host.wake()", "pass"),
    ),
    mutant(
        "waiters-not-woken",
        "Who waits for messages is not told of them.",
        Edit(
            Waiters,
            "_tell_takers",
            "if callback is not None and callback(zone):",
            "if callback is not None:",
        ),
    ),
    mutant(
        "index-not-waited-for",
        "Who waits for an index is never told that it was reached.",
        Edit(Waiters, "wake", "if self._reaching:", "if False:"),
    ),
)
