from __future__ import annotations

import contextlib
import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftq.transport.frames import HEADER_BYTES, PING, FrameDecoder, ProtocolError, header

FRAME_BYTES_MAX = 300

streams = st.lists(st.binary(max_size=FRAME_BYTES_MAX), max_size=12)


def cut(stream: bytes, points: list[int]) -> list[bytes]:
    edges = [0, *sorted(point % (len(stream) + 1) for point in points), len(stream)]
    return [stream[start:stop] for start, stop in itertools.pairwise(edges)]


def encode(frames: list[bytes]) -> bytes:
    return b"".join(header(frame) + frame for frame in frames)


@given(streams, st.lists(st.integers(min_value=0), max_size=40))
def test_any_chunking_gives_the_same_frames(frames: list[bytes], points: list[int]) -> None:
    decoder = FrameDecoder(FRAME_BYTES_MAX)
    got = [frame for chunk in cut(encode(frames), points) for frame in decoder.feed(chunk)]
    assert got == frames


@given(streams)
def test_a_frame_is_there_with_its_last_byte_and_not_before(frames: list[bytes]) -> None:
    decoder = FrameDecoder(FRAME_BYTES_MAX)
    seen_at: list[int] = []
    for at, byte in enumerate(encode(frames), start=1):
        seen_at += [at] * len(decoder.feed(bytes([byte])))
    sizes = [HEADER_BYTES + len(frame) for frame in frames]
    assert seen_at == [sum(sizes[: count + 1]) for count in range(len(sizes))]


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_rubbish_is_a_protocol_error_or_frames_within_the_limit(chunks: list[bytes]) -> None:
    decoder = FrameDecoder(FRAME_BYTES_MAX)
    with contextlib.suppress(ProtocolError):
        for chunk in chunks:
            assert all(len(frame) <= FRAME_BYTES_MAX for frame in decoder.feed(chunk))


@pytest.mark.parametrize("chunk_bytes", [1, 3, 1_000])
def test_the_limit_is_the_last_length_that_passes(chunk_bytes: int) -> None:
    def feed(length: int) -> list[bytes]:
        decoder, stream = FrameDecoder(FRAME_BYTES_MAX), length.to_bytes(4, "big") + bytes(length)
        chunks = [stream[at : at + chunk_bytes] for at in range(0, len(stream), chunk_bytes)]
        return [frame for chunk in chunks for frame in decoder.feed(chunk)]

    assert feed(FRAME_BYTES_MAX) == [bytes(FRAME_BYTES_MAX)]
    with pytest.raises(ProtocolError, match=r"301 bytes, above 300"):
        feed(FRAME_BYTES_MAX + 1)


def test_an_oversize_frame_is_refused_before_its_bytes_are_kept() -> None:
    decoder = FrameDecoder(FRAME_BYTES_MAX)
    assert decoder.feed(b"\xff\xff\xff") == []
    with pytest.raises(ProtocolError):
        decoder.feed(b"\xff")


def test_a_ping_is_a_frame_of_no_bytes() -> None:
    assert FrameDecoder().feed(PING) == [b""]


def test_the_time_to_decode_grows_with_the_bytes_and_not_with_their_square() -> None:
    def seconds(length: int) -> float:
        stream = memoryview(length.to_bytes(4, "big") + bytes(length))
        chunks = [bytes(stream[at : at + 256]) for at in range(0, len(stream), 256)]
        best = float("inf")
        for _ in range(3):
            decoder = FrameDecoder()
            start = time.perf_counter()
            assert sum(len(decoder.feed(chunk)) for chunk in chunks) == 1
            best = min(best, time.perf_counter() - start)
        return best

    # 16 times the bytes: 256 times the time if each chunk copied what came before it.
    assert seconds(16 << 20) < 80 * seconds(1 << 20)
