"""Damage to valid bytes: flips, splices, cuts, repeats, and numbers that are too large."""

from __future__ import annotations

import random
from collections.abc import Sequence

BYTES_MAX = 4_096
# What lengths and counts are made of, in msgpack and in our own framing.
NASTY = (
    b"\xff" * 4,
    b"\xff" * 8,
    bytes(8),
    b"\x7f\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xdb\x00\x00\xff\xff",
    b"\xcb\x7f\xf8" + bytes(6),
    b"\xc1",
    b"\x91" * 40,
    b"\xed\xa0\x80",
)


def mutated(corpus: Sequence[bytes], chance: random.Random) -> bytes:
    """Something of ``corpus``, damaged in up to four places; now and then rubbish of no origin."""
    if chance.random() < 0.02:
        return chance.randbytes(chance.randrange(200))
    data = bytearray(chance.choice(corpus))
    for _ in range(chance.randint(1, 4)):
        _damage(data, corpus, chance)
    return bytes(data[:BYTES_MAX])


def _damage(data: bytearray, corpus: Sequence[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    match chance.randrange(7):
        case 0 | 1 if at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        case 2 if at < len(data):
            data[at] = chance.randrange(256)
        case 3:
            del data[at : at + chance.randrange(1, 16)]
        case 4:
            nasty = chance.choice(NASTY)
            data[at : at + chance.choice((0, len(nasty)))] = nasty
        case 5:
            other = chance.choice(corpus)
            begin = chance.randrange(len(other) + 1)
            data[at : at + chance.randrange(32)] = other[begin : begin + chance.randrange(64)]
        case _:
            data[at:at] = data[at : at + chance.randrange(1, 32)]
