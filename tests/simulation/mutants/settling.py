"""Mutants of what becomes of messages: dead letters, duplicates, transactions, jobs, events."""

from __future__ import annotations

from raftq.replica.submitter import Submitter
from simulation.mutants.damage import Edit, Mutant, mutant
from statemachine import (
    acts,
    claims,
    dead_letters,
    dedup,
    events,
    giving_back,
    messages,
    recollection,
    transactions,
    walks,
)

MUTANTS: tuple[Mutant, ...] = (
    # Giving back.
    mutant(
        "dead-letter-kept-alive",
        "What became a dead letter stays in its queue too.",
        Edit(dead_letters, "bury_if_due", "messages.leave(state, queue, (held,))", "pass"),
    ),
    mutant(
        "dead-letter-dies-again",
        "A dead letter that is rejected becomes a dead letter of the next queue.",
        Edit(dead_letters, "bury_if_due", "times.flags & DEAD or ", ""),
    ),
    mutant(
        "back-off-not-doubled",
        "What fails again waits no longer than the first time.",
        Edit(giving_back, "_retry_delay_ms", "min(deliveries - 1, DOUBLINGS_MAX)", "0"),
    ),
    mutant(
        "delay-counted-twice",
        "A delay is twice as long.",
        Edit(
            messages, "_delay", "later(state.now_ms, delay_ms)", "later(state.now_ms, 2 * delay_ms)"
        ),
    ),
    mutant(
        "not-before-ignored",
        "What is to wait until a time is ready as if no time were said.",
        Edit(messages, "enqueue_into", "if at_ms is None", "if True"),
    ),
    # Duplicates.
    mutant(
        "dedup-window-too-long",
        "A dedup id is taken for a second longer than its window.",
        Edit(
            dedup,
            "remember",
            "later(state.now_ms, window_ms)",
            "later(state.now_ms, window_ms + 1_000)",
        ),
    ),
    # Transactions.
    mutant(
        "transaction-acks-before-it-checks",
        "A transaction that is refused has acknowledged what it could.",
        Edit(
            transactions,
            "_transact",
            "if lost:",
            "if lost:\n"
            "        for part in command.acks:\n"
            "            claims.ack(state, Ack(account, part.queue, part.claim, part.ids))",
        ),
    ),
    mutant(
        "transaction-without-its-releases",
        "A transaction says that it gave messages back, and does not.",
        Edit(
            transactions,
            "_transact",
            "_release(state, account, release, ids)",
            "len(ids or ())",
        ),
    ),
    mutant(
        "claim-after-what-was-not-done",
        "A transaction that did nothing claims what is next all the same.",
        Edit(transactions, "run", "if done.stale:", "if False:"),
    ),
    mutant(
        "claim-after-remembered-as-it-was",
        "Of a transaction that comes again the claim is answered without what it still holds.",
        Edit(
            recollection,
            "recalled",
            "claimed = _recalled(state, command.claim, claimed)",
            "pass",
        ),
    ),
    # Redrives.
    mutant(
        "redrive-cursor-forgotten",
        "A step of a redrive begins where the one before it began.",
        Edit(walks, "_over_messages", 'job.cursor = message_id + b"\\x00"', "pass"),
    ),
    mutant(
        "redrive-copies",
        "A redriven message stays where it was too.",
        Edit(
            acts.Step,
            "_send",
            "messages.remove(state, queue, message_id, records.times(data))",
            "pass",
        ),
    ),
    mutant(
        "redrive-takes-newcomers",
        "A redrive moves what came into the queue after it began.",
        Edit(acts.Step, "is_new", "number >= self.job.mark", "False"),
    ),
    # Events.
    mutant(
        "history-trimmed-behind-its-mark",
        "More is forgotten than a history says is gone.",
        Edit(events, "_forget", "history.gone_index + 1", "history.gone_index + 9"),
    ),
    mutant(
        "lease-ends-without-event",
        "A lease that ran out is not told.",
        Edit(
            claims,
            "end_lease",
            "events.note_claim(state, queue, events.LEASE_ENDED, claim_id, found, settled)",
            "pass",
        ),
    ),
    # What is claimed and acknowledged at once.
    mutant(
        "taken-and-kept",
        "What is acknowledged with its claim stays where it was, and is nobody's.",
        Edit(claims, "take", "messages.leave(state, queue, taken.held)", "pass"),
    ),
    mutant(
        "taken-under-a-lease",
        "What is acknowledged with its claim comes again when a lease has ended.",
        Edit(
            claims,
            "take",
            "messages.leave(state, queue, taken.held)",
            "_open(state, queue, claim_id, state.now_ms + 50, taken.held, command.consumer)",
        ),
    ),
    mutant(
        "taken-without-ack",
        "Of what is acknowledged with its claim only the claim is told.",
        Edit(
            claims,
            "take",
            "events.note_claim(state, queue, events.ACKED, claim_id, over, taken.held)",
            "pass",
        ),
    ),
    # Weak puts.
    mutant(
        "accepted-before-it-is-taken",
        "A command counts as accepted when it was sent.",
        Edit(
            Submitter,
            "_send",
            "patience_s = flight.patience_s\n",
            "patience_s = flight.patience_s\n"
            "        self._runtime.call_soon(\n"
            "            lambda: self.accepted(flight.batch.session, flight.batch.seq)\n"
            "        )\n",
        ),
    ),
)
