"""Readers of events in virtual time: pieces, breaks, other replicas, patience."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from raftq.client.effects import Broken
from raftq.client.errors import Refused, Unavailable
from raftq.client.events import Block, Blocks, EventsCore
from virtual_client import Virtual

HALF = b"id: 3.0\nev"
CUT = Broken("reset", reached=True)


def event(number: int) -> bytes:
    return b'id: %d.0\nevent: enqueued\ndata: {"n":%d}\n\n' % (number, number)


def cut(reason: str) -> bytes:
    return b'event: cut\ndata: {"reason":"%s","detail":"because"}\n\n' % reason.encode()


def reader(world: Virtual) -> EventsCore[dict[str, int]]:
    return EventsCore(world.session, "/e", {"from": "oldest"}, json.loads)


def read(world: Virtual, core: EventsCore[dict[str, int]], count: int) -> list[int]:
    return [world.run(core.next())["n"] for _ in range(count)]


def test_blocks_come_in_any_pieces() -> None:
    text = b"retry: 1000\n: nothing yet\nid: 8\n\n" + event(9)
    text += 'data: {"a":"\u2028: \x85"}\n\n'.encode()
    whole = Blocks().feed(text)
    assert whole[:2] == [Block("8", "", b""), Block("9.0", "enqueued", b'{"n":9}')]
    assert json.loads(whole[2].data) == {"a": "\u2028: \x85"}
    blocks = Blocks()
    assert [one for byte in text for one in blocks.feed(bytes([byte]))] == whole


@pytest.mark.parametrize("end", [[HALF, CUT], [HALF], [], [cut("stopping")]])
def test_a_stream_that_ends_is_taken_up_behind_its_last_id_at_another_replica(
    end: list[bytes | Broken],
) -> None:
    world = Virtual("serves", "serves")
    world.streams = [[b"id: 1\n\n", event(1) + event(2), *end], [event(3)]]
    core = reader(world)
    assert read(world, core, 3) == [1, 2, 3]
    assert world.hosts == "ab"
    assert dict(world.asked[0].request.headers) == {}
    assert dict(world.asked[1].request.headers) == {"last-event-id": "2.0"}
    assert world.shut == (end == [cut("stopping")])
    world.run(core.close())
    assert world.run(core.next()) is None
    assert not world.session.users


def test_a_replica_that_is_behind_or_down_is_passed_over() -> None:
    world = Virtual("has no leader", "is down", "serves")
    world.streams = [[event(1)]]
    assert read(world, reader(world), 1) == [1]
    assert world.hosts == "abc"


def test_streams_that_say_nothing_are_not_asked_for_ever() -> None:
    world = Virtual("serves", "serves", timeout_s=5.0)
    world.streams = [[] for _ in range(100)]
    with pytest.raises(Unavailable, match="the stream ended"):
        world.run(reader(world).next())
    times = [asked.at_s for asked in world.asked]
    assert 5.0 < world.now_s - 100.0 < 6.0
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(times))


def test_what_is_gone_ends_the_reader() -> None:
    world = Virtual("serves")
    world.streams = [[event(1), cut("history_off")]]
    core = reader(world)
    assert read(world, core, 1) == [1]
    with pytest.raises(Refused, match="No more events: because") as caught:
        world.run(core.next())
    assert caught.value.reason == "history_off"
    assert world.run(core.next()) is None
    assert world.shut == 1


def test_closing_the_client_closes_its_readers() -> None:
    world = Virtual("serves")
    world.streams = [[event(1), event(2)]]
    core = reader(world)
    assert read(world, core, 1) == [1]
    world.run(world.session.close())
    assert world.shut == 1
    assert world.run(core.next()) is None
