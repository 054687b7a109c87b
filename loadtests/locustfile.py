"""Locust scenarios: producers, workers, and users who do both, each at one of the replicas.

``make load`` runs them against a cluster of its own. By hand, against ``raftq dev`` or
any other: ``RAFTQ_URLS=http://a:8001,http://b:8001 locust -f loadtests/locustfile.py``.
"""

from __future__ import annotations

import itertools
import os
import random

from locust import FastHttpUser, between, events, task
from locust.env import Environment

URLS = os.environ.get(
    "RAFTQ_URLS", "http://127.0.0.1:8001,http://127.0.0.1:8002,http://127.0.0.1:8003"
).split(",")
QUEUES = ("orders", "mail", "thumbnails")
BATCH = 20
LEASE_S = 30
WAIT_S = 1

next_url = itertools.cycle(URLS).__next__


class Client(FastHttpUser):
    """Somebody with one replica to talk to; the users go round them all."""

    abstract = True
    wait_time = between(0.005, 0.05)

    def __init__(self, environment: Environment) -> None:
        self.host = next_url()
        super().__init__(environment)

    def put(self, count: int) -> None:
        """Put one message, or a batch."""
        messages = [{"body": {"customer": random.randrange(10**6), "note": "x" * 200}}] * count
        self.client.post(
            f"/v1/shop/queues/{random.choice(QUEUES)}/messages",
            json=messages[0] if count == 1 else {"messages": messages},
            name="put" if count == 1 else f"put {count}",
        )

    def work(self, limit: int, wait_s: float = 0) -> None:
        """Claim, and ack what was claimed."""
        claims = f"/v1/shop/queues/{random.choice(QUEUES)}/claims"
        asked = {"limit": limit, "lease": LEASE_S, "wait": wait_s}
        name = "claim, waiting" if wait_s else "claim"
        with self.client.post(claims, json=asked, name=name, catch_response=True) as answer:
            if answer.status_code == 204:
                answer.success()
                return
            if answer.status_code != 201:
                answer.failure(f"{answer.status_code}: {answer.text}")
                return
            claimed = answer.json()
        with self.client.post(
            f"{claims}/{claimed['claim']}/ack", name="ack", catch_response=True
        ) as answer:
            if answer.status_code != 200 or answer.json()["acked"] != len(claimed["messages"]):
                answer.failure(f"{answer.status_code}: {answer.text}")

    def read(self, path: str, name: str) -> None:
        """What is there; nobody may have put anything yet."""
        with self.client.get(path, name=name, catch_response=True) as answer:
            if answer.status_code == 404:
                answer.success()


class Producer(Client):
    """Puts only."""

    weight = 3

    @task(4)
    def put_one(self) -> None:
        """One message."""
        self.put(1)

    @task(1)
    def put_batch(self) -> None:
        """A batch."""
        self.put(BATCH)


class Worker(Client):
    """Waits for messages and does them."""

    weight = 3

    @task
    def take(self) -> None:
        """A long poll."""
        self.work(BATCH, WAIT_S)


class Mixed(Client):
    """Puts, works, and looks."""

    weight = 1

    @task(4)
    def put_one(self) -> None:
        """One message."""
        self.put(1)

    @task(4)
    def take_one(self) -> None:
        """What is there, without waiting."""
        self.work(1)

    @task(1)
    def look(self) -> None:
        """Reads that any replica answers by itself."""
        self.read(f"/v1/shop/queues/{random.choice(QUEUES)}/stats", "stats")
        self.read("/v1/shop/queues", "queues")


@events.quitting.add_listener
def nothing_is_a_failure(environment: Environment, **_more: object) -> None:
    """A run without a single answer must not look like a good one."""
    if environment.stats.total.num_requests == 0:
        environment.process_exit_code = 1
