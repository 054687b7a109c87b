"""Producers and consumers over HTTP who write down what they see (``history``).

Every producer and consumer is a task with one connection to one node; when the node is
gone he goes to the next, as a real client would. Every fourth producer sends with an
idempotency key and repeats what he does not know; the others never repeat. Now and then
a consumer releases or extends his claim, or dies with it.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from history import Ack, Delivery, Extension, Fault, History, Put, Release, Result
from http_connection import Answer, Connection, Lost, NotSent

ACCOUNT, QUEUE = "default", "work"
PATH = f"/v1/{ACCOUNT}/queues/{QUEUE}"
REQUEST_TIMEOUT_S = 12.0  # Above the nodes' own, so that a node has the chance to say so.
AWAY_S = 0.05
REPEATS_MAX = 100
CLAIM_MESSAGES = 10
RELEASES = EXTENSIONS = 0.02  # Shares of all claims.
PAGE = 500
REFUSALS = frozenset({"no_leader", "overloaded", "stopping", "not_ready"})


class Unexpected(AssertionError):
    """An answer that no fault explains."""


class Client:
    """One connection to one of the nodes, the next one when that fails."""

    def __init__(self, ports: Sequence[int], first: int) -> None:
        self._ports = itertools.cycle([*ports[first:], *ports[:first]])
        self._connection = self._next()

    async def ask(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[Result, Answer | None]:
        """DONE with an answer below 500; otherwise what may be believed."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            answer = await self._connection.request(method, path, body, named)
        except NotSent:
            return await self._moved(Result.REFUSED)
        except Lost:
            return await self._moved(Result.UNKNOWN)
        if answer.status < 500:
            return Result.DONE, answer
        refused = answer.status == 503 and answer.reason in REFUSALS
        return await self._moved(Result.REFUSED if refused else Result.UNKNOWN)

    def close(self) -> None:
        self._connection.close()

    def _next(self) -> Connection:
        return Connection(next(self._ports), timeout_s=REQUEST_TIMEOUT_S)

    async def _moved(self, result: Result) -> tuple[Result, None]:
        self._connection.close()
        self._connection = self._next()
        await asyncio.sleep(AWAY_S)
        return result, None


class Workload:
    """Runs while its ``async with`` block does; ``finish`` then drains the queue."""

    def __init__(
        self,
        ports: Sequence[int],
        *,
        producers: int,
        consumers: int,
        lease_s: float = 3.0,
        body_bytes: int = 100,
        deaths: float = 0.01,
        seed: int = 0,
    ) -> None:
        self.history = History()
        self._ports = list(ports)
        self._producers = producers
        self._consumers = consumers
        self._lease_s = lease_s
        self._padding = "x" * body_bytes
        self._deaths = deaths
        self._seed = seed
        self._numbers = itertools.count(1)
        self._tasks: list[asyncio.Task[None]] = []
        self._acknowledged = 0
        self._producing = True
        self._consuming = True

    async def __aenter__(self) -> Self:
        self._tasks = [
            *(asyncio.create_task(self._produce(n)) for n in range(self._producers)),
            *(asyncio.create_task(self._consume(n)) for n in range(self._consumers)),
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def fault(self, what: str) -> None:
        """Write down that something has been done to the cluster."""
        self.history.faults.append(Fault(what, time.monotonic()))

    async def acknowledges(self, count: int, *, deadline_s: float = 60.0) -> None:
        """Wait until that many more puts have been acknowledged."""
        goal = self._acknowledged + count
        await self._until(lambda: self._acknowledged >= goal, deadline_s)

    async def recovers(self, *, deadline_s: float = 30.0) -> None:
        """Wait until a put that began after the last fault has been acknowledged."""
        since_s = self.history.faults[-1].at_s

        def recovered() -> bool:
            # Puts are written down as they end.
            latest = itertools.takewhile(
                lambda put: put.ended_s >= since_s, reversed(self.history.puts)
            )
            return any(put.started_s >= since_s and put.result is Result.DONE for put in latest)

        await self._until(recovered, deadline_s)

    async def finish(self, *, deadline_s: float = 120.0) -> History:
        """Stop producing, drain the queue, browse what is left, stop everybody."""
        self._producing = False
        await self._joined(self._tasks[: self._producers], deadline_s)
        client = Client(self._ports, 0)
        try:
            give_up_s = time.monotonic() + deadline_s
            while await self._counted(client) and time.monotonic() < give_up_s:
                self._raise_failures()
                await asyncio.sleep(0.2)
            self._consuming = False
            await self._joined(self._tasks, deadline_s)
            self.history.remaining = await self._browse(client)
        finally:
            client.close()
        return self.history

    async def _produce(self, place: int) -> None:
        client = Client(self._ports, place % len(self._ports))
        repeats = REPEATS_MAX if place % 4 == 0 else 0
        try:
            while self._producing:
                await self._put(client, next(self._numbers), repeats)
        finally:
            client.close()

    async def _put(self, client: Client, number: int, repeats: int) -> None:
        key = {"Idempotency_Key": f"{QUEUE}/{number}"} if repeats else {}
        body = {"body": {"number": number, "padding": self._padding}}
        started_s = time.monotonic()
        result, answer = Result.REFUSED, None
        for _ in range(repeats + 1):
            now, answer = await client.ask("POST", f"{PATH}/messages", body, **key)
            # Once unknown, a refusal says nothing about the first attempt.
            result = Result.UNKNOWN if (result, now) == UNKNOWN_THEN_REFUSED else now
            if now is Result.DONE:
                break
        message_id = "" if answer is None else _expect(answer, 201)["ids"][0]
        self.history.puts.append(Put(number, started_s, time.monotonic(), result, message_id))
        self._acknowledged += result is Result.DONE

    async def _consume(self, place: int) -> None:
        client = Client(self._ports, place % len(self._ports))
        chance = random.Random(f"{self._seed}/{place}")
        try:
            while self._consuming:
                await self._take(client, chance)
        finally:
            client.close()

    async def _take(self, client: Client, chance: random.Random) -> None:
        wanted = {"limit": CLAIM_MESSAGES, "lease": self._lease_s, "wait": 0.5}
        started_s = time.monotonic()
        _, answer = await client.ask("POST", f"{PATH}/claims", wanted)
        ended_s = time.monotonic()
        if answer is None or answer.status == 204:
            return
        found = _expect(answer, 201)
        claim, until_ms = found["claim"], _unix_ms(found["lease_until"])
        from_ms = until_ms - round(self._lease_s * 1000)
        for message in found["messages"]:
            number, message_id = self._checked(message), message["id"]
            self.history.deliveries.append(
                Delivery(number, message_id, claim, started_s, ended_s, from_ms, until_ms)
            )
        await self._settle(client, claim, len(found["messages"]), chance.random())

    async def _settle(self, client: Client, claim: str, held: int, chance: float) -> None:
        path = f"{PATH}/claims/{claim}"
        if chance < self._deaths:
            return  # He died.
        chance -= self._deaths
        if chance < RELEASES:
            self.history.releases.append(Release(claim, time.monotonic()))
            await client.ask("DELETE", path)
            return
        if chance < RELEASES + EXTENSIONS:
            _, answer = await client.ask("PATCH", path, {"lease": self._lease_s})
            if answer is not None and answer.status == 200:
                until_ms = _unix_ms(answer.json()["lease_until"])
                self.history.extensions.append(Extension(claim, until_ms))
        started_s = time.monotonic()
        result, answer = await client.ask("POST", f"{path}/ack")
        if answer is not None:
            result = _acked(answer, held)
        self.history.acks.append(Ack(claim, started_s, time.monotonic(), result))

    def _checked(self, message: dict[str, Any]) -> int:
        body = message["body"]
        if body.get("padding") != self._padding:
            raise Unexpected(f"a body came back changed: {message}")
        return int(body["number"])

    async def _counted(self, client: Client) -> int:
        """Messages in the queue in any state, by a read that sees all acknowledged writes."""

        async def stats() -> Answer | None:
            path = f"{PATH}/stats?consistency=linearizable"
            return (await client.ask("GET", path))[1]

        counts = _expect(await self._answered(stats), 200)["messages"]
        return sum(int(counts[state]) for state in ("ready", "delayed", "claimed"))

    async def _browse(self, client: Client) -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = []
        marker = ""
        while True:
            path = (
                f"{PATH}/messages?limit={PAGE}&include_claimed=true"
                f"&consistency=linearizable{marker and '&marker=' + marker}"
            )

            async def page(path: str = path) -> Answer | None:
                return (await client.ask("GET", path))[1]

            body = _expect(await self._answered(page), 200)
            found += [(self._checked(message), message["id"]) for message in body["messages"]]
            if not body["marker"]:
                return found
            marker = body["marker"]

    async def _answered(self, ask: Callable[[], Awaitable[Answer | None]]) -> Answer:
        for _ in range(REPEATS_MAX):
            answer = await ask()
            if answer is not None:
                return answer
        raise Unexpected("no node answers a read")

    async def _until(self, holds: Callable[[], bool], deadline_s: float) -> None:
        give_up_s = time.monotonic() + deadline_s
        while not holds():
            self._raise_failures()
            if time.monotonic() > give_up_s:
                raise Unexpected(f"the workload did not get there in {deadline_s} s")
            await asyncio.sleep(0.01)

    async def _joined(self, tasks: Sequence[asyncio.Task[None]], deadline_s: float) -> None:
        await asyncio.wait(tasks, timeout=deadline_s)
        self._raise_failures()
        assert all(task.done() for task in tasks), "a client is stuck"

    def _raise_failures(self) -> None:
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()


UNKNOWN_THEN_REFUSED = (Result.UNKNOWN, Result.REFUSED)


def _acked(answer: Answer, held: int) -> Result:
    if answer.status in (404, 409):
        return Result.REFUSED  # The lease ran out first.
    said = _expect(answer, 200)
    # Part of a claim cannot happen while it is acknowledged as a whole; believe nothing then.
    return Result.DONE if said["acked"] == held else Result.UNKNOWN


def _expect(answer: Answer, status: int) -> Any:
    if answer.status != status:
        raise Unexpected(f"{answer.status} {answer.body[:500]!r}")
    return answer.json()


def _unix_ms(timestamp: str) -> int:
    return round(datetime.fromisoformat(timestamp).timestamp() * 1000)
