"""Histories to read: each ``histories/*.txt`` is a log with the answers it must have.

A line is ``@log-time verb key=value ...``, the indented line below it the answer, a
line that begins with ``#`` prose. Messages and claims go by the order in which they
first appear. ``REWRITE_HISTORIES=1`` records the answers anew; review them as a diff.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memory_kv import MemoryKV
from statemachine import commands as c
from statemachine import hooks, queries
from statemachine import outcomes as o
from statemachine.commands import Batch, Command, Entry
from statemachine.machine import Machine
from statemachine.outcomes import Outcome
from statemachine.records import decode_message

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.txt"))
Words = dict[str, list[str]]


class Scenario:
    """Runs the lines of one file."""

    def __init__(self) -> None:
        self.kv = MemoryKV()
        self.machine = Machine(self.kv)
        self.names: dict[object, str] = {}
        self.things: dict[str, object] = {}

    def answer(self, line: str) -> str:
        time, verb, *rest = line.split()
        words: Words = {}
        for word in rest:
            key, _, value = word.partition("=")
            words.setdefault(key, []).append(value)
        now_ms = int(time.removeprefix("@"))
        if verb == "hooks":
            return self.hooks()
        if verb == "look":
            return self.look(words)
        command = COMMANDS[verb](self, words)
        if "key" in words:
            window = int(words.get("window", ["1000"])[0])
            assert isinstance(command, c.QueueCommand)
            command = c.Once("a", words["key"][0], words["print"][0].encode(), window, command)
        batch = Batch(0, 0, 0, (command,))
        if "session" in words:
            session = self.things[words["session"][0]]
            assert isinstance(session, int)
            seq = int(words["seq"][0])
            batch = Batch(session, seq, int(words.get("floor", ["0"])[0]), (command,))
        entry = Entry(c.ENTRY_VERSION, now_ms, (batch,))
        (result,) = self.machine.apply(self.machine.applied_index + 1, 1, entry)
        self.machine.end_round()
        due = self.machine.next_due_ms()
        woken = "".join(
            f" woken={'/'.join(filter(None, place))}:{count}"
            for place, count in self.machine.take_woken().items()
        )
        return f"{self.shown(result.outcomes[0])}; due={due}{woken}"

    def look(self, words: Words) -> str:
        names = names_of(words)
        stats = queries.stats(self.kv, *names)
        page = queries.browse(self.kv, *names, limit=100, include_claimed=True)
        if stats is None or page is None:
            return "no queue"
        shown = [f"{self.name('m', one.id)}:{one.state}({one.deliveries})" for one in page.items]
        counts = f"ready={stats.ready} delayed={stats.delayed} claimed={stats.claimed}"
        if stats.blocked:
            counts += f" blocked={stats.blocked}"
        return " ".join([counts, f"bytes={stats.bytes} oldest={stats.oldest_ready_ms}", *shown])

    def hooks(self) -> str:
        shown = [f"runners={','.join(hooks.runners(self.kv)) or 'none'}"]
        for view in hooks.all_subscriptions(self.kv):
            word = f"{'/'.join(view.names)}@{view.node or 'nobody'}"
            shown.append(f"{word}({view.disabled_reason})" if view.disabled_reason else word)
        return " ".join(shown)

    def name(self, kind: str, thing: object) -> str:
        if thing not in self.names:
            count = sum(name.startswith(kind) for name in self.things)
            self.names[thing] = f"{kind}{count + 1}"
            self.things[self.names[thing]] = thing
        return self.names[thing]

    def told(self, given: o.Delivered) -> str:
        """What is said of a message that has failed."""
        error = f"[{given.error}]" if given.error else ""
        dead = decode_message(given.record).dead
        if dead is None:
            return error
        source = f"{dead.queue}/{self.name('m', dead.id)}({dead.deliveries})"
        return f"{error}[{dead.reason}:{dead.error} of {source} @{dead.enqueued_ms}]"

    def shown(self, outcome: Outcome) -> str:
        match outcome:
            case o.Enqueued(ids, duplicates):
                names = [self.name("m", one) for one in ids]
                again = [f"duplicate={at}" for at in duplicates]
                return " ".join(["Enqueued", *names, *again])
            case o.Claimed(claim, until_ms, messages) if messages:
                shown = [
                    f"{self.name('m', one.id)}({one.deliveries})="
                    f"{decode_message(one.record).body.decode()}{self.told(one)}"
                    for one in messages
                ]
                return " ".join(["Claimed", self.name("c", claim), f"until={until_ms}", *shown])
            case o.Settled(count, stale):
                names = [self.name("m", one) for one in stale]
                return " ".join([f"Settled {count}", *(f"stale={name}" for name in names)])
            case o.SessionOpened(session):
                return f"SessionOpened {self.name('s', session)}"
            case o.SubscriptionsTaken(runner, until_ms) if runner:
                return f"SubscriptionsTaken {self.name('r', runner)} until={until_ms}"
            case o.Refused(reason, _):
                return f"Refused {reason}"
            case other:
                return repr(other)

    def claim(self, words: Words) -> int:
        thing = self.things.get(words["claim"][0], 12345)
        assert isinstance(thing, int)
        return thing

    def ids(self, words: Words) -> tuple[bytes, ...] | None:
        if "id" not in words:
            return None
        found = []
        for name in words["id"]:
            thing = self.things[name]
            assert isinstance(thing, bytes)
            found.append(thing)
        return tuple(found)


def names_of(words: Words) -> tuple[str, str]:
    account, _, queue = words.get("queue", ["a/q"])[0].partition("/")
    return account, queue


def number(words: Words, key: str) -> int | None:
    return int(words[key][0]) if key in words else None


SETTINGS = {
    "ttl": "ttl_ms",
    "delay": "delay_ms",
    "lease": "lease_ms",
    "max": "max_deliveries",
    "dlq": "dead_letter_queue",
    "retry": "retry_delay_ms",
    "retry-max": "retry_delay_max_ms",
    "window": "dedup_window_ms",
    "mode": "zone_mode",
    "wait": "locality_wait_ms",
}


def word(words: Words, key: str) -> str | None:
    return words[key][0] if key in words else None


def settings_of(words: Words) -> c.QueueSettings:
    given: dict[str, Any] = {
        member: words[key][0] if key in ("dlq", "mode") else int(words[key][0])
        for key, member in SETTINGS.items()
        if key in words
    }
    return c.QueueSettings(**given)


def fields_of(words: Words) -> tuple[str, ...]:
    return tuple(SETTINGS.get(name, name) for name in words.get("field", []))


def put(_: Scenario, words: Words) -> Command:
    ttl, delay = number(words, "ttl"), number(words, "delay")
    new = tuple(
        c.NewMessage(
            body.encode(),
            "text/plain",
            ttl_ms=ttl,
            delay_ms=delay,
            zone=word(words, "zone") or "",
            priority=number(words, "priority") or 0,
            group=word(words, "group") or "",
            dedup_id=word(words, "dedup") or "",
            not_before_ms=number(words, "not-before"),
        )
        for body in words["body"]
    )
    return c.Enqueue(*names_of(words), new)


def hook_of(words: Words) -> tuple[str, str, str]:
    return (*names_of(words), words["hook"][0])


def put_hook(_: Scenario, words: Words) -> Command:
    settings = c.SubscriptionSettings("https://x", (), 1, 1, 1, 1, 1, 1)
    return c.PutSubscription(*hook_of(words), settings, b"key", made="given" not in words)


def disable_hook(scenario: Scenario, words: Words) -> Command:
    view = hooks.subscription(scenario.kv, *hook_of(words))
    revision = view.revision if view and "stale" not in words else 0
    return c.DisableSubscription(*hook_of(words), revision, words["why"][0])


def take(_: Scenario, words: Words) -> Command:
    taken, dropped = (
        tuple((*names_of(words), name) for name in words.get(key, [])) for key in ("take", "drop")
    )
    return c.TakeSubscriptions(words["node"][0], number(words, "lease") or 0, taken, dropped)


def claim(_: Scenario, words: Words) -> Command:
    return c.Claim(
        *names_of(words),
        number(words, "limit") or 1,
        number(words, "lease"),
        word(words, "zone") or "",
        word(words, "mode"),
        number(words, "wait"),
    )


COMMANDS: dict[str, Callable[[Scenario, Words], Command]] = {
    "put": put,
    "claim": claim,
    "extend": lambda s, w: c.Extend(*names_of(w), s.claim(w), number(w, "lease")),
    "ack": lambda s, w: c.Ack(*names_of(w), s.claim(w), s.ids(w)),
    "release": lambda s, w: c.Release(
        *names_of(w),
        s.claim(w),
        s.ids(w),
        number(w, "delay"),
        w.get("reason", [""])[0],
        "dead" in w,
    ),
    "delete": lambda s, w: c.DeleteMessages(*names_of(w), s.ids(w) or ()),
    "purge": lambda _, w: c.Purge(*names_of(w)),
    "put-queue": lambda _, w: c.PutQueue(*names_of(w), settings_of(w)),
    "patch-queue": lambda _, w: c.PatchQueue(*names_of(w), settings_of(w), fields_of(w)),
    "delete-queue": lambda _, w: c.DeleteQueue(*names_of(w)),
    "put-account": lambda _, w: c.PutAccount(w["account"][0], settings_of(w)),
    "patch-account": lambda _, w: c.PatchAccount(w["account"][0], settings_of(w), fields_of(w)),
    "delete-account": lambda _, w: c.DeleteAccount(w["account"][0]),
    "put-hook": put_hook,
    "delete-hook": lambda _, w: c.DeleteSubscription(*hook_of(w)),
    "disable-hook": disable_hook,
    "take": take,
    "sweep": lambda _, w: c.Sweep(int(w.get("limit", ["100"])[0])),
    "open-session": lambda _, w: c.OpenSession("n1"),
}


def recorded(text: str) -> Iterator[str]:
    """The file's lines with the answers as they are now."""
    scenario = Scenario()
    for line in text.splitlines():
        if line.startswith("@"):
            yield line
            yield f"    {scenario.answer(line)}"
        elif not line.startswith("    "):
            yield line


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_history_has_these_answers(path: Path) -> None:
    text = path.read_text()
    now = "\n".join(recorded(text)) + "\n"
    if os.environ.get("REWRITE_HISTORIES"):
        path.write_text(now)
    assert text == now


def test_there_are_histories() -> None:
    assert len(HISTORIES) > 5
