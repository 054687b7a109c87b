"""The seams in the pinned engine: an upgrade that moves one fails here, and says which."""

from __future__ import annotations

import inspect
from importlib.metadata import version

import pysyncobj.syncobj as engine
import pytest
from pysyncobj import SyncObj
from pysyncobj.journal import Journal
from pysyncobj.transport import Transport

from raftq.consensus import core
from raftq.consensus.core_log import CoreLog


def test_the_engine_is_the_one_that_was_read() -> None:
    assert version("pysyncobj") == "0.3.17"


@pytest.mark.parametrize(
    "name",
    [
        "createJournal",
        "createPoller",
        "Serializer",
        "PIPE_NOTIFIER_ENABLED",
        "pickle",
        "monotonicTime",
    ],
)
def test_a_name_that_is_replaced_is_still_used_by_the_engine(name: str) -> None:
    source = inspect.getsource(engine)
    assert source.count(name) > 1, f"the engine no longer uses {name}"


OVERRIDDEN = [
    "_SyncObj__generateRaftTimeout",
    "_SyncObj__parseChangeClusterRequest",
    "_SyncObj__applyLogEntries",
    "_SyncObj__sendAppendEntries",
    "_SyncObj__sendNextNodeIdx",
    "_SyncObj__getCurrentLogIndex",
    "_SyncObj__getEntries",
    "_checkCommandsToApply",
    "_SyncObj__tryLogCompaction",
]
CALLED = [
    "_SyncObj__onMessageReceived",
    "_SyncObj__updateClusterConfiguration",
    "_SyncObj__setCurrentTerm",
    "_SyncObj__setState",
    "_SyncObj__onNodeConnected",
    "_SyncObj__onNodeDisconnected",
    "_checkCommandsToApply",
    "_applyCommand",
    "doTick",
]
STATE = [
    "raftState",
    "raftCurrentTerm",
    "votedForNodeId",
    "raftLeader",
    "raftCommitIndex",
    "raftLastApplied",
    "otherNodes",
    "raftElectionDeadline",
    "newAppendEntriesTime",
    "transferInProgress",
    "raftNextIndex",
    "raftMatchIndex",
    "lastResponseTime",
]


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_an_overridden_method_exists_and_takes_the_same_arguments(name: str) -> None:
    theirs, ours = getattr(SyncObj, name), getattr(core.Core, name)
    assert theirs is not ours
    assert list(inspect.signature(ours).parameters) == [
        parameter if parameter != "command" else "payload"
        for parameter in inspect.signature(theirs).parameters
    ]


@pytest.mark.parametrize("name", CALLED)
def test_a_called_method_exists(name: str) -> None:
    assert callable(getattr(SyncObj, name))


@pytest.mark.parametrize("name", STATE)
def test_a_member_that_is_read_or_set_is_one_of_the_engine(name: str) -> None:
    assert f"self.__{name} = " in inspect.getsource(SyncObj)


def test_nothing_is_ever_unpickled() -> None:
    with pytest.raises(AssertionError):
        engine.pickle.loads(b"\x80\x04N.")


@pytest.mark.parametrize(("ours", "theirs"), [(CoreLog, Journal), (core._Outlet, Transport)])
def test_every_abstract_method_is_provided(ours: type, theirs: type) -> None:
    left_out = {"clear", "deleteEntriesTo", "onOneSecondTimer", "tryGetReady", "waitReady"}
    for name, member in vars(theirs).items():
        if not callable(member) or name.startswith(("__", "set", "_on")) or name in left_out:
            continue
        assert name in vars(ours), f"{ours.__name__} lacks {name}"
