"""Master keys in the configuration: how they are written, and who may be able to read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftq.config import ConfigError, load, masked, masters

A, B = "A" * 43 + "=", "B" * 42 + "A="
SHORT = "AAAA"


def test_lines_and_commas_end_a_key_and_comments_are_left_out() -> None:
    text = f"k2 {B}  # the current one\n\n# old ones\nk1 {A}, k0 {A} shop\n"
    found = masters.parsed(text)
    assert [(one.name, one.account) for one in found] == [("k2", ""), ("k1", ""), ("k0", "shop")]
    assert A not in repr(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("k1", "key 1 is not"),
        (f"k1 {A} shop more", "key 1 is not"),
        (f"k/1 {A}", "key 1 is not"),
        (f"k1 {A}\nk2 {A[:-1]}!", "key 2 is not base64"),
        (f"k1 {SHORT}", "key 1 has 3 bytes; 32 are needed"),
        (f"k1 {A}\nk1 {B}", 'the name "k1" is there twice'),
    ],
)
def test_what_is_no_key_is_refused_without_being_shown(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        masters.parsed(text)
    assert A[:-1] not in str(caught.value)


def test_keys_come_from_a_file_that_nobody_else_can_read(tmp_path: Path) -> None:
    config, keys = tmp_path / "node.toml", tmp_path / "master.keys"
    config.write_text('[encryption]\nkey_file = "master.keys"\n')
    with pytest.raises(ConfigError, match=r"encryption.key_file.*raftq encryption master-key k1"):
        load(config)
    keys.write_text(f"k1 {A}\n")
    keys.chmod(0o644)
    with pytest.raises(ConfigError, match="has mode 0644"):
        load(config)
    keys.chmod(0o600)
    loaded = load(config)
    assert masters.parsed(loaded.encryption.keys)[0].name == "k1"
    assert A not in repr(loaded)
    assert A not in repr(masked(loaded))
    assert loaded.fingerprint() == load(None).fingerprint()
    keys.write_text("k1 rubbish of enough bytes\n")
    with pytest.raises(ConfigError, match=r"encryption.key_file: .*key 1 is not "):
        load(config)


def test_keys_come_from_the_environment(tmp_path: Path) -> None:
    loaded = load(None, environ={"RAFTQ_ENCRYPTION__KEYS": f"k1 {A},k2 {B}"})
    assert [one.name for one in masters.parsed(loaded.encryption.keys)] == ["k1", "k2"]
    with pytest.raises(ConfigError, match="give keys or key_file"):
        load(None, environ={"RAFTQ_ENCRYPTION__KEYS": f"k1 {A}", "RAFTQ_ENCRYPTION__KEY_FILE": "x"})
    with pytest.raises(ConfigError, match=r"encryption.keys: key 1 is not"):
        load(None, environ={"RAFTQ_ENCRYPTION__KEYS": "rubbish"})
