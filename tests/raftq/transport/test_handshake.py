from __future__ import annotations

import contextlib
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftq.transport.handshake import (
    MAGIC,
    NONCE_BYTES,
    UNPROVEN_BYTES_MAX,
    VERSION,
    Acceptor,
    Dialler,
    Identity,
    Reason,
    Refused,
)

SECRET = b"sixteen bytes or more"
PEERS = ("n1", "n3", "n4")  # Of n2, who accepts.


def nonce(seed: int) -> bytes:
    return bytes([seed]) * NONCE_BYTES


def dialler(
    name: str = "n1",
    *,
    wants: str = "n2",
    cluster: str = "east",
    secret: bytes = SECRET,
    seed: int = 1,
) -> Dialler:
    return Dialler(Identity(cluster, name, secret), wants, nonce(seed))


def acceptor(seed: int = 2) -> Acceptor:
    return Acceptor(Identity("east", "n2", SECRET), PEERS, nonce(seed))


class Transcript(NamedTuple):
    hello: bytes
    challenge: bytes
    dialler_proof: bytes
    acceptor_proof: bytes


def shake(one: Dialler, other: Acceptor) -> Transcript:
    challenge = other.feed(one.hello)
    proof = one.feed(challenge)
    answer = other.feed(proof)
    assert one.feed(answer) == b""
    return Transcript(one.hello, challenge, proof, answer)


def refusal(one: Dialler, other: Acceptor) -> Refused:
    with pytest.raises(Refused) as caught:
        shake(one, other)
    return caught.value


def test_with_the_same_secret_both_know_each_other() -> None:
    one, other = dialler(), acceptor()
    shake(one, other)
    assert (one.done, one.peer, one.rest) == (True, "n2", b"")
    assert (other.done, other.peer, other.rest) == (True, "n1", b"")


@pytest.mark.parametrize(
    ("caller", "reason", "claimed"),
    [
        (dialler(secret=b"another secret, as long"), Reason.WRONG_PROOF, "n1"),
        (dialler(cluster="west"), Reason.OTHER_CLUSTER, "n1"),
        (dialler(wants="n3"), Reason.MISDIRECTED, "n1"),
        (dialler("n9"), Reason.UNKNOWN_NAME, "n9"),
        (dialler("n2"), Reason.OWN_NAME, "n2"),
        (dialler("n3"), Reason.WRONG_DIRECTION, "n3"),
        (dialler(secret=b""), Reason.WRONG_PROOF, "n1"),
    ],
    ids=lambda value: value.name if isinstance(value, Reason) else "",
)
def test_a_caller_is_refused(caller: Dialler, reason: Reason, claimed: str) -> None:
    refused = refusal(caller, other := acceptor())
    assert (refused.reason, refused.claimed) == (reason, claimed)
    assert (caller.done, other.done, other.peer) == (False, False, "")


@pytest.mark.parametrize(
    "caller",
    [
        dialler(),
        dialler("n9"),
        dialler("n2"),
        dialler("n3"),
        dialler(cluster="west"),
        dialler(wants="n3"),
        dialler(secret=b"another secret, as long"),
    ],
)
def test_a_stranger_sees_the_same_answer_whatever_is_wrong(caller: Dialler) -> None:
    answer = acceptor().feed(caller.hello)
    assert answer == MAGIC + bytes([VERSION]) + nonce(2)


def test_an_acceptor_without_the_secret_is_refused() -> None:
    one = dialler()
    impostor = Acceptor(Identity("east", "n2", b"another secret, as long"), PEERS, nonce(2))
    one.feed(impostor.feed(one.hello))
    with pytest.raises(Refused) as caught:
        one.feed(bytes(32))
    assert (caught.value.reason, caught.value.claimed) == (Reason.WRONG_PROOF, "n2")
    assert not one.done


def test_what_a_caller_once_sent_is_worthless_later() -> None:
    recorded = shake(dialler(), acceptor())
    victim = acceptor(seed=3)
    victim.feed(recorded.hello)
    with pytest.raises(Refused, match=Reason.WRONG_PROOF):
        victim.feed(recorded.dialler_proof)


def test_what_an_acceptor_once_sent_is_worthless_later() -> None:
    recorded = shake(dialler(), acceptor())
    victim = dialler(seed=3)
    victim.feed(recorded.challenge)
    with pytest.raises(Refused, match=Reason.WRONG_PROOF):
        victim.feed(recorded.acceptor_proof)


def test_a_proof_sent_back_does_not_prove_anything() -> None:
    """The caller's own proof answers its question only if the role is not part of it."""
    victim = dialler()
    proof = victim.feed(acceptor().feed(victim.hello))
    with pytest.raises(Refused, match=Reason.WRONG_PROOF):
        victim.feed(proof)


def test_a_hello_sent_back_is_no_challenge() -> None:
    victim = dialler()
    with contextlib.suppress(Refused):
        victim.feed(victim.hello)
    assert not victim.done


@pytest.mark.parametrize("message", range(4))
def test_every_bit_is_covered(message: int) -> None:
    """Flip one bit anywhere on the wire, and the handshake fails at one end at least."""
    clean = shake(dialler(), acceptor())
    for position in range(len(clean[message]) * 8):
        flipped = bytearray(clean[message])
        flipped[position // 8] ^= 1 << position % 8
        one, other = dialler(), acceptor()
        with contextlib.suppress(Refused):
            challenge = other.feed(bytes(flipped) if message == 0 else one.hello)
            proof = one.feed(bytes(flipped) if message == 1 else challenge)
            answer = other.feed(bytes(flipped) if message == 2 else proof)
            one.feed(bytes(flipped) if message == 3 else answer)
        assert not (one.done and other.done), (message, position)
        assert not one.done, (message, position)
        assert message == 3 or not other.done, (message, position)


def test_in_single_bytes_it_comes_out_the_same_and_truncated_it_waits() -> None:
    one, other = dialler(), acceptor()
    to_acceptor, to_dialler = bytearray(one.hello), bytearray()
    while not one.done:
        assert to_acceptor or to_dialler, "both wait"
        if to_acceptor:
            assert not other.done
            to_dialler += other.feed(bytes([to_acceptor.pop(0)]))
        elif to_dialler:
            to_acceptor += one.feed(bytes([to_dialler.pop(0)]))
    assert (one.done, other.done) == (True, True)


def test_what_follows_the_handshake_is_not_lost() -> None:
    one, other = dialler(), acceptor()
    answer = other.feed(one.feed(other.feed(one.hello)))
    one.feed(answer + b"the first frame")
    assert (one.done, one.rest) == (True, b"the first frame")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", Reason.MALFORMED),
        (b"R-", Reason.MALFORMED),
        (MAGIC + bytes([VERSION + 1]), Reason.OTHER_VERSION),
        (MAGIC + bytes([VERSION, 0, 2, 2]) + b"n1n2" + nonce(1), Reason.MALFORMED),
        (MAGIC + bytes([VERSION, 1, 2, 2]) + b"\xffn1n2" + nonce(1), Reason.MALFORMED),
        (MAGIC + bytes([VERSION, 1, 2, 2]) + b"en\nn2" + nonce(1), Reason.MALFORMED),
        (dialler().hello + bytes(UNPROVEN_BYTES_MAX), Reason.TOO_MUCH),
        (dialler().hello + bytes(32), Reason.WRONG_PROOF),
    ],
)
def test_rubbish_is_refused_as_soon_as_it_shows(data: bytes, reason: Reason) -> None:
    with pytest.raises(Refused) as caught:
        acceptor().feed(data)
    assert caught.value.reason == reason


@given(st.lists(st.binary(max_size=60), max_size=20), st.booleans())
def test_rubbish_raises_nothing_but_refused(chunks: list[bytes], after_a_hello: bool) -> None:
    other, one = acceptor(), dialler()
    if after_a_hello:
        one.feed(other.feed(one.hello))
    for end in (other, one):
        with contextlib.suppress(Refused):
            for chunk in chunks:
                end.feed(chunk)
        assert not end.done


def test_the_secret_is_not_in_the_representation() -> None:
    assert "secret" not in repr(Identity("east", "n1", b"secret"))
