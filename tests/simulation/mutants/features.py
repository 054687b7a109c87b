"""Mutants of what failed, of duplicates, of transactions and of many claims at once."""

from __future__ import annotations

from simulation.mutants.damage import Edit, Mutant, mutant
from statemachine import claims, dead_letters, giving_back, messages, transactions

MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "duplicate-not-remembered",
        "A message with a dedup_id is put again within its window.",
        Edit(
            messages,
            "enqueue_into",
            "dedup.remember(state, queue, message.dedup_id, ids[-1])",
            "pass",
        ),
    ),
    mutant(
        "duplicate-told-another-id",
        "Who puts a duplicate is told an id that nothing has.",
        Edit(
            messages,
            "enqueue_into",
            "ids.append(earlier)",
            "ids.append(keys.message_id(state.take_id()))",
        ),
    ),
    mutant(
        "one-delivery-too-many",
        "A message is delivered once more than it may be before it is a dead letter.",
        Edit(dead_letters, "bury_if_due", "held.deliveries < most", "held.deliveries <= most"),
    ),
    mutant(
        "rejected-comes-back",
        "What a consumer rejected for good is delivered again.",
        Edit(dead_letters, "bury_if_due", "if not rejected and (", "if ("),
    ),
    mutant(
        "dead-letter-lost",
        "A message that was delivered too often is gone, and no dead letter.",
        Edit(
            dead_letters,
            "bury_if_due",
            "messages.enqueue_into(state, open_queue(state, account, target), (letter,))",
            "open_queue(state, account, target)",
        ),
    ),
    mutant(
        "back-off-ignored",
        "A message that failed is ready again at once, whatever its queue says.",
        Edit(giving_back, "give_back", "_retry_delay_ms(in_force, held.deliveries)", "0"),
    ),
    mutant(
        "reason-forgotten",
        "What was wrong with a message is not said at its next delivery.",
        Edit(giving_back, "give_back", "error = how.error or held.error", 'error = ""'),
    ),
    mutant(
        "transaction-puts-only",
        "A transaction puts its messages and settles nothing.",
        Edit(transactions, "_ack", "if ids == ():", "if True:"),
    ),
    mutant(
        "transaction-does-what-it-can",
        "A transaction of which a part is stale puts its messages all the same.",
        Edit(
            transactions,
            "_transact",
            "if lost:",
            "if lost:\n"
            "        for one in command.puts:\n"
            "            messages.enqueue(state, Enqueue(account, one.queue, one.messages))\n"
            "    if lost:",
        ),
    ),
    mutant(
        "split-claim-keeps-all",
        "Messages that got a claim of their own stay under the old one, too.",
        Edit(claims, "_split", "claim_record.messages = left", "pass"),
    ),
    mutant(
        "many-extended-means-one",
        "Of many claims that are extended at once only the first one is.",
        Edit(
            claims,
            "extend_many",
            "for claim_id in command.claims:",
            "for claim_id in command.claims[:1]:",
        ),
    ),
)
