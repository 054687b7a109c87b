"""Valid values of any type that msgspec can decode, drawn by chance: what mutations start from."""

from __future__ import annotations

import functools
import random
import string
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import inspect

TEXTS = string.ascii_letters + string.digits + "._-/\u00e9\u6f22"
INTEGERS = (0, 1, 2, 127, 128, 255, 65_535, 2**31, 2**32, 2**53, 2**63 - 1)
LENGTHS = (0, 1, 8, 10, 12, 32, 100)
DEPTH_MAX = 6


SCALARS: dict[type[inspect.Type], Callable[[Any, random.Random], Any]] = {
    inspect.IntType: lambda kind, chance: chance.choice(INTEGERS),
    inspect.StrType: lambda kind, chance: "".join(chance.choices(TEXTS, k=chance.randrange(12))),
    inspect.BytesType: lambda kind, chance: chance.randbytes(
        max(kind.min_length or 0, chance.choice(LENGTHS))
    ),
    inspect.BoolType: lambda kind, chance: chance.random() < 0.5,
    inspect.NoneType: lambda kind, chance: None,
    inspect.EnumType: lambda kind, chance: chance.choice(list(kind.cls)),
    inspect.LiteralType: lambda kind, chance: chance.choice(kind.values),
}


def samples(kind: Any, chance: random.Random, count: int) -> list[Any]:
    """So many values of ``kind``."""
    described = inspect.type_info(kind)
    return [_value(described, chance, 0) for _ in range(count)]


def _value(kind: inspect.Type, chance: random.Random, depth: int) -> Any:
    draw = SCALARS.get(type(kind))
    if draw is not None:
        return draw(kind, chance)
    below = functools.partial(_value, chance=chance, depth=depth + 1)
    match kind:
        case inspect.StructType():
            wanted = [one for one in kind.fields if one.required or chance.random() < 0.7]
            return kind.cls(**{one.name: below(one.type) for one in wanted})
        case inspect.UnionType():
            return below(chance.choice(kind.types))
        case inspect.TupleType():
            return tuple(map(below, kind.item_types))
        case inspect.VarTupleType() | inspect.ListType():
            return tuple(below(kind.item_type) for _ in _few(chance, depth))
        case inspect.DictType():
            pairs = ((kind.key_type, kind.value_type) for _ in _few(chance, depth))
            return {below(key): below(value) for key, value in pairs}
    raise NotImplementedError(kind)


def _few(chance: random.Random, depth: int) -> range:
    return range(0 if depth > DEPTH_MAX else chance.randrange(4))


def encoded(kind: Any, chance: random.Random, count: int) -> list[bytes]:
    """So many of them as msgpack."""
    return list(map(msgspec.msgpack.encode, samples(kind, chance, count)))
