"""What a tenant sees is exactly what it would see alone.

Tenants with the same names for everything send requests over all routes, with keys of all
kinds, their own and foreign ones, and with ids that any of them has ever seen. The same
requests go to one world that all share, and each tenant's to a world of its own, where
barriers stand in the log for what the others do: so that ids, which are made of places in
the log, are the same too, and answers can be compared byte for byte.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from access import bearing
from api.access import minting, tokens
from api.app import create
from api.ports import AccessPolicy
from api.rest.requests import NDJSON
from api.rest.table import TABLE
from asgi_client import Exchange, Reply
from local_service import LocalService
from statemachine.commands import Barrier, KeySettings, PutKey

PEPPER = b"0123456789abcdef"
TENANTS = ("red", "green", "blue")
QUEUES = ("jobs", "jobs.dead", "mail")
ROLES = ("produce", "consume", "manage", "admin")
TURNS = 40
ABSENT = {"message": "00" * 10, "claim": "00" * 8, "key_id": "z" * 16}

PATTERNS = {
    "message": r'"([0-9a-f]{20})"',
    "claim": r'"([0-9a-f]{16})"',
    "key_id": r'"id":"([0-9A-Za-z]{16})"',
}
CRON = {"cron": "0 0 1 1 *", "queue": "mail", "message": {"body": 1}}
HOOK = {"url": "https://hooks.example/", "secret": "whsec_" + "A" * 43 + "="}
KEY = {"roles": ["consume"], "queues": ["jobs*"]}

BODIES: dict[str, list[Any]] = {
    "put_messages": [
        {"body": {"a": 1}},
        {"messages": [{"body": 1, "priority": 7}, {"body": 2, "group": "g", "delay": 1}]},
        {"body": 3, "dedup_id": "once", "ttl": 2},
    ],
    "claim_messages": [{}, {"limit": 2, "lease": 1}, {"auto_ack": True}],
    "ack_messages": [None, {"ids": ["{message}"]}, {"next": {"limit": 2}}],
    "nack_messages": [None, {"ids": ["{message}"], "reason": "no"}],
    "extend_claim": [None, {"lease": 5}],
    "extend_claims": [{"claims": ["{claim}"], "lease": 3}],
    "transact": [
        {"puts": [{"queue": "mail", "messages": [{"body": 5}]}]},
        {"acks": [{"queue": "jobs", "claim": "{claim}"}]},
        {
            "puts": [{"queue": "mail", "messages": [{"body": 6}]}],
            "next": {"queue": "jobs", "limit": 2},
        },
    ],
    "put_queue": [None, {"max_deliveries": 1, "history": 3_600}],
    "patch_queue": [{"lease": 2}, {"dead_letter_queue": "mail"}],
    "share_queue": [{"methods": ["GET"], "paths": ["stats"]}],
    "start_job": [{"act": "move", "to": "mail", "rate": 1}, {"act": "delete", "dry_run": True}],
    "start_redrive": [None, {"to": "mail"}],
    "put_binding": [{}, {"match": {"k": "v"}}],
    "put_schedule": [CRON],
    "put_subscription": [HOOK],
    "put_account": [None],
    "patch_account": [{"defaults": {"lease": 9}}],
    "make_key": [KEY, {"roles": ["admin"]}],
    "rotate_key": [None],
    "make_operator_key": [{"roles": ["admin"]}],
    "rotate_operator_key": [None],
    "switch_encryption": [{"enabled": True}],
    "put_quotas": [{"queues": 1}],
    "patch_quotas": [{"queues": 1}],
}


LINES: dict[str, list[bytes]] = {
    "put_messages": [b'{"body": 1}\n{"body": 2, "group": "g"}\n', b'{"body": 1}\n{"boddy": 1}\n'],
    "consume_messages": [b'{"credit": 5}\n{"ack": "{claim}"}\n', b'{"nack": ["{claim}"]}\n'],
}
"""Bodies of streams."""


class Step(NamedTuple):
    """A request, as it was drawn."""

    key: int  # Of all keys there are; beyond them, none. Who has it is the tenant that asks.
    account: int
    route: int
    body: int
    queue: int
    known: int  # Which of the ids that were seen by anybody; -1: the tenant's own last one.
    passes_ms: int


class World:
    """A node with the keys of some tenants; what others do is a barrier in its log."""

    def __init__(self) -> None:
        self.service = LocalService(access=AccessPolicy(required=True, pepper=PEPPER))
        self.app = create(self.service)

    @property
    def index(self) -> int:
        return self.service.status().applied_index

    async def reach(self, index: int) -> None:
        while self.index < index:
            await self.service.propose(Barrier())

    async def ask(self, method: str, target: str, body: Any, headers: dict[str, str]) -> Reply:
        chunks = None
        if isinstance(body, bytes):
            body, chunks, headers = None, [body], headers | {"content-type": NDJSON}
        exchange = Exchange(self.app, method, target, body=body, chunks=chunks, headers=headers)
        task = asyncio.create_task(exchange.run())
        for _ in range(TURNS):  # Streams of events have no end: look at what there is.
            await asyncio.sleep(0)
        exchange.left.set()
        return await task


class Worlds:
    """The world that all share, and one for each tenant."""

    def __init__(self, grants: list[tuple[int, frozenset[str], str]]) -> None:
        self.shared = World()
        self.own = [World() for _ in TENANTS]
        self.grants = grants
        self.taken = 0
        self.tokens: list[tuple[str, int]] = []
        """With whose they are."""
        self.seen = {kind: [absent] for kind, absent in ABSENT.items()}
        self.last = [dict(ABSENT) for _ in TENANTS]

    async def begin(self) -> None:
        """Give out keys."""
        for number, (tenant, roles, pattern) in enumerate(self.grants):
            token = tokens.token_of(f"{number:016}", number)
            self.tokens.append((token, tenant))
            self.seen["key_id"].append(f"{number:016}")
            granted = KeySettings("", tuple(sorted(roles)), (pattern,))
            digest = tokens.digest(PEPPER, token)
            command = PutKey(TENANTS[tenant], f"{number:016}", granted, digest)
            await self.shared.service.propose(command)
            await self.own[tenant].service.propose(command)
            await self.align()

    async def align(self) -> None:
        """The same place in every log."""
        worlds = (self.shared, *self.own)
        index = max(world.index for world in worlds)
        for world in worlds:
            await world.reach(index)

    async def take(self, step: Step) -> int:
        """One request in both worlds; the status with which it was answered."""
        for world in (self.shared, *self.own):
            world.service.advance(step.passes_ms / 1_000)
        await self.align()
        row = TABLE[step.route]
        key, tenant = self.tokens[step.key] if step.key < len(self.tokens) else ("rq_none", 0)
        names = self._names(step, tenant)
        target = re.sub(r"{(\w+)}", lambda found: names[found[1]], row.path)
        choices: list[Any] = BODIES.get(row.id, []) + LINES.get(row.id, []) or [None]
        body = choices[step.body % len(choices)]
        if isinstance(body, bytes):
            body = _filled(body.decode(), names).encode()
        else:
            body = json.loads(_filled(json.dumps(body), names))
        self.taken += 1
        # Of the same trace, since a request that is of none has an id like no other's.
        shown = bearing(key) | {"traceparent": f"00-{self.taken:032x}-{1:016x}-01"}
        replies = []
        for world in (self.shared, self.own[tenant]):
            _chance.seed(self.taken)
            replies.append(await world.ask(row.method, target, body, shown))
        assert replies[0] == replies[1], (row.id, TENANTS[tenant])
        self._look(replies[0].body.decode(), tenant)
        await self.align()
        return replies[0].status

    def _names(self, step: Step, tenant: int) -> dict[str, str]:
        known = {kind: ids[step.known % len(ids)] for kind, ids in self.seen.items()}
        if step.known < 0:
            known = self.last[tenant]
        standing = {"target": "mail", "schedule": "nightly", "subscription": "hook"}
        return {"account": TENANTS[step.account], "queue": QUEUES[step.queue], **known, **standing}

    def _look(self, text: str, tenant: int) -> None:
        """Remember ids, so that others can try them."""
        for kind, pattern in PATTERNS.items():
            found = re.findall(pattern, text)
            self.seen[kind] += found
            if found:
                self.last[tenant][kind] = found[-1]
        self.tokens += [(token, tenant) for token in re.findall(r'"(rq_\w+)"', text)]


_chance = random.Random(0)


class Chance:
    """In place of ``secrets``: the same in all worlds."""

    choice = staticmethod(_chance.choice)
    randbits = staticmethod(_chance.getrandbits)


@pytest.fixture(autouse=True, scope="module")
def _the_same_chance() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minting, "secrets", Chance)
        yield


def _filled(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return text


grants = st.tuples(
    st.sampled_from(range(len(TENANTS))),
    st.frozensets(st.sampled_from(ROLES[:3]), min_size=1),
    st.sampled_from(("*", "jobs*", "mail", "none")),
)
# Nearly all requests are in a tenant's own account with a key of its own: others end at once.
BUSY = (
    "put_messages",
    "claim_messages",
    "ack_messages",
    "browse_messages",
    "queue_events",
    "consume_messages",
)
ROUTES = [number for number, row in enumerate(TABLE) if row.access.resource != "public"]
ROUTES += [number for number, row in enumerate(TABLE) if row.id in BUSY] * 4


WHOLE = [(tenant, frozenset(ROLES[:3]), "*") for tenant in range(len(TENANTS))]
"""For each tenant a key that may all that a tenant can."""


@st.composite
def steps(draw: st.DrawFn) -> Step:
    tenant = draw(st.sampled_from(range(len(TENANTS))))
    own = draw(st.integers(0, 9)) > 0
    return Step(
        key=tenant if own else draw(st.integers(0, 9)),
        account=tenant if own else draw(st.sampled_from(range(len(TENANTS)))),
        route=draw(st.sampled_from(ROUTES)),
        body=draw(st.integers(0, 5)),
        queue=draw(st.sampled_from(range(len(QUEUES)))),
        known=draw(st.one_of(st.just(-1), st.integers(0, 1_000))),
        passes_ms=draw(st.sampled_from((0, 1, 700, 5_000))),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(grants, max_size=4), st.lists(steps(), min_size=10, max_size=40))
def test_a_tenant_sees_what_it_would_see_alone(
    more: list[tuple[int, frozenset[str], str]], sequence: list[Step]
) -> None:
    async def play() -> None:
        worlds = Worlds(WHOLE + more)
        await worlds.begin()
        for step in sequence:
            assert await worlds.take(step) < 500, TABLE[step.route].id

    asyncio.run(play())


IN_ORDER = re.findall(
    r"\w+",
    """
    put_queue put_messages put_messages browse_messages get_message message_history list_queues
    get_queue patch_queue claim_messages inspect_claim extend_claim extend_claims nack_messages
    claim_messages ack_messages put_messages claim_messages put_messages claim_messages
    release_claim queue_stats transact share_queue start_redrive put_messages put_messages
    delete_message put_messages start_job show_job cancel_job put_messages put_messages
    queue_events account_events list_bindings put_binding get_binding list_bindings
    delete_binding put_schedule list_schedules get_schedule delete_schedule put_subscription
    list_subscriptions get_subscription delete_subscription get_account patch_account get_usage
    make_key get_key list_keys rotate_key revoke_key consume_messages delete_messages show_cluster
    list_members delete_queue
    """,
)


def test_every_route_that_tenants_may_use_shows_them_their_own_alone() -> None:
    numbers = {row.id: number for number, row in enumerate(TABLE)}
    used_well = set[str]()

    async def play() -> None:
        worlds = Worlds(WHOLE)
        await worlds.begin()
        for number, name in enumerate(IN_ORDER):
            for tenant in range(len(TENANTS)):
                again = IN_ORDER[:number].count(name)
                step = Step(tenant, tenant, numbers[name], again, 0, -1, 10)
                status = await worlds.take(step)
                if status < 300:
                    used_well.add(name)

    asyncio.run(play())
    meant = {
        row.id for row in TABLE if row.access.role != "admin" and row.access.resource != "public"
    }
    assert used_well == meant


def test_every_body_has_an_example() -> None:
    assert {row.id for row in TABLE if row.body_kinds} <= BODIES.keys()
