"""Consuming by a stream: credit and acks come in, claims and what became of the acks go out.

Three things go on at once. One task reads what the client says, and settles what it has
acknowledged: what comes in one piece goes to the log together, and is answered before any more is
read. One claims while there is credit, and waits like a long poll when nothing is ready. One
gives signs of life. Whatever ends first ends the others: the one that claims is told that nobody
wants anything any more, and gives back what it has just been given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from starlette.types import Send

from api import problems
from api.access.principals import Role
from api.access.rules import Access
from api.ports import Unavailable
from api.problems import ENDINGS, Document, Problem
from api.rest import claiming, claims, lines, parameters, polling
from api.rest.answers import Stream
from api.rest.claiming import ClaimToMake
from api.rest.claims import Nack
from api.rest.envelopes import Message
from api.rest.lines import Line, Lines
from api.rest.operations import Operation, Says
from api.rest.parameters import ZoneMode
from api.rest.polling import Presence
from api.rest.requests import (
    NDJSON,
    RETRY_S,
    Call,
    Disconnected,
    decode,
    is_ndjson,
)
from api.rest.streams import HEARTBEAT_S
from statemachine.commands import Ack, Claim, Release, Take
from statemachine.outcomes import Claimed, Reason, Settled

CONSUME = "/v1/{account}/queues/{queue}/consume"
CREDIT_MAX = 1_000_000

Unset = msgspec.UnsetType
UNSET = msgspec.UNSET


class ConsumeQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As in a claim; ``batch`` is how many messages one of them may have."""

    batch: parameters.Count = 1
    lease: float | None = None
    zone: parameters.Name | None = None
    zone_mode: ZoneMode | None = None
    locality_wait: float | None = None
    consumer: str | None = None
    auto_ack: bool = False


class Control(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a consumer says: how many messages more it takes, and which claims it has done with.

    ``reason``, ``delay`` and ``dead`` are of those that it gives back (``nack``).
    """

    credit: int | None = None
    ack: str | list[str] | None = None
    nack: str | list[str] | None = None
    reason: str | None = None
    delay: float | None = None
    dead: bool = False


class Consumed(msgspec.Struct, frozen=True, kw_only=True):
    """A claim and what it holds; or how many messages an ack or a nack has settled; or the end.

    ``stale`` names the claims that were none any more. The end is ``done``, or a ``problem``:
    then it is not known of the acks in ``line``, and behind it, whether they were done.
    """

    claim: str | Unset | None = UNSET
    lease_until: datetime | Unset | None = UNSET
    messages: list[Message] | Unset = UNSET
    acked: int | Unset = UNSET
    released: int | Unset = UNSET
    stale: list[str] | Unset = UNSET
    problem: Document | Unset = UNSET
    line: int | Unset = UNSET
    done: bool | Unset = UNSET


class _Settling(NamedTuple):
    """What one line wants settled: claims by their names."""

    line: int
    is_ack: bool
    commands: dict[str, Ack | Release]


_decode = msgspec.json.Decoder(Control).decode


async def consume_messages(call: Call, query: ConsumeQuery) -> Stream:
    """POST consume."""
    if not is_ndjson(call.content_type):
        raise Problem("unsupported_media_type", f"send this as {NDJSON}")
    lines.require_plain(call)
    batch = parameters.in_range(query.batch, 1, call.service.limits.claim_messages_max, "batch")
    of_each = ClaimToMake(
        batch,
        query.lease,
        zone=query.zone,
        zone_mode=query.zone_mode,
        locality_wait=query.locality_wait,
        consumer=query.consumer,
        auto_ack=query.auto_ack,
    )
    asked = claiming.wanted(call, call.queue, of_each).command
    return Stream(ConsumeStream(call, asked).run)


class ConsumeStream:
    """One consumer's, from when it is answered until one of the two leaves."""

    def __init__(self, call: Call, asked: Claim | Take) -> None:
        self._call = call
        self._asked = asked
        self._lines = Lines(call, may_rest=True)
        self._presence = Presence()
        self._credit = 0
        self._credited = asyncio.Event()
        self._all_settled = asyncio.Event()
        self._all_settled.set()
        self._line = 1  # The first that was not answered, if it ends now.
        self._send: Send

    async def run(self, send: Send, with_body: bool) -> None:
        """See ``answers.Stream``."""
        self._send = send
        await send(lines.head())
        try:
            await self._until_one_ends(self._listen(), self._claim(), self._beat())
            last = Consumed(done=True)
        except Disconnected:
            return  # Nobody is left to be told.
        except ENDINGS as error:
            last = Consumed(problem=problems.of(error).document, line=self._line)
        await send(lines.last_line(last))

    async def _until_one_ends(
        self,
        listen: Coroutine[Any, Any, None],
        claim: Coroutine[Any, Any, None],
        beat: Coroutine[Any, Any, None],
    ) -> None:
        """Raises what the first one raises that ends."""
        stopping = asyncio.get_running_loop().create_future()
        forget = self._call.service.when_stopping(
            lambda: None if stopping.done() else stopping.set_result(None)
        )
        claiming = asyncio.ensure_future(claim)
        others = [asyncio.ensure_future(one) for one in (listen, beat)]
        try:
            if not self._call.service.is_stopping():
                first = asyncio.FIRST_COMPLETED
                await asyncio.wait([*others, claiming, stopping], return_when=first)
        finally:
            forget()
            self._presence.leave()
            await asyncio.wait([claiming])
            while not self._all_settled.is_set():  # What was begun is answered.
                await self._all_settled.wait()
            for one in others:
                one.cancel()
            await asyncio.wait(others)
        ends = [one.exception() for one in others if not one.cancelled()]
        if not isinstance(end := claiming.exception(), Disconnected):  # As it was told.
            ends.append(end)
        for error in filter(None, ends):
            raise error
        if self._call.service.is_stopping():
            raise Unavailable("stopping", "this node is stopping; ask another")

    async def _listen(self) -> None:
        """Until the client has no more to say."""
        while not self._presence.gone and (found := await self._lines.read()):
            settle: list[_Settling] = []
            wrong: Problem | None = None
            for line in found:
                try:
                    self._hear(line, settle)
                except Problem as problem:
                    wrong = problem
                    break
            if settle:
                self._all_settled.clear()
                try:
                    await self._settle(settle)
                finally:
                    self._all_settled.set()
            if wrong is not None:
                self._line = line.number
                raise wrong
            self._line = self._lines.ended + 1

    def _hear(self, line: Line, settle: list[_Settling]) -> None:
        """Take note of one line."""
        said = decode(_decode, line.text, "line")
        call = self._call
        if said.credit is None and said.ack is None and said.nack is None:
            raise Problem("invalid_request", "a line says credit, ack or nack")
        account, queue = self._asked.account, self._asked.queue
        given = Nack(None, said.reason, said.delay, said.dead)
        if said.nack is None and given != Nack():
            raise Problem("invalid_request", "reason, delay and dead are for nack")
        claims.check_nack(given)
        back = claims.nacked(call, given)
        acks = {name: Ack(account, queue, claim, None) for name, claim in self._named(said.ack)}
        nacks = {
            name: Release(account, queue, claim, *back) for name, claim in self._named(said.nack)
        }
        if said.credit is not None:
            self._credit += parameters.in_range(said.credit, 1, CREDIT_MAX, "credit")
            self._credited.set()
        settle += [_Settling(line.number, True, dict(acks))] if acks else []
        settle += [_Settling(line.number, False, dict(nacks))] if nacks else []

    def _named(self, named: str | list[str] | None) -> list[tuple[str, int]]:
        if named is None:
            return []
        names = [named] if isinstance(named, str) else named
        most = self._call.service.limits.claim_messages_max
        parameters.in_range(len(names), 1, most, "claims")
        return [(name, claims.claim_id(name)) for name in names]

    async def _settle(self, settle: list[_Settling]) -> None:
        """All of it goes to the log together, and is answered in order."""
        self._line = settle[0].line
        await self._call.pace()
        await self._call.readmit()
        commands = [command for one in settle for command in one.commands.values()]
        if len(commands) == 1:  # As most are of whoever has a message at a time: no task for it.
            counts = iter([await self._settled(commands[0])])
        else:
            counts = iter(await asyncio.gather(*[self._settled(command) for command in commands]))
        for one in settle:
            by_name = {name: next(counts) for name in one.commands}
            stale = [name for name, count in by_name.items() if count is None]
            count = sum([count for count in by_name.values() if count is not None])
            await self._send(
                lines.line(
                    Consumed(
                        acked=count if one.is_ack else UNSET,
                        released=UNSET if one.is_ack else count,
                        stale=stale or UNSET,
                    )
                )
            )

    async def _settled(self, command: Ack | Release) -> int | None:
        """How many messages; None if there is no such claim any more."""
        try:
            return (await self._call.propose(command, Settled)).settled
        except Problem as problem:
            if problem.reason != Reason.NO_CLAIM:
                raise
            return None

    async def _claim(self) -> None:
        """As long as the client wants anything: ``Disconnected`` when it does not."""
        while True:
            await self._wait_for_credit()
            try:
                claimed = await self._claim_some()
            except Problem as problem:
                if problem.reason != Reason.QUOTA_EXCEEDED:
                    raise
                await self._presence.during(lambda: asyncio.sleep(RETRY_S))
            except Unavailable as error:
                if error.reason != "overloaded":
                    raise
                await self._presence.during(lambda: asyncio.sleep(RETRY_S))
            else:
                if claimed.messages:
                    await self._give(claimed)

    async def _wait_for_credit(self) -> None:
        if self._credit:
            return
        self._credited.clear()
        self._call.park()
        try:
            await self._presence.during(self._credited.wait)
        finally:
            self._call.unpark()

    async def _claim_some(self) -> Claimed:
        """Some messages, or none if nothing was ready for as long as a poll may wait."""
        await self._presence.during(self._call.begin)
        limit = min(self._credit, self._asked.limit)
        command = msgspec.structs.replace(self._asked, limit=limit)
        wait_s = self._call.service.limits.wait_ms_max / 1000
        try:
            return await polling.claim_while_present(self._call, command, wait_s, self._presence)
        finally:
            self._call.end()

    async def _give(self, claimed: Claimed) -> None:
        view = claiming.shown(self._call, self._asked, claimed)
        self._credit -= len(view.messages)
        told = Consumed(claim=view.claim, lease_until=view.lease_until, messages=view.messages)
        await self._send(lines.line(told))

    async def _beat(self) -> None:
        """Say that there is still somebody, as long as the key is good."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await self._call.readmit()
            await self._send(lines.empty_line())


OPERATIONS = (
    Operation(
        "POST",
        CONSUME,
        consume_messages,
        "A stream of claims, as many messages as the client gives credit for, and of its acks",
        access=Access(Role.CONSUME, "queue"),
        query=ConsumeQuery,
        line_kinds=(Control,),
        answers={
            200: Says("A line for each claim and for each ack", Consumed, media_type=NDJSON),
        },
        refusals=("unsupported_media_type",),
    ),
)
