"""The section ``[auth]``: what it refuses, where its secrets come from, and that none is shown."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from api.access import tokens
from raftq.config import ConfigError, load, masked, render

SECRET = "0123456789abcdef"
OTHER = "fedcba9876543210"
KEY = tokens.token_of("A" * 16, 5)
PLAIN = "tls.plain_http_anywhere=true"
ANYWHERE = ["node.api_listen=0.0.0.0:8001", PLAIN]


def faults(*sets: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(None, None, sets)
    return [problem.split(": ")[0] for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("sets", "key"),
    [
        (["auth.required=false", *ANYWHERE], "auth.required"),
        (["auth.required=false", "node.api_listen=[::]:8001", PLAIN], "auth.required"),
        (["auth.required=false", "node.api_listen=host:8001", PLAIN], "auth.required"),
        (["auth.bootstrap_key=rq_x"], "auth.bootstrap_key"),
        ([f"auth.bootstrap_key={KEY[:-1]}"], "auth.bootstrap_key"),
        ([f"auth.bootstrap_key={KEY}", "auth.bootstrap_key_file=f"], "auth.bootstrap_key"),
        (["auth.bootstrap_key_file=/does/not/exist"], "auth.bootstrap_key_file"),
        (["auth.hash_secret=too-short"], "auth.hash_secret"),
        ([f"auth.hash_secret={SECRET}", "auth.hash_secret_file=f"], "auth.hash_secret"),
        (["auth.hash_secret_file=/does/not/exist"], "auth.hash_secret_file"),
        (["auth.staleness_ms_max=0"], "auth.staleness_ms_max"),
    ],
)
def test_a_broken_rule_is_told_under_its_key(sets: list[str], key: str) -> None:
    assert faults(*sets) == [key]


@pytest.mark.parametrize(
    "sets",
    [
        ["auth.required=true", "node.api_listen=127.0.0.1:8001"],
        ["auth.required=false", "node.api_listen=127.0.0.1:8001"],
        ["auth.required=false", "node.api_listen=127.9.9.9:8001"],
        ["auth.required=false", "node.api_listen=localhost:8001"],
        ["auth.required=false", "node.api_listen=[::1]:8001"],
        ["auth.required=false", "auth.anonymous_anywhere=true", *ANYWHERE],
    ],
)
def test_only_on_loopback_may_keys_go_unasked_for_without_a_word(sets: list[str]) -> None:
    assert load(None, None, sets).auth.required is ("auth.required=true" in sets)


def test_keys_are_asked_for_unless_somebody_says_otherwise() -> None:
    assert load(None).auth.policy("").required


def test_secrets_come_from_private_files(tmp_path: Path) -> None:
    for name, text in (("h", SECRET), ("k", KEY)):
        path = tmp_path / name
        path.touch(mode=0o600)
        path.write_text(f"{text}\n")
    file = tmp_path / "node.toml"
    file.write_text('[auth]\nhash_secret_file = "h"\nbootstrap_key_file = "k"\n')
    auth = load(file).auth
    assert (auth.hash_secret, auth.bootstrap_key) == (SECRET, KEY)
    (tmp_path / "k").chmod(0o644)
    with pytest.raises(ConfigError, match=r"auth\.bootstrap_key_file: .*mode 0644"):
        load(file)
    (tmp_path / "k").chmod(0o600)
    (tmp_path / "k").write_text("sixteen bytes or more, and no key")
    with pytest.raises(ConfigError, match=r"auth\.bootstrap_key_file: is no key"):
        load(file)


def test_hashes_are_made_with_the_secret_that_is_given_or_with_the_clusters() -> None:
    def pepper(*sets: str) -> bytes:
        config = load(None, None, sets)
        return config.auth.policy(config.cluster.secret).pepper

    of_cluster = pepper(f"cluster.secret={SECRET}")
    own = pepper(f"cluster.secret={SECRET}", f"auth.hash_secret={OTHER}")
    assert own == pepper(f"auth.hash_secret={OTHER}")
    assert len({of_cluster, own, pepper(), pepper(f"cluster.secret={OTHER}x")}) == 4


def test_no_secret_is_ever_shown() -> None:
    config = load(None, None, [f"auth.hash_secret={SECRET}", f"auth.bootstrap_key={KEY}"])
    shown = render(msgspec.to_builtins(masked(config)))
    assert tomllib.loads(shown)["auth"]["bootstrap_key"] == "********"
    for text in (shown, repr(config), repr(config.auth.policy(""))):
        assert SECRET not in text
        assert KEY not in text
