"""``raftq queue`` and ``raftq cluster`` against the real API in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from api.ports import OutcomeUnknown, Unavailable
from command_line import CommandLine, Result
from local_service import LocalService
from raftq.cli import requests
from raftq.cli.failure import Exit
from served_api import served
from statemachine.outcomes import Outcome


class Shell(NamedTuple):
    """Commands to a server."""

    service: LocalService
    run: CommandLine
    url: str

    def queue(self, *arguments: object, stdin: bytes = b"") -> Result:
        return self.run("queue", *arguments, "--url", self.url, stdin=stdin)

    def bodies(self, queue: str) -> list[Any]:
        """What is in the queue, whatever its state, as JSON messages."""
        result = self.queue("peek", queue, "--ndjson", "--include-claimed", "-n", 100_000)
        return [json.loads(line) for line in result.out.splitlines()]


@pytest.fixture
def shell(run: CommandLine) -> Iterator[Shell]:
    service = LocalService()
    with served(service) as url:
        yield Shell(service, run, url)


def test_arguments_become_messages_in_their_order(shell: Shell) -> None:
    result = shell.queue("put", "jobs", "one", "two", "--zone", "z", "--group", "g")
    assert result.code == Exit.DONE
    found = shell.bodies("jobs")
    assert [m["id"] for m in found] == result.out.split()
    assert [m["body"] for m in found] == ["one", "two"]
    assert (found[0]["zone"], found[0]["group"]) == ("z", "g")
    shell.queue("put", "jobs", "three", "--header", "k=v", "--priority", 3)
    last = shell.bodies("jobs")[-1]
    assert (last["headers"], last["priority"]) == ({"k": "v"}, 3)


def test_messages_are_looked_for_and_the_same_is_done_to_all_of_them(shell: Shell) -> None:
    shell.queue("put", "jobs", "one", "--header", "k=v")
    shell.queue("put", "jobs", "two", "--priority", 3, "--group", "g", "--zone", "z")
    peek = shell.queue("peek", "jobs", "--header", "k=", "--max-age", 60, "--state", "ready")
    assert peek.out.endswith("one\n")
    assert shell.queue("peek", "jobs", "--header", "k=w").code == Exit.EMPTY
    wanted = ("--priority", 3, "--group", "g", "--zone", "z")
    counted = shell.queue("bulk", "jobs", "delete", *wanted, "--dry-run", "--json")
    assert json.loads(counted.out)["filter"] == {"group": "g", "priority": 3, "zone": "z"}
    shell.service.advance(1)
    assert json.loads(shell.queue("job", "jobs", "--json").out)["done"] == 1
    assert len(shell.bodies("jobs")) == 2
    shell.queue("claim", "jobs")
    shell.queue("bulk", "jobs", "move", "--to", "others", "--header", "k=v")
    shell.service.advance(1)
    shell.queue("bulk", "jobs", "delete")
    shell.service.advance(1)
    assert "claimed" in shell.queue("job", "jobs").out
    assert [m["body"] for m in shell.bodies("others")] == ["one"]
    assert "no_job" in shell.queue("job", "jobs", "--cancel").err
    assert shell.queue("redrive", "others", "--rate", 5).code == Exit.DONE


def test_lines_become_messages_in_batches(shell: Shell) -> None:
    lines = b"".join(b"%d\n" % number for number in range(1_201))
    result = shell.queue("put", "jobs", "--lines", "--json", "-q", stdin=lines)
    assert (result.code, result.out) == (Exit.DONE, "")
    assert [m["body"] for m in shell.bodies("jobs")] == list(range(1_201))
    assert len(shell.service.proposed) == 3


def test_standard_input_is_one_message_byte_for_byte(shell: Shell) -> None:
    shell.queue("put", "jobs", "--content-type", "image/png", stdin=b"\x00\xff\n")
    (found,) = shell.bodies("jobs")
    assert (found["body_base64"], found["content_type"]) == ("AP8K", "image/png")


def test_a_queue_can_be_copied_through_lines(shell: Shell) -> None:
    shell.queue("put", "jobs", '{"a": [1.0, null]}', "--json", "--header", "k=v")
    shell.queue("put", "jobs", "text", "--zone", "b")
    shell.queue("put", "jobs", "--priority", 9, "--group", "g", stdin=b"raw text")
    shell.queue("put", "jobs", "--content-type", "x/y", "--header", "n=w", stdin=b"\x00\x01")
    lines = shell.queue("peek", "jobs", "--ndjson").out
    assert shell.queue("put", "copy", "--ndjson", stdin=lines.encode()).code == Exit.DONE
    kept = (
        "body",
        "body_text",
        "body_base64",
        "content_type",
        "headers",
        "zone",
        "priority",
        "group",
    )
    there, copied = (
        [{key: message.get(key) for key in kept} for message in shell.bodies(name)]
        for name in ("jobs", "copy")
    )
    assert len(there) == 4
    assert copied == there


def test_a_worker_claims_and_acks(shell: Shell) -> None:
    shell.queue("put", "jobs", "one", "two", "three")
    claimed = shell.queue("claim", "jobs", "-n", 2, "--lease", 30)
    head, *rest = claimed.out.splitlines()
    claim = head.split()[1]
    assert [line.split()[1] for line in rest] == ["one", "two"]
    first = rest[0].split()[0]
    assert shell.queue("ack", "jobs", claim, first).out == "1 acked\n"
    assert shell.queue("ack", "jobs", claim).out == "1 acked\n"
    assert [m["body"] for m in shell.bodies("jobs")] == ["three"]
    gone = shell.queue("ack", "jobs", claim)
    assert gone.code == Exit.FAILED
    assert "(no_claim)" in gone.err
    assert len(gone.err.splitlines()) == 1


def test_a_worker_says_whose_messages_it_takes(shell: Shell) -> None:
    shell.queue("put", "jobs", "far", "--zone", "b")
    shell.queue("put", "jobs", "near", "--zone", "a", "--priority", 1)
    near = ("claim", "jobs", "--zone", "a", "--zone-mode")
    assert shell.queue(*near, "only").code == Exit.DONE
    assert shell.queue(*near, "only").code == Exit.EMPTY
    assert shell.queue(*near, "prefer").code == Exit.EMPTY
    assert shell.queue(*near, "prefer", "--locality-wait", 0).code == Exit.DONE
    assert shell.queue(*near, "nearest").code == Exit.USAGE


def test_a_claim_that_acks_has_nothing_to_be_acked(shell: Shell) -> None:
    shell.queue("put", "jobs", "a")
    shell.queue("put", "jobs", "b")
    (line,) = shell.queue("claim", "jobs", "--auto-ack").out.splitlines()
    assert line.endswith("  a")
    (line,) = shell.queue("claim", "jobs", "--auto-ack", "--ack", "--ndjson").out.splitlines()
    assert json.loads(line)["claim"] is None
    assert shell.queue("claim", "jobs", "--auto-ack").code == Exit.EMPTY


def test_a_claim_can_be_given_back(shell: Shell) -> None:
    shell.queue("put", "jobs", "one")
    (line,) = shell.queue("claim", "jobs", "--ndjson").out.splitlines()
    claim = json.loads(line)["claim"]
    assert shell.queue("release", "jobs", claim, "--delay", 5).out == "1 released\n"
    assert shell.queue("claim", "jobs").code == Exit.EMPTY
    shell.service.advance(6)
    assert shell.queue("claim", "jobs", "--ack").code == Exit.DONE
    assert shell.bodies("jobs") == []


def test_an_empty_queue_is_exit_code_five(shell: Shell) -> None:
    assert shell.queue("claim", "jobs") == (Exit.EMPTY, "", "")
    assert shell.queue("claim", "jobs", "--wait", 0.05) == (Exit.EMPTY, "", "")
    shell.queue("put", "jobs", "one")
    shell.queue("purge", "jobs", "--yes")
    assert shell.queue("peek", "jobs") == (Exit.EMPTY, "", "")


def test_queues_are_listed_over_all_pages(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"q{number}" for number in range(5)]
    for name in names:
        shell.queue("put", name, "x")
    monkeypatch.setattr(requests, "PAGE_MAX", 2)
    listed = json.loads(shell.queue("ls", "--json").out)
    assert [(found["name"], found["messages"]["ready"]) for found in listed] == [
        (name, 1) for name in names
    ]
    monkeypatch.setattr(requests, "PAGE_MAX", 500)
    assert json.loads(shell.queue("ls", "--json").out) == listed


def test_queues_are_shown_as_a_table(shell: Shell) -> None:
    shell.queue("put", "jobs", "x", "y")
    shell.queue("put", "other", "x")
    table = shell.queue("ls", "--prefix", "jo").out
    assert "jobs" in table
    assert "other" not in table
    stats = shell.queue("stats", "jobs").out
    assert "ready" in stats
    assert json.loads(shell.queue("stats", "jobs", "--json").out)["messages"]["ready"] == 2


def test_accounts_are_kept_apart(shell: Shell) -> None:
    shell.queue("put", "jobs", "x", "--account", "other")
    assert shell.queue("peek", "jobs").code != Exit.DONE
    assert shell.queue("peek", "jobs", "--account", "other").code == Exit.DONE


def test_purge_and_rm_say_what_they_did(shell: Shell) -> None:
    shell.queue("put", "jobs", "x", "y")
    assert shell.queue("purge", "jobs", "--yes").out == "2 deleted\n"
    assert shell.queue("rm", "jobs", "--yes").out == "jobs deleted\n"
    gone = shell.queue("rm", "jobs", "--yes")
    assert gone.code == Exit.FAILED
    assert "(no_queue)" in gone.err


def test_a_batch_that_nobody_took_is_repeated(shell: Shell) -> None:
    shell.service.failures.extend([Unavailable("no_leader", "an election is on"), None] * 2)
    result = shell.queue("put", "jobs", "--lines", stdin=b"x\n" * 700)
    assert result.code == Exit.DONE
    assert len(result.out.split()) == len(shell.bodies("jobs")) == 700


def test_a_batch_whose_answer_was_lost_is_repeated_and_doubles_nothing(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose, lost = shell.service.propose, [True, False, True, False]

    async def forget(command: Any) -> Outcome:
        outcome = await propose(command)
        if lost and lost.pop(0):
            raise OutcomeUnknown("The node lost track of it.")
        return outcome

    monkeypatch.setattr(shell.service, "propose", forget)
    result = shell.queue("put", "jobs", "--lines", stdin=b"x\n" * 700)
    assert (result.code, lost) == (Exit.DONE, [])
    assert result.out.split() == [message["id"] for message in shell.bodies("jobs")]


def test_terminals_are_not_steered_by_what_is_in_a_queue(shell: Shell) -> None:
    shell.queue("put", "jobs", "\x1b[2Jgone")
    assert "\x1b" not in shell.queue("peek", "jobs").out


def test_the_cluster_is_shown_as_a_table_or_as_json(shell: Shell) -> None:
    table = shell.run("cluster", "status", "--url", shell.url)
    assert table.code == Exit.DONE
    assert all(word in table.out for word in ("n1", "north", "leader n1", "as n1 sees it"))
    document = json.loads(shell.run("cluster", "status", "--json", "--url", shell.url).out)
    assert document["leader"] == "n1"
