from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from raftq.serving.gate import End, Gate, network


@dataclass(eq=False)
class Held:
    ended: list[End] = field(default_factory=list)

    def hang_up(self, why: End) -> None:
        self.ended.append(why)


def gate(connections: int = 3, per_address: int = 2) -> Gate[Held]:
    return Gate(connections, per_address, lambda why: None)


def test_an_address_has_so_many_connections_and_gets_them_back() -> None:
    ours = gate()
    first, second, third, other = Held(), Held(), Held(), Held()
    assert [ours.admit(one, "1.2.3.4") for one in (first, second)] == [None, None]
    assert ours.admit(third, "1.2.3.4") is End.ADDRESS_FULL
    assert ours.admit(other, "1.2.3.5") is None
    ours.release(first)
    ours.release(first)
    assert ours.admit(third, "1.2.3.4") is None
    assert ours.admit(first, "1.2.3.4") is End.ADDRESS_FULL


def test_a_full_node_makes_room_by_ending_what_was_idle_for_longest() -> None:
    ours = gate(per_address=9)
    held = [Held() for _ in range(3)]
    for one in held:
        assert ours.admit(one, "1.2.3.4") is None
    del ours.idle[held[0]]
    del ours.idle[held[1]]
    ours.idle[held[1]] = None
    assert ours.admit(Held(), "1.2.3.4") is None
    assert [one.ended for one in held] == [[], [], [End.EVICTED]]
    assert ours.admit(Held(), "1.2.3.4") is None
    assert [one.ended for one in held] == [[], [End.EVICTED], [End.EVICTED]]
    assert len(ours) == 3


def test_a_full_node_turns_newcomers_away_when_nobody_is_idle() -> None:
    ours = gate(per_address=9)
    held = [Held() for _ in range(3)]
    for one in held:
        ours.admit(one, "1.2.3.4")
        del ours.idle[one]
    assert ours.admit(Held(), "1.2.3.4") is End.NODE_FULL
    assert [one.ended for one in held] == [[], [], []]


def test_what_is_remembered_of_addresses_goes_with_their_connections() -> None:
    ours = gate(connections=10_000)
    for number in range(1_000):
        held = Held()
        ours.admit(held, f"10.0.{number // 256}.{number % 256}")
        del ours.idle[held]
        ours.idle[held] = None
        ours.release(held)
    assert len(ours) == len(ours._by_address) == len(ours.idle) == 0


@pytest.mark.parametrize(
    ("host", "counts_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_v6_network_counts_as_one_address(host: str, counts_as: str) -> None:
    assert network(host) == counts_as
