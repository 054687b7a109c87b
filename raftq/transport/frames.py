"""Frames in a stream of bytes: u32 length, big-endian, then so many bytes. No IO in here.

A frame of no bytes is the transport's own sign of life and never leaves it.
Every byte is copied a fixed number of times, however the stream is cut: into the
buffer if its frame is incomplete, and out into the frame.
"""

from __future__ import annotations

HEADER_BYTES = 4
FRAME_BYTES_MAX = 64 * 1024 * 1024
PING = bytes(HEADER_BYTES)


class ProtocolError(Exception):
    """The peer sent what no peer of ours sends; the connection cannot go on."""


def header(frame: bytes) -> bytes:
    """What goes before the frame."""
    return len(frame).to_bytes(HEADER_BYTES, "big")


class FrameDecoder:
    """One direction of one connection. After a ``ProtocolError`` it is of no more use."""

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._begun = bytearray()  # A frame whose end has not arrived, with its header.

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that these bytes complete, pings (empty) among them."""
        frames: list[bytes] = []
        at = self._complete(data, frames) if self._begun else 0
        end = len(data)
        while end - at >= HEADER_BYTES:
            stop = at + HEADER_BYTES + self._length(data[at : at + HEADER_BYTES])
            if stop > end:
                break
            frames.append(data[at + HEADER_BYTES : stop])
            at = stop
        self._begun += data[at:]
        return frames

    def _complete(self, data: bytes, frames: list[bytes]) -> int:
        """Go on with the frame that was begun; how many bytes of ``data`` that takes."""
        begun = self._begun
        at = 0
        if len(begun) < HEADER_BYTES:
            at = HEADER_BYTES - len(begun)
            begun += data[:at]
            if len(begun) < HEADER_BYTES:
                return len(data)
        wanted = HEADER_BYTES + self._length(begun[:HEADER_BYTES])
        stop = at + wanted - len(begun)
        begun += data[at:stop]
        if len(begun) < wanted:
            return len(data)
        with memoryview(begun) as view:
            frames.append(bytes(view[HEADER_BYTES:]))
        self._begun = bytearray()
        return stop

    def _length(self, head: bytes | bytearray) -> int:
        length = int.from_bytes(head, "big")
        if length > self._frame_bytes_max:
            raise ProtocolError(f"a frame of {length} bytes, above {self._frame_bytes_max}")
        return length
