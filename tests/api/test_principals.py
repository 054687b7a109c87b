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


def test_only_admin_includes_other_roles() -> None:
    for held in Role:
        who = Principal(id="k", account="a", roles=frozenset({held}), queues=("q*",), kind="key")
        for role in Role:
            assert who.may(role, "q1") is (held in (role, Role.ADMIN))
            assert not who.may(role, "other")
        assert who.has(None)


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
