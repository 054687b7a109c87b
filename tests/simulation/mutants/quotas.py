"""Mutants of quotas: of what is counted, when, and what is let in."""

from __future__ import annotations

from simulation.mutants.damage import Edit, Mutant, mutant
from statemachine import bindings, dead_letters, queues, quotas, room, schedules, transactions
from statemachine.state import State

MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "quota-as-of-the-last-round",
        "What earlier commands of the same round have put does not count yet.",
        Edit(quotas, "refused", "state.sum_up()", "pass"),
    ),
    mutant(
        "quota-one-too-many",
        "There is room for one more than there may be.",
        Edit(quotas, "refused", "+ count > limit", "+ count > limit + 1"),
    ),
    mutant(
        "claim-beyond-its-quota",
        "A claim gets all that it asks for if there is room for one.",
        Edit(
            quotas,
            "claimable",
            "max(min(limit, limits.in_flight - account.record.in_flight), 0)",
            "limit if account.record.in_flight < limits.in_flight else 0",
        ),
    ),
    mutant(
        "in-flight-never-ends",
        "What was claimed once is in flight for good.",
        Edit(
            State, "_count", "account.in_flight += claimed", "account.in_flight += max(claimed, 0)"
        ),
    ),
    mutant(
        "deleted-queue-keeps-its-room",
        "What was in a queue that is deleted still counts.",
        Edit(State, "drop_queue", "self._count(queue, NOTHING)", "pass"),
    ),
    mutant(
        "copies-for-nothing",
        "Of what bindings copy one copy counts.",
        Edit(bindings, "routed", "_targets(bound, message) or [name]", "[name]"),
    ),
    mutant(
        "duplicates-charged",
        "A message that is known by its dedup_id needs room.",
        Edit(room.Wanted, "_new", "continue", "pass"),
    ),
    mutant(
        "transaction-beyond-quotas",
        "What a transaction puts needs no room.",
        Edit(
            transactions,
            "_refused",
            "wanted.refused(len(freed), sum(one.bytes for one in freed))",
            "None",
        ),
    ),
    mutant(
        "tick-waits-for-room",
        "A tick that finds no room stays due, and holds up all behind it.",
        Edit(schedules, "tick", "record.refused += 1", "return Enqueued(())"),
    ),
    mutant(
        "dead-letter-without-room",
        "A dead letter gets its queue, whatever the account may have.",
        Edit(dead_letters, "bury_if_due", "not quotas.has_room_for_queue(queue.account)", "False"),
    ),
    mutant(
        "limits-in-memory-only",
        "Limits hold on nodes that have seen them set, until they restart.",
        Edit(queues, "set_quotas", "state.touch(account)", "pass"),
    ),
)
