"""What a node may conclude from what the others say of themselves."""

from __future__ import annotations

import pytest

from raftq.consensus.messages import MembershipChange
from raftq.replica.membership import cluster_id
from raftq.replica.peers import Founding, Peers
from raftq.replica.wire import GROUP, Hello

OWN = "n1/a"
MEMBERS = ("n1/a", "n2/b", "n3/c")
CLUSTER = cluster_id(MEMBERS)


def hello(identity: str, cluster: str = "", members: tuple[str, ...] = ()) -> Hello:
    return Hello(GROUP, identity, cluster, members, "zone", "http://x", "")


NEW_N2, NEW_N3 = hello("b"), hello("c")
FOUNDED_N2 = hello("b", CLUSTER, MEMBERS)
# Founded by others, this node taken in later: the id is not that of the members of today.
JOINED = hello("b", cluster_id(("n2/b", "n3/c")), MEMBERS)
WITHOUT_US = hello("b", cluster_id(("n1/old", "n2/b")), ("n1/old", "n2/b"))
FOUNDED_ALONE = hello("b", cluster_id(("n2/b",)), ("n2/b",))


def peers(*hellos: Hello | None) -> Peers:
    """Of n2 and n3; None is not connected."""
    result = Peers(["n3", "n2"])
    for name, one in zip(("n2", "n3"), hellos, strict=True):
        result.by_name[name].hello = one
    return result


FOUNDINGS = [
    # (what n2 and n3 say, whether --bootstrap, the members to found with)
    ("all are new", (NEW_N2, NEW_N3), False, MEMBERS),
    ("one is missing", (NEW_N2, None), False, None),
    ("nobody is there", (None, None), False, None),
    ("one is missing, but told not to wait", (NEW_N2, None), True, ("n1/a", "n2/b")),
    ("nobody is there, but told not to wait", (None, None), True, ("n1/a",)),
    ("one has founded with us", (FOUNDED_N2, NEW_N3), False, MEMBERS),
    ("it is enough to hear of the founding", (FOUNDED_N2, None), False, MEMBERS),
    ("a founding with us, although told not to wait", (FOUNDED_N2, None), True, MEMBERS),
    ("a later membership with us", (JOINED, NEW_N3), False, None),
    ("a later membership with us, told not to wait", (JOINED, NEW_N3), True, None),
    ("a cluster with our name, not our identity", (WITHOUT_US, NEW_N3), False, None),
    ("a cluster without us", (FOUNDED_ALONE, NEW_N3), False, None),
    ("a cluster without us, told not to wait", (FOUNDED_ALONE, NEW_N3), True, None),
]


@pytest.mark.parametrize(
    ("hellos", "alone", "members"), [f[1:] for f in FOUNDINGS], ids=[f[0] for f in FOUNDINGS]
)
def test_a_cluster_is_founded_by_the_new_or_joined_as_it_was_founded(
    hellos: tuple[Hello | None, Hello | None], alone: bool, members: tuple[str, ...] | None
) -> None:
    expected = None if members is None else Founding(members)
    assert peers(*hellos).founding(OWN, alone=alone) == expected


def test_a_cluster_of_one_needs_nobody() -> None:
    assert Peers([]).founding(OWN, alone=False) == Founding((OWN,))


def test_all_found_the_same_cluster_whoever_looks() -> None:
    identities = {"n1": "a", "n2": "b", "n3": "c"}
    found = set()
    for own in identities:
        others = Peers(name for name in identities if name != own)
        for name, peer in others.by_name.items():
            peer.hello = hello(identities[name])
        found.add(others.founding(f"{own}/{identities[own]}", alone=False))
    assert found == {Founding(MEMBERS)}


def add(member: str) -> MembershipChange:
    return MembershipChange(add=True, member=member)


def remove(member: str) -> MembershipChange:
    return MembershipChange(add=False, member=member)


IN, NEW = hello("b", CLUSTER), hello("x")
FOREIGN = hello("x", "another")
CHANGES = [
    # (members, what n2 and n3 say, the next change)
    ("all as it should be", MEMBERS, (IN, hello("c", CLUSTER)), None),
    ("a member that is away stays", MEMBERS, (IN, None), None),
    ("a new identity: first the old one goes", MEMBERS, (IN, NEW), remove("n3/c")),
    ("then the new one comes", ("n1/a", "n2/b"), (IN, NEW), add("n3/x")),
    ("one of this cluster that is no member", ("n1/a",), (IN, None), add("n2/b")),
    ("one change at a time", ("n1/a",), (NEW_N2, NEW_N3), add("n2/b")),
    ("a foreign cluster's node is not taken in", ("n1/a", "n2/b"), (IN, FOREIGN), None),
    ("nor does it put a member out", MEMBERS, (IN, FOREIGN), None),
    ("nor is it in the way of others", ("n1/a", "n3/c"), (FOREIGN, NEW), remove("n3/c")),
    ("who is not configured stays", (*MEMBERS, "n9/z"), (IN, hello("c", CLUSTER)), None),
]


@pytest.mark.parametrize(
    ("members", "hellos", "change"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES]
)
def test_a_lost_disk_is_two_changes_of_the_membership(
    members: tuple[str, ...],
    hellos: tuple[Hello | None, Hello | None],
    change: MembershipChange | None,
) -> None:
    assert peers(*hellos).change(members, CLUSTER) == change


def test_a_peer_is_a_member_only_while_it_is_connected() -> None:
    one = peers(NEW_N2, None)
    assert [peer.member for peer in one.by_name.values()] == ["n2/b", None]
