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

import msgspec
import pytest

from memory_kv import MemoryKV
from statemachine import commands as c
from statemachine import hooks, keys, queries
from statemachine import outcomes as o
from statemachine.commands import Batch, Command, Entry
from statemachine.machine import Machine
from statemachine.outcomes import Outcome
from statemachine.records import JobRecord, decode_message, decode_schedule

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
        if verb == "usage":
            return self.usage()
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
        tick = self.machine.next_tick_ms()
        woken = "".join(
            f" woken={'/'.join(filter(None, place))}:{count}"
            for place, count in self.machine.take_woken().items()
        )
        ticks = "" if tick is None else f" tick={tick}"
        return f"{self.shown(result.outcomes[0])}; due={due}{ticks}{woken}"

    def look(self, words: Words) -> str:
        names = names_of(words)
        stats = queries.stats(self.kv, *names)
        page = queries.browse(self.kv, *names, limit=100, include_claimed=True)
        if stats is None or page is None:
            return "no queue"
        shown = [f"{self.name('m', one.id)}:{one.state}({one.deliveries})" for one in page.items]
        if "job" in words:
            return self.job(queries.job(self.kv, *names))
        if "of-late" in words:
            recent = [f"{kind}={count}" for kind, count in stats.recent.items() if count]
            return f"dead={stats.dead} ended={stats.leases_ended} {' '.join(recent)}"
        counts = f"ready={stats.ready} delayed={stats.delayed} claimed={stats.claimed}"
        if stats.blocked:
            counts += f" blocked={stats.blocked}"
        return " ".join([counts, f"bytes={stats.bytes} oldest={stats.oldest_ready_ms}", *shown])

    def job(self, job: JobRecord | None) -> str:
        if job is None:
            return "no job"
        failures = "".join(f" {self.name('m', one.id)}:{one.reason}" for one in job.failures)
        counts = f"done={job.done} skipped={job.skipped} failed={job.failed}{failures}"
        return f"looked={job.looked} of {job.total} {counts} ended={job.ended_ms}"

    def usage(self) -> str:
        """Of all that the account has some of, without the bytes of its history."""
        found = queries.usage(self.kv, "a")
        if found is None:
            return "no account"
        counts = msgspec.structs.asdict(found.usage).items()
        shown = [f"{name}={n}" for name, n in counts if n and name != "history_bytes"]
        return " ".join(shown) or "nothing"

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

    def lost(self, stale: tuple[bytes, ...], why: tuple[o.Why, ...]) -> str:
        pairs = zip(stale, why, strict=True)
        return "".join(f" stale={self.name('m', one)}:{what}" for one, what in pairs)

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
            case o.Enqueued(ids, duplicates, ()):
                names = [self.name("m", one) for one in ids]
                again = [f"duplicate={at}" for at in duplicates]
                return " ".join(["Enqueued", *names, *again])
            case o.Enqueued(_, duplicates, routed):
                places = [
                    "+".join(f"{one.queue}/{self.name('m', one.id)}" for one in message)
                    for message in routed
                ]
                again = [f"duplicate={at}" for at in duplicates]
                return " ".join(["Enqueued", *places, *again])
            case o.Claimed(claim, until_ms, messages) if messages:
                shown = [
                    f"{self.name('m', one.id)}({one.deliveries})="
                    f"{decode_message(one.record).body.decode()}{self.told(one)}"
                    for one in messages
                ]
                return " ".join(["Claimed", self.name("c", claim), f"until={until_ms}", *shown])
            case o.Settled(count, stale, why):
                return f"Settled {count}{self.lost(stale, why)}"
            case o.Extended(until_ms, claim, stale, why):
                to = f" {self.name('c', claim)}" if claim else ""
                return f"Extended(until_ms={until_ms}){to}{self.lost(stale, why)}"
            case o.ManyExtended(until_ms, ended):
                over = [f" {self.name('c', one)}:over={is_known}" for one, is_known in ended]
                return f"ManyExtended until={until_ms}{''.join(over)}"
            case o.Transacted(acked, released, put, stale_parts):
                parts = [
                    f" part={one.part} ended={one.ended}{self.lost(one.stale, one.why)}"
                    for one in stale_parts
                ]
                ids = [f" {self.name('m', one)}" for given in put for one in given.ids]
                done = f" acked={acked} released={released}" if not parts else ""
                return f"Transacted{done}{''.join(ids)}{''.join(parts)}"
            case _:
                return self.shown_briefly(outcome)

    def shown_briefly(self, outcome: Outcome) -> str:
        match outcome:
            case o.SessionOpened(session):
                return f"SessionOpened {self.name('s', session)}"
            case o.SubscriptionsTaken(runner, until_ms) if runner:
                return f"SubscriptionsTaken {self.name('r', runner)} until={until_ms}"
            case o.Refused(reason, _, stale, why, None):
                return f"Refused {reason}{self.lost(stale, why)}"
            case o.Refused(reason, over=o.Over(quota, limit, usage)):
                return f"Refused {reason}: {quota} {usage} of {limit}"
            case other:
                return repr(other)

    def claim(self, words: Words) -> int:
        thing = self.things.get(words["claim"][0], 12345)
        assert isinstance(thing, int)
        return thing

    def claims(self, words: Words) -> tuple[int, ...]:
        return tuple(self.claim({"claim": [one]}) for one in words["claim"])

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


def transaction(scenario: Scenario, words: Words) -> Command:
    """Parts as ``ack=c1`` or ``release=c2:m3,m4``; ``put=queue:body``."""

    def parts(key: str) -> Iterator[tuple[str, int, tuple[bytes, ...] | None]]:
        for text in words.get(key, []):
            claim, _, ids = text.partition(":")
            named = {"id": ids.split(",")} if ids else {}
            yield "q", scenario.claim({"claim": [claim]}), scenario.ids(named)

    new = [text.partition(":") for text in words.get("put", [])]
    return c.Transact(
        "a",
        tuple(c.PartAck(*part) for part in parts("ack")),
        tuple(c.PartPut(name, (c.NewMessage(body.encode(), "t"),)) for name, _, body in new),
        tuple(c.PartRelease(*part) for part in parts("release")),
    )


def quotas(_: Scenario, words: Words) -> Command:
    """All limits; with ``patch`` those named."""
    names = [name for name in c.Quotas.__struct_fields__ if name in words]
    limits = c.Quotas(**{name: int(words[name][0]) for name in names})
    return c.SetQuotas("a", limits, tuple(names) if "patch" in words else None)


def put(_: Scenario, words: Words) -> Command:
    ttl, delay = number(words, "ttl"), number(words, "delay")
    headers = tuple(pairs(words.get("header", [])))
    new = tuple(
        c.NewMessage(
            body.encode(),
            "text/plain",
            headers,
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


def pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        name, _, value = word.partition(":")
        yield name, value


def matches(words: list[str]) -> tuple[c.HeaderMatch, ...]:
    """A value that ends in a star is a prefix."""
    return tuple(
        c.HeaderMatch(name, (), (value[:-1],))
        if value.endswith("*")
        else c.HeaderMatch(name, (value,))
        for name, value in pairs(words)
    )


def bind(_: Scenario, words: Words) -> Command:
    match = matches(words.get("match", []))
    return c.PutBinding(*names_of(words), words["to"][0], match, "any" in words)


def put_schedule(_: Scenario, words: Words) -> Command:
    message = c.NewMessage(words["body"][0].encode(), "text/plain")
    account, queue = names_of(words)
    timing = c.Timing(every_ms=number(words, "every") or 0)
    return c.PutSchedule(account, words["name"][0], queue, message, timing, number(words, "next"))


def tick(scenario: Scenario, words: Words) -> Command:
    """``putting`` says which putting of the schedule is meant, if not the present one."""
    name, due_ms = words["name"][0], number(words, "of")
    record = decode_schedule(scenario.kv.rows()[keys.schedule("a", name)])
    putting = words.get("putting", ["now"])[0]
    version = scenario.things.setdefault(f"{name}-{putting}", record.version)
    version = record.version if putting == "now" else version
    assert isinstance(version, int)
    assert due_ms is not None
    return c.Tick("a", name, version, due_ms, number(words, "next"), "skip" in words)


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
    limit, lease_ms = number(words, "limit") or 1, number(words, "lease")
    whose = (word(words, "zone") or "", word(words, "mode"), number(words, "wait"))
    if "auto-ack" in words:
        return c.Take(*names_of(words), limit, *whose)
    return c.Claim(*names_of(words), limit, lease_ms, *whose)


def job(_: Scenario, words: Words) -> Command:
    wanted = c.Filter(
        headers=matches(words.get("has", [])),
        group=word(words, "group"),
        priority=number(words, "priority"),
        min_age_ms=number(words, "age"),
        min_deliveries=number(words, "deliveries") or 0,
        state=msgspec.convert(word(words, "state"), c.MessageState | None),
    )
    return c.StartJob(
        *names_of(words),
        word(words, "to") or "",
        number(words, "limit") or 0,
        number(words, "rate") or 0,
        msgspec.convert(word(words, "act") or "redrive", c.Act),
        wanted,
        "dry" in words,
    )


COMMANDS: dict[str, Callable[[Scenario, Words], Command]] = {
    "put": put,
    "claim": claim,
    "extend": lambda s, w: c.Extend(*names_of(w), s.claim(w), number(w, "lease"), s.ids(w)),
    "extend-many": lambda s, w: c.ExtendMany(*names_of(w), s.claims(w), number(w, "lease")),
    "transact": lambda s, w: transaction(s, w),
    "job": job,
    "cancel": lambda _, w: c.CancelJob(*names_of(w)),
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
    "quotas": quotas,
    "bind": bind,
    "unbind": lambda _, w: c.DeleteBinding(*names_of(w), w["to"][0]),
    "put-schedule": put_schedule,
    "delete-schedule": lambda _, w: c.DeleteSchedule("a", w["name"][0]),
    "tick": tick,
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
