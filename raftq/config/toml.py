"""TOML out of a configuration: for ``raftq config show`` and for generated files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeGuard, TypeVar

import msgspec

from raftq.config.schema import Config

MASK = "********"

StructT = TypeVar("StructT", bound=msgspec.Struct)


def masked(config: Config) -> Config:
    """The same without the secrets, for people to look at."""
    return msgspec.structs.replace(
        config,
        cluster=_masked(config.cluster, "secret"),
        auth=_masked(config.auth, "hash_secret", "bootstrap_key"),
        encryption=_masked(config.encryption, "keys"),
    )


def _masked(section: StructT, *names: str) -> StructT:
    given = {name: MASK for name in names if getattr(section, name)}
    return msgspec.structs.replace(section, **given)


def render(sections: Mapping[str, Mapping[str, object]]) -> str:
    """The file with these sections; lists of tables come last in theirs, as TOML asks."""
    blocks = []
    for section, keys in sections.items():
        blocks.append(_table(f"[{section}]", keys))
        for key, value in keys.items():
            if _is_tables(value):
                blocks += [_table(f"[[{section}.{key}]]", item) for item in value]
    return "\n\n".join(blocks) + "\n"


def _table(head: str, keys: Mapping[str, object]) -> str:
    plain = [f"{key} = {_value(value)}" for key, value in keys.items() if not _is_tables(value)]
    return "\n".join([head, *plain])


def _is_tables(value: object) -> TypeGuard[Sequence[Mapping[str, object]]]:
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        inside = ", ".join(f"{json.dumps(key)} = {_value(item)}" for key, item in value.items())
        return f"{{{inside}}}"
    # What is left are strings, numbers, booleans and lists of them, which TOML writes as
    # JSON does; except that it allows no DEL in a string.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
