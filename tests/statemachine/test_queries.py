"""Lists, pages and what is not there. That answers are right is in the histories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from memory_kv import MemoryKV
from statemachine import commands as c
from statemachine import looking, queries, rates
from statemachine.commands import Batch, Command, Entry, NewMessage
from statemachine.machine import Machine
from statemachine.outcomes import Claimed, Enqueued, Outcome
from statemachine.prospects import Prospects
from statemachine.records import decode_message
from statemachine.settings import Effective

NAMES = ["a", "a\x00", "ab", "abc", "b", "\xff", "\uffff"]


class Store:
    def __init__(self) -> None:
        self.kv = MemoryKV()
        self.machine = Machine(self.kv)

    def do(self, command: Command, stamp_ms: int = 100) -> Outcome:
        entry = Entry(c.ENTRY_VERSION, stamp_ms, (Batch(0, 0, 0, (command,)),))
        (result,) = self.machine.apply(self.machine.applied_index + 1, 1, entry)
        self.machine.end_round()
        return result.outcomes[0]


@pytest.fixture
def store() -> Store:
    return Store()


def paged(ask: Callable[..., Any], limit: int) -> list[str]:
    """All names, page by page; every page but the last is full."""
    names: list[str] = []
    marker = None
    while True:
        page = ask(limit=limit, marker=marker)
        names.extend(one.name for one in page.items)
        if page.marker is None:
            return names
        assert len(page.items) == limit
        assert page.marker == names[-1]
        marker = page.marker


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("prefix", ["", "a", "a\x00", "abc", "c", "\xff"])
def test_names_are_listed_in_order_and_by_prefix(store: Store, prefix: str, limit: int) -> None:
    for name in NAMES:
        store.do(c.PutAccount(name, c.QueueSettings()))
        store.do(c.PutQueue("ab", name, c.QueueSettings()))
        store.do(c.PutQueue("abc", name + "x", c.QueueSettings()))
    expected = sorted((name for name in NAMES if name.startswith(prefix)), key=str.encode)

    def accounts(**page: Any) -> queries.Accounts:
        return queries.accounts(store.kv, prefix=prefix, **page)

    def queues(**page: Any) -> queries.Queues | None:
        return queries.queues(store.kv, "ab", prefix=prefix, **page)

    assert paged(accounts, limit) == expected
    assert paged(queues, limit) == expected


def test_a_page_of_nothing_is_where_it_was(store: Store) -> None:
    store.do(c.PutQueue("a", "q", c.QueueSettings()))
    assert queries.accounts(store.kv, limit=0) == queries.Accounts((), None)
    assert queries.queues(store.kv, "a", limit=0, marker="b") == queries.Queues((), "b")


def test_what_is_not_there_is_none(store: Store) -> None:
    kv = store.kv
    assert queries.applied(kv) == (0, 0, 0)
    assert queries.totals(kv).queues == 0
    assert queries.accounts(kv, limit=10).items == ()
    assert queries.account(kv, "a") is None
    assert queries.queues(kv, "a", limit=10) is None
    assert queries.queue(kv, "a", "q") is None
    assert queries.stats(kv, "a", "q") is None
    assert queries.browse(kv, "a", "q", limit=10) is None
    assert queries.message(kv, "a", "q", b"") is None
    assert queries.claim(kv, "a", "q", 1) is None
    nothing = Prospects("any", near=False, far=False)
    assert store.machine.prospects(c.Claim("a", "q", 1)) == nothing
    store.do(c.PutQueue("a", "q", c.QueueSettings()))
    assert queries.message(kv, "a", "q", b"\x00" * 10) is None
    for claim in (-1, 0, 1, 2**64):
        assert queries.claim(kv, "a", "q", claim) is None
    assert store.machine.prospects(c.Claim("a", "q", 1)) == nothing
    assert queries.stats(kv, "a", "q") == queries.Stats(
        ready=0,
        delayed=0,
        claimed=0,
        blocked=0,
        bytes=0,
        claims=0,
        oldest_ready_ms=None,
        dead=0,
        leases_ended=0,
        recent=dict.fromkeys(rates.KINDS, 0),
        recent_ms=50_100,
    )


def test_views_say_what_is_set_and_what_is_in_force(store: Store) -> None:
    defaults = c.QueueSettings(ttl_ms=5, lease_ms=7)
    own = c.QueueSettings(ttl_ms=0, metadata=b"{}")
    store.do(c.PutAccount("a", defaults), 10)
    store.do(c.PutQueue("a", "q", own), 20)
    account = queries.account(store.kv, "a")
    assert account is not None
    assert (account.defaults, account.created_ms, account.queues) == (defaults, 10, 1)
    assert account.effective == Effective(ttl_ms=5, delay_ms=0, lease_ms=7)
    queue = queries.queue(store.kv, "a", "q")
    listed = queries.queues(store.kv, "a", limit=1)
    assert queue is not None
    assert listed is not None
    assert listed.items == (queue,)
    assert (queue.settings, queue.created_ms) == (own, 20)
    assert queue.effective == Effective(ttl_ms=0, delay_ms=0, lease_ms=7)


def test_a_long_look_is_cut_short_but_gets_to_the_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "SCANNED_MAX", 10)
    messages = tuple(
        NewMessage(b"%d" % one, "", zone="z" if one == 49 else "") for one in range(50)
    )
    outcome = store.do(c.Enqueue("a", "q", messages))
    assert isinstance(outcome, Enqueued)
    marker, pages = None, 0
    found: list[queries.MessageView] = []
    while pages == 0 or marker is not None:
        page = queries.browse(store.kv, "a", "q", limit=5, marker=marker, wanted=c.Filter(zone="z"))
        assert page is not None
        found.extend(page.items)
        marker, pages = page.marker, pages + 1
    assert pages == 5
    assert [decode_message(one.record).body for one in found] == [b"49"]


def test_deliveries_of_a_claimed_message_are_given_up_on_in_a_queue_with_many(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "HELD_MAX", 2)
    store.do(c.Enqueue("a", "q", (NewMessage(b"", ""),) * 4))
    for _ in range(4):
        store.do(c.Claim("a", "q", 1))
    page = queries.browse(store.kv, "a", "q", limit=2, include_claimed=True)
    assert page is not None
    assert [one.deliveries for one in page.items] == [1, 1]
    page = queries.browse(store.kv, "a", "q", limit=2, marker=page.marker, include_claimed=True)
    assert page is not None
    assert [(one.state, one.deliveries) for one in page.items] == [("claimed", 0), ("claimed", 0)]


def test_a_claim_whose_lease_has_ended_is_not_shown(store: Store) -> None:
    store.do(c.Enqueue("a", "q", (NewMessage(b"x", ""), NewMessage(b"y", ""))))
    claimed = store.do(c.Claim("a", "q", 2, lease_ms=10))
    assert isinstance(claimed, Claimed)
    assert queries.claim(store.kv, "a", "q", claimed.claim) == claimed
    store.do(c.DeleteMessages("a", "q", (claimed.messages[0].id,)))
    shown = queries.claim(store.kv, "a", "q", claimed.claim)
    assert shown == Claimed(claimed.claim, 110, claimed.messages[1:])
    store.do(c.Barrier(), 110)
    assert queries.claim(store.kv, "a", "q", claimed.claim) is None
