"""``raftq queue events`` and ``history`` against the real API on a port."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator

import pytest

from command_line import CommandLine
from local_service import LocalService
from raftq.cli.failure import Exit
from raftq.cli.http import Client
from raftq.client import events
from served_api import served

QUEUE = "/v1/default/queues/jobs"


@pytest.fixture
def service() -> LocalService:
    return LocalService()


@pytest.fixture
def url(service: LocalService) -> Iterator[str]:
    with served(service) as url:
        yield url


def post(url: str, path: str, body: bytes = b"{}") -> None:
    with Client([url]) as client:
        client.request("POST", path, body=body, headers={"content-type": "application/json"})


def test_events_are_lines_for_people_or_for_programs(run: CommandLine, url: str) -> None:
    for number in range(6):
        post(
            url,
            f"{QUEUE}/messages",
            b'{"messages": [%s]}' % b",".join([b'{"body": 1}'] * (number + 1)),
        )
    post(url, f"{QUEUE}/claims", b'{"consumer": "me"}')
    common = ("--url", url, "--from", "oldest", "-n")
    shown = run("queue", "events", "jobs", *common, 8)
    lines = shown.out.splitlines()
    assert (shown.code, len(lines)) == (Exit.DONE, 8)
    assert "jobs queue_created" in lines[0]
    assert "and 2 more" in lines[6]
    assert "consumer=me" in lines[7]
    found = run("queue", "events", "--kind", "claimed", "--json", *common, 1)
    assert json.loads(found.out)["consumer"] == "me"
    refused = run("queue", "events", "jobs", "--from", "never", "--url", url)
    assert (refused.code, "from must be" in refused.err) == (Exit.FAILED, True)
    assert run("queue", "events", "none", "--url", url).code == Exit.FAILED


def test_the_history_of_a_message_is_a_table_or_json(run: CommandLine, url: str) -> None:
    message = run("queue", "put", "jobs", "x", "--url", url).out.strip()
    claim = json.loads(
        run("queue", "claim", "jobs", "--ndjson", "--consumer", "me", "--url", url).out
    )["claim"]
    run("queue", "release", "jobs", claim, "--reason", "no disk", "--url", url)
    shown = run("queue", "history", "jobs", message, "--url", url)
    assert "reason=no disk" in shown.out
    found = json.loads(run("queue", "history", "jobs", message, "--json", "--url", url).out)
    assert [one["kind"] for one in found] == ["enqueued", "claimed", "released"]
    assert run("queue", "history", "jobs", "0" * 20, "--url", url).code == Exit.FAILED


def test_a_stream_that_breaks_off_is_taken_up_on_another_replica(
    run: CommandLine, service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both serve the same state here, as replicas do; the first one stops in between."""
    monkeypatch.setattr(events, "PAUSE_S", 0.01)
    with served(service) as second:
        with served(service) as first:
            post(first, f"{QUEUE}/messages", b'{"body": 0}')
        # Nobody listens on the first any more.
        found = run(
            *("queue", "events", "jobs", "--from", "oldest", "-n", 2, "--json"),
            *("--url", first, "--url", second),
        )
    assert [json.loads(line)["kind"] for line in found.out.splitlines()] == [
        "queue_created",
        "enqueued",
    ]


def test_each_event_comes_once_over_many_breaks(
    run: CommandLine, service: LocalService, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PAUSE_S", 0.01)
    post(url, f"{QUEUE}/messages", b'{"body": 0}')
    done = threading.Event()

    def disturb() -> None:
        for number in range(1, 10):
            service.stop()
            time.sleep(0.03)
            service.stopping = False
            post(url, f"{QUEUE}/messages", b'{"body": %d}' % number)
        done.set()

    thread = threading.Thread(target=disturb)
    thread.start()
    found = run(
        *("queue", "events", "jobs", "--from", "oldest", "--kind", "enqueued", "-n", 10, "--json"),
        *("--url", url),
    )
    thread.join()
    assert done.is_set()
    ids = [json.loads(line)["id"] for line in found.out.splitlines()]
    assert len(ids) == len(set(ids)) == 10


def test_a_deleted_queue_ends_the_reader(run: CommandLine, service: LocalService, url: str) -> None:
    post(url, f"{QUEUE}/messages", b'{"body": 0}')

    def delete() -> None:
        while not service.watching:
            time.sleep(0.01)
        with Client([url]) as client:
            client.request("DELETE", QUEUE)

    thread = threading.Thread(target=delete)
    thread.start()
    ended = run("queue", "events", "jobs", "--url", url)
    thread.join()
    assert (ended.code, "was deleted" in ended.err) == (Exit.FAILED, True)
