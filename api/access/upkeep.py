"""What a node does about keys while nobody asks: the operator's first one, and their last use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from api.access import minting, tokens
from api.access.principals import EVERY_QUEUE, Role
from api.audit import audited
from api.ports import OutcomeUnknown, Service, Unavailable
from statemachine import keyring
from statemachine.commands import KeySettings, PutKey, UseKeys
from statemachine.outcomes import KeyStored

POLL_S = 0.2
REPORT_EVERY_S = 60.0
REPORTED_MAX = 1_000
USED_GRAIN_MS = 3_600_000


class Upkeep:
    """See the module. ``announce`` is told the operator's first key, once."""

    def __init__(self, service: Service, announce: Callable[[str], None]) -> None:
        self._service = service
        self._announce = announce

    async def run(self) -> None:
        """Go on until cancelled."""
        if not self._service.access.required:
            return
        await self._bootstrap()
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            await self.report()

    async def report(self) -> None:
        """Say in the log which keys were used that had not been for an hour."""
        service = self._service
        used, now_ms = sorted(service.take_used_keys()), service.now_ms()
        records = [(key_id, keyring.key(service.reader(), key_id)) for key_id in used]
        due = [
            key_id
            for key_id, record in records
            if record is not None and now_ms - record.used_ms >= USED_GRAIN_MS
        ]
        for first in range(0, len(due), REPORTED_MAX):
            try:
                await service.propose(UseKeys(tuple(due[first : first + REPORTED_MAX])))
            except (Unavailable, OutcomeUnknown):
                return  # They are reported when they are used again.

    async def _bootstrap(self) -> None:
        """Return when the operator has a key: that of the configuration, or one of his own."""
        given = self._service.access.bootstrap_key
        # The same one each time, so that a try of which nobody knows how it ended is no other key.
        token = given or minting.new_token(minting.new_id())
        is_unsure = False
        while is_unsure or not self._has_key(given):
            if self._service.ready() is None and (given or is_unsure or self._leads()):
                try:
                    await self._put(token, is_given=bool(given))
                except Unavailable:
                    pass  # Once more, then.
                except OutcomeUnknown:
                    is_unsure = True
                else:
                    return
            await asyncio.sleep(POLL_S)

    def _has_key(self, given: str) -> bool:
        reader, key_id = self._service.reader(), tokens.id_of(given)
        if key_id is not None:
            return keyring.key(reader, key_id) is not None
        return bool(keyring.of_account(reader, ""))

    def _leads(self) -> bool:
        return self._service.status().role == "leader"

    async def _put(self, token: str, *, is_given: bool) -> None:
        key_id = tokens.id_of(token)
        assert key_id is not None, "the configuration was checked"
        settings = KeySettings("bootstrap", (Role.ADMIN.value,), EVERY_QUEUE)
        digest = tokens.digest(self._service.access.pepper, token)
        command = PutKey("", key_id, settings, digest, first=not is_given)
        node = self._service.status().node
        act = audited(command, self._service.audit, owner="", actor=f"node:{node}")
        stored = await self._service.propose(act)
        if isinstance(stored, KeyStored) and stored.hash == digest and not is_given:
            self._announce(token)
