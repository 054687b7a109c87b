"""Whom a pattern lets see what, and what roles add up to."""

from __future__ import annotations

import time

import pytest

from api.access.principals import ANYONE, NOBODY, Principal, Role, matches
from api.access.rules import Access


@pytest.mark.parametrize(
    ("pattern", "name", "means"),
    [
        ("*", "orders", True),
        ("orders", "orders", True),
        ("orders", "orders2", False),
        ("orders", "Orders", False),
        ("orders.*", "orders.eu", True),
        ("orders.*", "ordersXeu", False),
        ("*.eu", "orders.eu", True),
        ("*.eu", "orders.eu.dead", False),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*c", "aXbYc", True),
        ("a*b*c", "aXcYb", False),
        ("a**c", "abc", True),
        ("*b*b*", "ab", False),
        ("", "orders", False),
    ],
)
def test_a_pattern_means_whole_names(pattern: str, name: str, means: bool) -> None:
    assert matches((pattern,), name) is means
    assert matches(("nothing", pattern), name) is means


def test_no_pattern_takes_long() -> None:
    started_s = time.perf_counter()
    assert not matches(("*a" * 60 + "b",), "a" * 128)
    assert time.perf_counter() - started_s < 0.1


@pytest.mark.parametrize("account", ["", "a"])
def test_only_the_operators_admin_includes_other_roles(account: str) -> None:
    for held in Role:
        who = Principal(
            id="k", account=account, roles=frozenset({held}), queues=("q*",), kind="key"
        )
        for role in Role:
            expected = held is role if role is not Role.ADMIN else False
            assert who.may(role, "q1") is (expected or (held is Role.ADMIN and not account))
            assert not who.may(role, "other")
        assert who.has(None)


@pytest.mark.parametrize(
    ("roles", "queues", "includes"),
    [
        (["consume"], ["q*"], True),
        (["consume"], ["q", "qa*b", "q.*"], True),
        (["consume"], ["*"], False),
        (["consume"], ["*q*"], False),
        (["consume", "produce"], ["q1"], False),
        (["admin"], ["q1"], False),
        ([], ["r"], False),
    ],
)
def test_who_may_hand_out_what(roles: list[str], queues: list[str], includes: bool) -> None:
    held = frozenset({Role.CONSUME, Role.MANAGE})
    who = Principal(id="k", account="a", roles=held, queues=("q*",), kind="key")
    assert who.includes(roles, queues) is includes


def test_nobody_may_nothing_and_anyone_all() -> None:
    for role in (None, *Role):
        assert not NOBODY.may(role, "q")
        assert ANYONE.may(role, "q")


@pytest.mark.parametrize(
    ("path", "access"),
    [
        ("/v1/{account}/queues/{queue}", Access(Role.MANAGE, "account")),
        ("/v1/{account}", Access(Role.MANAGE, "cluster")),
        ("/cluster", Access(Role.MANAGE, "account")),
        ("/v1/{account}", Access(None, "public")),
        ("/v1/{account}", Access(Role.MANAGE, "queue")),
    ],
)
def test_a_row_names_what_its_path_names(path: str, access: Access) -> None:
    assert not access.fits(path)


def test_an_actor_is_one_line_whatever_an_issuer_calls_it() -> None:
    who = Principal(id="sub\n2026 forged", kind="token")
    assert who.actor == "token:'sub\\n2026 forged'"
    assert Principal(id="k1", kind="key").actor == "key:k1"
