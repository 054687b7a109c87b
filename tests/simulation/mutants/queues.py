"""Mutants of the rules: leases, order, times, retries, counts."""

from __future__ import annotations

from raftq.replica.stamps import Stamps
from simulation.mutants.damage import Constant, Edit, Mutant, mutant
from statemachine import (
    claims,
    fresh,
    machine,
    messages,
    once,
    queues,
    sessions,
    sweeps,
    taking,
)
from statemachine.state import State

MUTANTS: tuple[Mutant, ...] = (
    # Leases.
    mutant(
        "lease-kept-until-swept",
        "A lease that has ended counts until a sweep comes by.",
        Edit(claims, "_find", " or found.until_ms <= state.now_ms", ""),
    ),
    mutant(
        "lease-never-swept",
        "The sweep passes over claims whose lease has ended.",
        Edit(sweeps, "_end_leases", "ended.append(claim_id)", "pass"),
    ),
    mutant(
        "lease-ends-early",
        # The one who ends it looks at the time too: that is the second defence.
        "A sweep ends leases that have 50 ms left.",
        Edit(
            sweeps, "_end_leases", "found.until_ms > now_ms and", "found.until_ms > now_ms + 50 and"
        ),
        Edit(claims, "end_lease", "found.until_ms <= state.now_ms", "True"),
    ),
    mutant(
        "extension-in-memory-only",
        "An extended lease is known to whoever has the claim in memory, and not stored.",
        Edit(claims, "_extend", "_write(state, queue, claim_id, claim_record)", "pass"),
    ),
    mutant(
        "purge-keeps-the-number",
        "After a purge an old claim may settle what came since.",
        Edit(
            queues,
            "purge",
            "queue.begin(fresh)",
            "fresh.number = record.number\n        queue.begin(fresh)",
        ),
    ),
    # Order.
    mutant(
        "last-in-first-out",
        "The newest of the fresh messages are delivered first.",
        Edit(fresh, "take", "taken.append(window.popleft())", "taken.append(window.pop())"),
    ),
    mutant(
        "returned-come-last",
        "What was given back is delivered behind what came after it.",
        Edit(taking.Taken, "take_oldest", "(back is None or oldest[0][2:] < back[0])", "True"),
    ),
    mutant(
        "one-lane-before-the-others",
        "A claim takes all there is of the zone with the oldest message, then of the others.",
        Edit(
            taking.Taken,
            "take_older",
            "fresh.older(lane, self.wants(), age)",
            "min(self.wants(), len(lane.window))",
        ),
    ),
    mutant(
        "priority-ignored",
        "A claim takes the lowest priority first.",
        Edit(taking, "_take_by_priority", "queue.tiers", "reversed(queue.tiers)"),
    ),
    mutant(
        "zone-ignored",
        "A claim for one zone only takes from all.",
        Edit(taking, "take", "if mode in (ONLY, PREFER)", "if mode == PREFER"),
    ),
    mutant(
        "locality-without-wait",
        "Messages of other zones go to whoever asks first.",
        Edit(taking, "_merge", "if due_ms > rule.now_ms:", "if False:"),
    ),
    mutant(
        "group-all-at-once",
        "What comes behind the first of its group is ready too.",
        Edit(messages, "_join", "elif is_first:", "elif True:"),
    ),
    mutant(
        "group-stuck",
        "The first of a group is gone, and nobody has a turn after it.",
        Edit(messages, "leave", "_succeed(state, queue, group, message_id)", "False"),
    ),
    mutant(
        "group-jumps-the-queue",
        "A message of a group that is delayed has its turn when the delay is over.",
        Edit(messages, "ripen", "if _is_behind(state, queue, message_id):", "if False:"),
    ),
    mutant(
        "depends-on-memory",
        "A claim takes what the node happens to have at hand, and not what is in the store.",
        Edit(
            fresh,
            "_fill",
            "if lane.window_is_all or record.ready == record.returned:",
            "if True:",
        ),
    ),
    # Times.
    mutant(
        "time-to-live-lost",
        "A message that was given back never expires.",
        Edit(messages, "_return", "if expires_ms != FOR_EVER:", "if False:"),
        Edit(messages, "take_returned", "if expires_ms != FOR_EVER:", "if False:"),
    ),
    mutant(
        "expired-and-delivered",
        "A claim takes what has expired and was not swept yet.",
        Edit(taking.Taken, "_take_fresh", "if expires_ms <= now_ms:", "if False:"),
    ),
    mutant(
        "delay-lost",
        "What is given back with a delay is ready at once.",
        Edit(
            claims,
            "release",
            "How(command.delay_ms, command.reason, command.dead)",
            "How(0, command.reason, command.dead)",
        ),
    ),
    mutant(
        "delay-never-over",
        "The sweep passes over delays.",
        Edit(sweeps, "_meet", "if messages.ripen(state, queue, subject):", "if False:"),
    ),
    mutant(
        "time-goes-back",
        # A leader that follows log time is hardly ever behind it: this one follows its wall clock.
        "Log time is that of the last entry, also when a new leader is behind.",
        Edit(
            Stamps,
            "_now_ms",
            "if not self._live:\n        return max(wall_ms, self._anchor_ms)",
            "return wall_ms",
        ),
        Edit(State, "begin", "if stamp_ms > machine.stamp_ms:", "if stamp_ms:"),
    ),
    # Retries.
    mutant(
        "batch-done-again",
        "A batch that comes again is done again.",
        Edit(machine, "_run_batch", "if known is not None:", "if False:"),
    ),
    mutant(
        "floor-ignored",
        "A batch whose outcome was given up is done again when a late copy comes.",
        Edit(machine, "_run_batch", "if batch.seq < session.record.floor:", "if False:"),
    ),
    mutant(
        "outcomes-forgotten-on-restart",
        "Who finds a session in the store does not find the outcomes remembered in it.",
        Edit(
            State,
            "find_session",
            "{keys.number(row[-8:]): row for row, _ in self.kv.scan(low, high)}",
            "{}",
        ),
    ),
    mutant(
        "session-forgotten-too-soon",
        "A session is forgotten after three quiet seconds.",
        Constant(sessions, "IDLE_MAX_MS", 3_000),
    ),
    mutant(
        "once-forgotten",
        "An idempotency key is not remembered.",
        Edit(once, "run_once", "state.kv.put(key, records.encode(record))", "pass"),
    ),
    mutant(
        "once-for-every-key",
        "An idempotency key answers whatever request comes under it.",
        Edit(once, "run_once", "if record.fingerprint != command.fingerprint:", "if False:"),
    ),
    # Counts.
    mutant(
        "claimed-count-stays",
        "An ack takes messages away and still counts them as claimed.",
        Edit(claims, "ack", "queue.record.claimed -= len(settled)", "pass"),
    ),
    mutant(
        "deleted-and-given-back",
        "What was deleted while claimed comes back with the claim.",
        Edit(claims, "_settle", "if queue.record.deleted_in_flight:", "if False:"),
    ),
    mutant(
        "deliveries-not-counted",
        "A message that is delivered again says that it is the first time.",
        Edit(
            taking.Taken,
            "_take_returned",
            "Delivered(message_id, deliveries + 1, data, error)",
            "Delivered(message_id, 1, data, error)",
        ),
    ),
    mutant(
        "readiness-not-told",
        "Nobody is told that messages have become ready.",
        Edit(State, "wake", "self.woken.get(lane, 0) + count", "0"),
    ),
)
