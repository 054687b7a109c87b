"""``raftq zones``: what it shows, and what it adds up."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from api.ports import Cluster
from command_line import CommandLine
from local_service import LocalService
from raftq.cli import zones
from raftq.cli.failure import Exit
from served_api import served

TOLD = [
    {
        "zone": "a",
        "traffic": [{"zone": "b", "frame_bytes_sent": 4096}, {"zone": "c", "frame_bytes_sent": 1}],
        "messages": [{"message_zone": "a", "client_zone": "a", "put": 9, "claimed": 2}],
    },
    {
        "zone": "a",
        "traffic": [{"zone": "b", "frame_bytes_sent": 1}, {"zone": "a", "frame_bytes_sent": 7}],
        "messages": [{"message_zone": "a", "client_zone": "a", "put": 9, "claimed": 3}],
    },
]


class Replica(LocalService):
    """One replica that knows of another one, which does not answer."""

    url = ""

    def cluster(self) -> Cluster:
        found = super().cluster()
        own = msgspec.structs.replace(found.members[0], api_url=self.url)
        changes = {"node": "n2", "zone": "south", "role": "unreachable", "rtt_ms": 1.5}
        other = msgspec.structs.replace(own, **changes)
        return msgspec.structs.replace(found, members=(own, other))


@pytest.fixture
def url() -> Iterator[str]:
    service = Replica()
    service.observe_claimed(["north", "north", "south"], "north")
    with served(service) as url:
        service.url = url
        yield url


def test_what_the_replicas_say_is_added_up() -> None:
    assert zones.bytes_sent(TOLD) == {("a", "b"): 4097, ("a", "c"): 1, ("a", "a"): 7}
    assert zones.messages_claimed(TOLD) == {("a", "a"): 5}


def test_the_picture_has_a_bar_for_all_there_is() -> None:
    matrix = {("a", "bb"): 4096, ("bb", "a"): 1024, ("bb", "bb"): 1}
    assert zones.picture(matrix, ["a", "bb"], zones.size) == [
        "   a → bb  4.0 KiB  " + "█" * 20,
        "",
        "  bb → a   1.0 KiB  " + "█" * 5,
        "  bb → bb      1 B  █",
    ]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (5 << 30, "5.0 GiB"),
        (1 << 60, "1048576.0 TiB"),
    ],
)
def test_sizes_are_in_the_unit_that_suits_them(count: int, text: str) -> None:
    assert zones.size(count) == text


def test_people_get_a_table_and_a_picture(run: CommandLine, url: str) -> None:
    result = run("zones", "--url", url)
    assert result.code == Exit.DONE
    for text in (
        "north → south  20 B",
        "south → north  1",
        "66.7% in their own zone",
        "unreachable",
    ):
        assert text in result.out
    assert result.err == "not counted, as they did not answer: n2\n"


def test_programs_get_everything(run: CommandLine, url: str) -> None:
    result = run("zones", "--json", "--url", url)
    told = msgspec.json.decode(result.out)
    assert told["bytes_sent"] == {"north": {"south": 20}}
    assert told["claimed"] == {"north": {"north": 2}, "south": {"north": 1}}
    assert told["unreachable"] == ["n2"]
    assert [member["node"] for member in told["members"]] == ["n1", "n2"]
    assert [node["node"] for node in told["nodes"]] == ["n1"]
