"""Mutants of what stands: bindings, schedules, and subscriptions with whoever runs them."""

from __future__ import annotations

from api.webhooks import attempts
from api.webhooks.courier import Courier
from api.webhooks.runner import Runner
from raftq.replica import schedules as proposing
from raftq.replica import ticks
from simulation.mutants.damage import Edit, Mutant, mutant
from statemachine import bindings, filters, hooks, queues, schedules, subscriptions

MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "copy-to-the-first-only",
        "A message that several bindings match goes to one of their targets.",
        Edit(bindings, "_targets", "any_of=one.any_of)]", "any_of=one.any_of)][:1]"),
    ),
    mutant(
        "unmatched-is-dropped",
        "What no binding matches is put nowhere, or to where the first one leads.",
        Edit(bindings, "fan_out", "_targets(bound, message) or [name]", "_targets(bound, message)"),
    ),
    mutant(
        "unmatched-is-misled",
        "What no binding matches goes to the first target instead of staying.",
        Edit(bindings, "fan_out", "or [name]", "or [bound[0].target]"),
    ),
    mutant(
        "matched-stays-too",
        "What a binding matches is also put to the queue itself.",
        Edit(
            bindings,
            "fan_out",
            "_targets(bound, message) or [name]",
            "sorted({*_targets(bound, message), name})",
        ),
    ),
    mutant(
        "any-means-all",
        "A binding of which one header has to match wants all of them.",
        Edit(filters, "has", "any(tests) if any_of else all(tests)", "all(tests)"),
    ),
    mutant(
        "prefix-means-value",
        "A header that begins as it should has to be just that.",
        Edit(filters, "_has", "value.startswith(match.prefixes)", "value in match.prefixes"),
    ),
    mutant(
        "header-by-its-case",
        "A header's name matches only in the same case.",
        Edit(filters, "_lower", "name.lower() if name.isascii() else name", "name"),
    ),
    mutant(
        "binding-forgotten-by-another",
        "A queue that is bound once more forgets what it was bound to before.",
        Edit(bindings, "put_binding", "[*others, new]", "[new]"),
    ),
    mutant(
        "subscription-outlives-its-queue",
        "A queue that is deleted is still subscribed to.",
        Edit(
            queues,
            "delete_queue",
            "_drop_subscriptions(state, queue.account, command.account, command.queue)",
            "pass",
        ),
    ),
    mutant(
        "tick-of-two-leaders",
        "A tick takes effect as often as leaders tell of it.",
        Edit(
            schedules,
            "tick",
            "or (command.version, command.due_ms) != (record.version, record.next_ms)",
            "",
        ),
    ),
    mutant(
        "tick-before-its-time",
        "A leader tells of ticks half a second before they are due, and is believed.",
        Edit(schedules, "tick", "or command.due_ms > state.now_ms", ""),
        Edit(schedules, "due", "    if first is None", "    now_ms += 500\n    if first is None"),
        Edit(schedules, "first_ms", "keys.split_tick(first)[0]", "keys.split_tick(first)[0] - 500"),
    ),
    mutant(
        "missed-ticks-left-out",
        "Ticks for which no leader was there are left out, though all were asked for.",
        Edit(proposing, "tick_of", 'missed == "all" and', "False and"),
    ),
    mutant(
        "one-tick-left-out",
        "A schedule that is not behind leaves out every other tick.",
        Edit(ticks, "_interval", "// every_ms + 1)", "// every_ms + 2)"),
    ),
    mutant(
        "no-tick-after-the-first",
        "A leader proposes one tick and waits for its end for ever.",
        Edit(
            proposing,
            "tick_of",
            "next_tick(record.timing,",
            "record.timing.end_ms and next_tick(record.timing,",
        ),
    ),
    mutant(
        "schedule-put-again-starts-anew",
        "A schedule that is put as it was waits for another tick than before.",
        Edit(schedules, "put_schedule", "if _same(before, command):", "if False:"),
    ),
    mutant(
        "deleted-schedule-ticks-on",
        "The tick that a deleted schedule waited for is still waited for.",
        Edit(schedules, "delete_schedule", "_wait(state, key, record, None)", "pass"),
    ),
    mutant(
        "taken-from-who-has-it",
        "A node takes subscriptions that another one has.",
        Edit(subscriptions, "take", "and not _is_taken(state, found)", ""),
    ),
    mutant(
        "dead-runner-keeps-all",
        "What a node had that is no more is never free.",
        Edit(
            subscriptions,
            "_is_taken",
            "return runner is not None and runner.number == record.runner and "
            "runner.until_ms > state.now_ms",
            "return True",
        ),
    ),
    mutant(
        "runner-lives-for-ever",
        "A node that has not been heard of still runs subscriptions.",
        Edit(subscriptions, "forget_runner", "_forget(state, node, runner)", "pass"),
        Edit(hooks, "runners", "record.until_ms > now_ms", "True"),
    ),
    mutant(
        "another-secret-made-up",
        "A subscription that is put again without a secret loses the one that it had.",
        Edit(
            subscriptions,
            "put",
            "found.secret if command.made else command.secret",
            "command.secret",
        ),
    ),
    mutant(
        "old-receiver-disables-the-new",
        "A receiver that wants no more ends the subscription of whoever came after it.",
        Edit(subscriptions, "disable", "found.revision == command.revision and", ""),
    ),
    mutant(
        "nothing-is-given-back",
        "A node that stops leaves its subscriptions to nobody until its lease ends.",
        Edit(Runner, "_be_no_runner", "await self._take(0.0, (), (), GIVE_UP_S)", "pass"),
    ),
    mutant(
        "delivered-comes-again",
        "What the receiver has taken is given back instead of acknowledged.",
        Edit(
            Courier,
            "_consequence",
            "return Ack(account, queue, hold.claim, ids)",
            "return Release(account, queue, hold.claim, ids, delay_ms=0)",
        ),
    ),
    mutant(
        "room-is-used-up",
        "What was posted leaves no room for the next message.",
        Edit(Courier, "_deliver", "self._slots.give(1)", "self._slots.give(0)"),
    ),
    mutant(
        "failure-taken-for-success",
        "A receiver that fails is taken to have the message.",
        Edit(attempts, "_judged", "200 <= status < 300", "200 <= status < 600"),
    ),
)
