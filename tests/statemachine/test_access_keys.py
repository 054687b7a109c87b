"""Access keys in the log: what a first one is, how many there may be, and what ends with what."""

from __future__ import annotations

from memory_kv import MemoryKV
from statemachine import commands as c
from statemachine import keyring
from statemachine import outcomes as o
from statemachine.access_keys import OF_ACCOUNT_MAX
from statemachine.commands import Batch, Entry
from statemachine.machine import Machine
from statemachine.records import KeyRecord

SETTINGS = c.KeySettings("worker", ("consume",), ("orders.*",), 9_000)


class Bench:
    """A machine, one command to an entry."""

    def __init__(self) -> None:
        self.kv = MemoryKV()
        self.machine = Machine(self.kv)
        self.index = 0

    def do(self, command: c.Command, at_ms: int = 1_000) -> o.Outcome:
        self.index += 1
        entry = Entry(1, at_ms, (Batch(0, 0, 0, (command,)),))
        [result] = self.machine.apply(self.index, 1, entry)
        self.machine.end_round()
        return result.outcomes[0]

    def ids(self, account: str) -> list[str]:
        return [one.id for one in keyring.of_account(self.kv, account)]


def put(account: str, key_id: str, *, first: bool = False) -> c.PutKey:
    return c.PutKey(account, key_id, SETTINGS, b"hash of " + key_id.encode(), first)


def reason(outcome: o.Outcome) -> o.Reason:
    assert isinstance(outcome, o.Refused)
    return outcome.reason


def test_a_first_key_is_one_only_where_there_is_none() -> None:
    bench = Bench()
    assert bench.do(put("", "k1", first=True)) == o.KeyStored("k1", b"hash of k1", True)
    assert bench.do(put("", "k2", first=True)) == o.KeyStored("", b"", False)
    assert bench.do(put("a", "k3", first=True)) == o.KeyStored("k3", b"hash of k3", True)
    bench.do(c.RevokeKey("", "k1"))
    assert bench.do(put("", "k2", first=True)) == o.KeyStored("k2", b"hash of k2", True)
    assert (bench.ids(""), bench.ids("a")) == (["k2"], ["k3"])


def test_a_key_that_is_there_stays_as_it_is_whoever_puts_it_again() -> None:
    bench = Bench()
    bench.do(put("a", "k"))
    other = c.PutKey("b", "k", SETTINGS, b"another hash")
    assert bench.do(other) == o.KeyStored("k", b"hash of k", False)
    assert keyring.key(bench.kv, "k") == KeyRecord("a", SETTINGS, b"hash of k", 1_000)
    assert bench.ids("b") == []


def test_an_account_has_so_many_keys_at_most() -> None:
    bench = Bench()
    for number in range(OF_ACCOUNT_MAX):
        bench.do(put("a", f"k{number}"))
    assert reason(bench.do(put("a", "more"))) is o.Reason.TOO_MANY_KEYS
    assert isinstance(bench.do(put("b", "more")), o.KeyStored)
    bench.do(c.RevokeKey("a", "k5"))
    assert isinstance(bench.do(put("a", "more too")), o.KeyStored)


def test_a_key_of_another_account_is_none() -> None:
    bench = Bench()
    bench.do(put("a", "k"))
    for account in ("b", ""):
        assert reason(bench.do(c.RevokeKey(account, "k"))) is o.Reason.NO_KEY
        assert reason(bench.do(c.RotateKey(account, "k", b"x", 5))) is o.Reason.NO_KEY
    assert reason(bench.do(c.RevokeKey("a", "other"))) is o.Reason.NO_KEY
    assert bench.ids("a") == ["k"]


def test_the_secret_before_the_last_is_good_until_a_time_in_the_log() -> None:
    bench = Bench()
    bench.do(put("a", "k"))
    bench.do(c.RotateKey("a", "k", b"second", 500), at_ms=2_000)
    record = KeyRecord("a", SETTINGS, b"second", 1_000, 0, b"hash of k", 2_500)
    assert keyring.key(bench.kv, "k") == record
    bench.do(c.RotateKey("a", "k", b"third", -1), at_ms=2_100)
    record = KeyRecord("a", SETTINGS, b"third", 1_000, 0, b"second", 2_100)
    assert keyring.key(bench.kv, "k") == record


def test_deleting_an_account_deletes_its_keys_and_no_others() -> None:
    bench = Bench()
    for account, key_id in (("a", "k1"), ("a", "k2"), ("ab", "k3"), ("", "k4")):
        bench.do(put(account, key_id))
    assert bench.do(c.DeleteAccount("a")) == o.Done()
    assert keyring.key(bench.kv, "k1") is None
    assert keyring.key(bench.kv, "k2") is None
    assert (bench.ids("ab"), bench.ids("")) == (["k3"], ["k4"])


def test_it_is_told_when_a_key_changes_and_not_when_it_is_used() -> None:
    bench = Bench()

    def tells(command: c.Command) -> bool:
        bench.do(command)
        return bench.machine.take_keys_moved()

    assert tells(put("a", "k"))
    assert not tells(put("a", "k"))
    assert not tells(c.UseKeys(("k", "gone")))
    assert tells(c.RotateKey("a", "k", b"x", 5))
    assert not tells(c.RevokeKey("b", "k"))
    assert tells(c.RevokeKey("a", "k"))
    assert not bench.machine.take_keys_moved()
    bench.do(put("a", "k"))
    assert bench.machine.take_keys_moved()
    assert tells(c.DeleteAccount("a"))
