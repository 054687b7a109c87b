"""Real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import itertools
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

import msgspec
import pytest
import uvloop

from raftq.transport.handshake import Dialler, Identity
from raftq.transport.network import Address
from raftq.transport.settings import Settings

if TYPE_CHECKING:  # pytest loads conftest.py itself; as a module it has no importable name.
    from conftest import Lab

SETTINGS = Settings(backoff_min_s=0.005, backoff_max_s=0.05)
EAGER = msgspec.structs.replace(SETTINGS, ping_interval_s=0.05, silence_s=0.5)


@pytest.mark.parametrize("first", ["n1", "n2"])
@pytest.mark.anyio
async def test_two_nodes_find_each_other_whoever_starts_first(lab: Lab, first: str) -> None:
    one, other = lab.node("n1"), lab.node("n2")
    # Not even its address can be had: the port is closed until the node is there.
    late, early = (other, one) if first == "n1" else (one, other)
    late.network.close()
    early.start(late)
    if first == "n1":
        await lab.until(lambda: early.log.reasons("peer unreachable"))
    late = lab.node(late.name, port=late.address.port)
    late.start(early)
    await lab.until(lambda: early.told and late.told)
    assert (early.told, late.told) == ([f"+{late.name}"], [f"+{early.name}"])
    assert early.network.connected() == (late.name,)
    assert early.network.send(late.name, b"hello")
    assert late.network.send(early.name, b"and hello")
    await lab.until(lambda: early.frames and late.frames)
    assert (early.frames, late.frames) == ([b"and hello"], [b"hello"])


@pytest.mark.anyio
async def test_each_of_three_is_connected_to_the_others_once(lab: Lab) -> None:
    nodes = [lab.node(name) for name in ("n1", "n2", "n3")]
    for node in nodes:
        node.start(*nodes)
    await lab.until(lambda: all(len(node.told) == 2 for node in nodes))
    assert [node.network.connected() for node in nodes] == [
        ("n2", "n3"),
        ("n1", "n3"),
        ("n1", "n2"),
    ]
    assert [node.errors for node in nodes] == [[], [], []]


@pytest.mark.parametrize("killed", ["n1", "n2"])
@pytest.mark.anyio
async def test_a_node_that_comes_back_is_connected_again(lab: Lab, killed: str) -> None:
    one, other = await lab.pair()
    gone, left = (one, other) if killed == "n1" else (other, one)
    await gone.stop()
    await lab.until(lambda: left.told[-1] == f"-{killed}")
    assert not left.network.send(killed, b"lost")
    assert left.counts.frames_dropped == 1
    back = lab.node(killed, port=gone.address.port).start(left)
    await lab.until(lambda: left.told[-1] == f"+{killed}" and back.told)
    assert left.told == [f"+{killed}", f"-{killed}", f"+{killed}"]
    assert left.network.send(killed, b"here again")
    await lab.until(lambda: back.frames)
    assert back.frames == [b"here again"]


@pytest.mark.anyio
async def test_ten_thousand_frames_of_all_sizes_arrive_in_order(lab: Lab) -> None:
    one, other = await lab.pair()
    sizes = itertools.cycle([1, 3, 100, 1_000, 4_000, 70_000])
    sent = [struct.pack(">I", number) + bytes(next(sizes)) for number in range(10_000)]
    for start in range(0, len(sent), 100):
        for frame in sent[start : start + 100]:
            await lab.until(functools.partial(one.network.send, "n2", frame))
        await asyncio.sleep(0)
    await lab.until(lambda: len(other.frames) == len(sent))
    assert other.frames == sent
    assert other.counts.frames_received == one.counts.frames_sent == len(sent)
    assert other.counts.frame_bytes_received == one.counts.frame_bytes_sent
    there, back = one.counts.traffic["n2"], other.counts.traffic["n1"]
    assert there.frames_sent == back.frames_received == len(sent)
    assert there.frame_bytes_sent == back.frame_bytes_received == sum(map(len, sent))


@pytest.mark.anyio
async def test_frames_of_one_turn_leave_together(lab: Lab) -> None:
    node = lab.node("n1").start(lab.node("n0"))
    wire = await lab.wire(node)
    await wire.prove("n0", "n1")
    await lab.until(lambda: node.told)
    for number in range(50):
        assert node.network.send("n0", bytes([number + 1]))
    # All that one write left behind comes with one read.
    data = await wire.reader.read(65_536)
    assert data == b"".join(b"\0\0\0\1" + bytes([number + 1]) for number in range(50))


@pytest.mark.anyio
async def test_what_is_flushed_leaves_at_once(lab: Lab) -> None:
    one, other = await lab.pair()
    assert one.network.send("n2", b"x")
    assert one.network.buffered("n2") == 5
    one.network.flush()
    assert one.network.buffered("n2") == 0
    await lab.until(lambda: other.frames == [b"x"])


@pytest.mark.anyio
async def test_the_buffer_for_a_peer_that_does_not_read_is_bounded(lab: Lab) -> None:
    bound = 1 << 20
    settings = msgspec.structs.replace(
        SETTINGS, send_buffer_bytes_max=bound, ping_interval_s=60.0, silence_s=120.0
    )
    node = lab.node("n2", settings=settings)
    node.start(lab.node("n1"), lab.node("n0"))
    wire = await lab.proven(node)
    await lab.until(lambda: node.told)
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # Streams hide its type.
    frame, accepted = bytes(64 * 1024), 0
    for _ in range(1_000):
        accepted += node.network.send("n1", frame)
        assert node.network.buffered("n1") <= bound
        await asyncio.sleep(0)
    # Above the bound there is only what the kernel took.
    assert 16 <= accepted < 1_000
    assert node.counts.frames_dropped == 1_000 - accepted
    assert node.network.buffered("n1") > bound - len(frame) - 100
    wire.writer.transport.resume_reading()  # type: ignore[attr-defined]
    for _ in range(accepted):
        assert await asyncio.wait_for(wire.frame(), 5) == frame
    await lab.until(lambda: node.network.buffered("n1") == 0)
    assert node.network.send("n1", b"again")
    assert await wire.frame() == b"again"


@pytest.mark.anyio
async def test_a_frame_above_the_bound_goes_alone(lab: Lab) -> None:
    settings = msgspec.structs.replace(SETTINGS, send_buffer_bytes_max=1_000)
    one, other = await lab.pair(settings=settings)
    assert one.network.send("n2", bytes(500_000))
    assert not one.network.send("n2", b"x")
    await lab.until(lambda: other.frames)
    assert other.frames == [bytes(500_000)]


@pytest.mark.parametrize("length", [0, 101])
@pytest.mark.anyio
async def test_a_frame_that_no_peer_would_take_is_our_bug(lab: Lab, length: int) -> None:
    one, _ = await lab.pair(settings=msgspec.structs.replace(SETTINGS, frame_bytes_max=100))
    with pytest.raises(ValueError, match=f"a frame of {length} bytes"):
        one.network.send("n2", bytes(length))


@pytest.mark.parametrize("rubbish", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100_000, b"RAFTQ\x02"])
@pytest.mark.anyio
async def test_a_stranger_is_dropped_unanswered_and_the_good_one_lives(
    lab: Lab, rubbish: bytes
) -> None:
    one, other = await lab.pair()
    wire = await lab.wire(other)
    wire.writer.write(rubbish)
    assert await wire.ended() == b""
    await lab.until(lambda: other.counts.peers_refused == 1)
    assert one.network.send("n2", b"still here")
    await lab.until(lambda: other.frames)
    assert (one.told, other.told, other.errors) == (["+n2"], ["+n1"], [])


@pytest.mark.anyio
async def test_a_proven_peer_that_sends_no_frame_is_dropped_and_counted(lab: Lab) -> None:
    node = lab.node("n2").start(lab.node("n1"))
    wire = await lab.proven(node)
    wire.send(b"good")
    await lab.until(lambda: node.frames)
    wire.writer.write(b"\xff" * 8)
    await wire.ended()
    await lab.until(lambda: node.told == ["+n1", "-n1"])
    assert node.network.protocol_errors == 1
    assert node.log.reasons("peer lost") == ["a frame of 4294967295 bytes, above 67108864"]
    assert node.errors == []


@pytest.mark.anyio
async def test_a_silent_stranger_is_closed_after_its_time(lab: Lab) -> None:
    settings = msgspec.structs.replace(SETTINGS, handshake_timeout_s=0.1)
    node = lab.node("n2", settings=settings).start()
    wires = [await lab.wire(node) for _ in range(3)]
    wires[1].writer.write(b"RAF")
    start = asyncio.get_running_loop().time()
    for wire in wires:
        assert await wire.ended() == b""
    assert 0.05 < asyncio.get_running_loop().time() - start < 5
    assert node.log.reasons("peer refused") == ["too_slow"]  # Once, for all three.
    assert node.counts.peers_refused == 3


@pytest.mark.anyio
async def test_strangers_cannot_take_up_all_connections(lab: Lab) -> None:
    settings = msgspec.structs.replace(SETTINGS, handshakes_max=4)
    node = lab.node("n2", settings=settings).start(lab.node("n1"))
    wires = [await lab.wire(node) for _ in range(6)]
    assert await wires[0].ended() == await wires[1].ended() == b""
    await wires[5].prove("n1", "n2")
    await lab.until(lambda: node.network.connected() == ("n1",))
    # Who is proven is no stranger any more.
    wires = [await lab.wire(node) for _ in range(6)]
    await wires[0].ended()
    assert (node.network.connected(), node.told) == (("n1",), ["+n1"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"secret": b"another secret, as long"}, "wrong_proof"),
        ({"cluster": "west"}, "other_cluster"),
        ({}, "unknown_name"),
    ],
)
@pytest.mark.anyio
async def test_whoever_does_not_belong_is_refused_and_learns_no_reason(
    lab: Lab, options: dict[str, object], reason: str
) -> None:
    one, other = lab.node("n1", **options), lab.node("n2")
    one.start(other)
    other.start(lab.node("n0"), *([one] if options else []))
    await lab.until(lambda: other.counts.peers_refused >= 3)
    await lab.until(lambda: one.log.reasons("handshake broken off"))
    [refused] = [fields for event, fields in other.log.events if event == "peer refused"]
    # Once for all attempts, and under a name only if it is one that we know.
    assert (refused["reason"], refused["claimed"]) == (reason, "n1")
    assert refused["peer"] == ("n1" if options else "")
    assert set(one.log.reasons("handshake broken off")) == {"closed by the peer"}
    assert one.told == other.told == []


@pytest.mark.anyio
async def test_the_newest_proven_connection_of_a_peer_wins(lab: Lab) -> None:
    node = lab.node("n2").start(lab.node("n1"))
    first = await lab.proven(node)
    await lab.until(lambda: node.told == ["+n1"])
    unproven = await lab.wire(node)
    second = await lab.proven(node)
    assert await first.ended() == b""
    await lab.until(lambda: node.told == ["+n1", "-n1", "+n1"])
    second.send(b"from the second")
    await lab.until(lambda: node.frames)
    assert node.network.send("n1", b"to the second")
    assert await second.frame() == b"to the second"
    await unproven.close()
    assert node.told == ["+n1", "-n1", "+n1"]


@pytest.mark.anyio
async def test_frames_right_behind_the_handshake_arrive_after_connected(lab: Lab) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = lab.wrap(reader, writer)
        await wire.accept("n2", "n1", then=(b"first", b"second"))
        await reader.read()

    node = lab.node("n1")
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        order: list[object] = []
        node.on_frame = lambda _peer, frame: order.append((list(node.told), frame))
        node.network.set_peers({"n2": Address(*server.sockets[0].getsockname())})
        node.network.start(node)
        await lab.until(lambda: len(order) == 2)
        assert order == [(["+n2"], b"first"), (["+n2"], b"second")]
        await node.stop()


@pytest.mark.anyio
async def test_a_peer_that_falls_silent_is_given_up(lab: Lab) -> None:
    node = lab.node("n2", settings=EAGER).start(lab.node("n1"))
    wire = await lab.proven(node)
    for _ in range(4):
        assert await asyncio.wait_for(wire.frame(), 5) == b""  # Pings come all the same.
    await wire.ended()
    await lab.until(lambda: node.told == ["+n1", "-n1"])
    assert node.log.reasons("peer lost") == ["silent"]


@pytest.mark.anyio
async def test_idle_peers_keep_each_other_by_pings(lab: Lab) -> None:
    one, other = await lab.pair(settings=EAGER)
    await asyncio.sleep(4 * EAGER.silence_s)
    assert (one.told, other.told) == (["+n2"], ["+n1"])
    assert (one.frames, one.counts.frames_received) == ([], 0)


@pytest.mark.anyio
async def test_disconnect_is_told_later_and_the_connection_is_made_anew(lab: Lab) -> None:
    one, other = await lab.pair()
    seen: list[object] = []

    def drop(peer: str, _frame: bytes) -> None:
        other.network.disconnect(peer)
        seen.extend([list(other.told), other.network.send(peer, b"x"), other.network.connected()])

    other.on_frame = drop
    for frame in (b"bad", b"not delivered", b"not delivered"):
        assert one.network.send("n2", frame)
    await lab.until(lambda: len(other.told) == 3 and len(one.told) == 3)
    assert seen == [["+n1"], False, ()]
    assert other.frames == [b"bad"]
    assert other.told == ["+n1", "-n1", "+n1"]
    assert one.told == ["+n2", "-n2", "+n2"]


@pytest.mark.anyio
async def test_a_peer_taken_out_is_disconnected_and_stays_out(lab: Lab) -> None:
    one, other = await lab.pair()
    other.network.set_peers({})
    await lab.until(lambda: other.told == ["+n1", "-n1"])
    await lab.until(lambda: "unknown_name" in other.log.reasons("peer refused"))
    assert other.network.connected() == ()
    one.network.set_peers({})
    other.network.set_peers({"n1": one.address})
    one.network.set_peers({"n2": other.address, "n1": one.address})
    await lab.until(lambda: other.told[2:] == ["+n1"])


@pytest.mark.anyio
async def test_a_peer_taken_out_during_its_handshake_does_not_come_in(lab: Lab) -> None:
    node = lab.node("n2").start(lab.node("n1"))
    wire = await lab.wire(node)
    end = Dialler(Identity("east", "n1", b"sixteen bytes or more"), "n2", bytes(32))
    wire.writer.write(end.hello)
    proof = end.feed(await wire.reader.readexactly(38))
    node.network.set_peers({})
    wire.writer.write(proof)
    await wire.ended()
    assert (node.told, node.errors) == ([], [])


@pytest.mark.anyio
async def test_a_peer_at_a_new_address_is_connected_to_there(lab: Lab) -> None:
    one, other = await lab.pair()
    moved = lab.node("n2").start(one)
    one.network.set_peers({"n2": moved.address})
    await lab.until(lambda: moved.told == ["+n1"] and one.told == ["+n2", "-n2", "+n2"])
    await lab.until(lambda: other.told == ["+n1", "-n1"])


@pytest.mark.parametrize("callback", ["connected", "received", "disconnected"])
@pytest.mark.anyio
async def test_an_exception_in_the_handler_is_fatal_once_and_ends_all_calls(
    lab: Lab, callback: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = lab.node("n2").start(lab.node("n1"))

    def fail(*_: object) -> None:
        calls.append(callback)
        raise LookupError("a bug")

    calls: list[str] = []
    monkeypatch.setattr(node, callback, fail)
    wire = await lab.proven(node)
    wire.send(b"one", b"two")
    if callback == "disconnected":
        await lab.until(lambda: len(node.frames) == 2)
        await wire.close()
    await lab.until(lambda: node.errors)
    await wire.ended()
    assert [str(error) for error in node.errors] == ["a bug"]
    assert calls == [callback]
    assert node.network.connected() == ()


@pytest.mark.anyio
async def test_what_is_buffered_at_close_still_arrives(lab: Lab) -> None:
    one, other = await lab.pair()
    for number in range(100):
        assert one.network.send("n2", bytes([number]) * 10_000)
    one.network.close()
    assert not one.network.send("n2", b"too late")
    await one.network.wait_closed()
    await lab.until(lambda: other.told == ["+n1", "-n1"])
    assert len(other.frames) == 100
    assert one.told == ["+n2"]  # Nothing is told after close.


@pytest.mark.anyio
async def test_close_does_not_wait_for_a_peer_that_does_not_read(lab: Lab) -> None:
    node = lab.node("n2").start(lab.node("n1"))
    wire = await lab.proven(node)
    await lab.until(lambda: node.told)
    wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
    assert node.network.send("n1", bytes(30_000_000))
    node.network.close()
    await asyncio.wait_for(node.network.wait_closed(grace_s=0.05), 5)


@pytest.mark.anyio
async def test_an_address_in_use_is_an_error_at_once(lab: Lab) -> None:
    taken = lab.node("n1").address
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{taken.port}"):
        lab.node("n2", port=taken.port)


@pytest.mark.anyio
async def test_peers_without_a_secret_are_refused(lab: Lab) -> None:
    alone = lab.node("n1", secret=b"")
    alone.start(alone)
    with pytest.raises(ValueError, match="secret"):
        alone.network.set_peers({"n2": alone.address})


@pytest.mark.anyio
async def test_a_host_that_does_not_answer_is_given_up_in_time(lab: Lab) -> None:
    node = lab.node("n1", settings=msgspec.structs.replace(SETTINGS, connect_timeout_s=0.1))
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(4):  # With its queue full, the kernel ignores whoever comes next.
            plug = stack.enter_context(socket.socket())
            plug.setblocking(False)
            plug.connect_ex(full.getsockname())
        node.network.set_peers({"n2": Address(*full.getsockname())})
        node.network.start(node)
        await lab.until(lambda: node.log.reasons("peer unreachable") == ["TimeoutError"])


@pytest.mark.anyio
async def test_hosts_that_cannot_be_reached_are_logged_and_tried_again(lab: Lab) -> None:
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    node = lab.node("n1")
    node.network.set_peers(
        {"n2": Address("127.0.0.1", port), "n3": Address("no such host", 1), "n4": Address("", 1)}
    )
    node.network.start(node)
    await lab.until(lambda: len(node.log.events) >= 3)
    assert {fields["peer"] for _, fields in node.log.events} == {"n2", "n3", "n4"}
    assert node.errors == []


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("connected", [True, False])
def test_after_close_nothing_is_left_on_either_kind_of_loop(
    make_lab: Callable[[], Lab],
    run: Callable[[Coroutine[object, object, None]], None],
    *,
    connected: bool,
) -> None:
    async def scenario() -> None:
        lab = make_lab()
        one, other, absent = lab.node("n1"), lab.node("n2"), lab.node("n3")
        await absent.stop()
        one.start(other, absent)
        other.start(one, absent)
        if connected:
            await lab.until(lambda: one.told and other.told)
        await one.stop()
        await other.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario())
    gc.collect()  # A transport or socket that was not closed warns now, and a warning fails.
