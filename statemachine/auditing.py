"""Writing the audit log: an act and its record are one command: neither is there without the other.

What is too old goes as later acts come, and so does what is too much of one owner: a few for each,
from the oldest on. So nothing needs a timer, and no act costs more for how much there is.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from statemachine import audit, keys, records
from statemachine import commands as c
from statemachine.audit import AuditMarkRecord, AuditRecord
from statemachine.outcomes import Outcome, Reason, Refused
from statemachine.state import State

DROPPED_MAX = 16
"""With each act, of those that are to go."""

ACTS: dict[type[c.AdministrativeCommand], tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    c.Purge: ("purge_queue", ("queue",), ()),
    c.PutQueue: ("put_queue", ("queue",), ()),
    c.PatchQueue: ("patch_queue", ("queue",), ("fields",)),
    c.DeleteQueue: ("delete_queue", ("queue",), ()),
    c.PutAccount: ("put_account", (), ()),
    c.PatchAccount: ("patch_account", (), ("fields",)),
    c.DeleteAccount: ("delete_account", (), ()),
    c.StartJob: ("start_job", ("queue",), ("act", "to", "dry_run")),
    c.CancelJob: ("cancel_job", ("queue",), ()),
    c.PutBinding: ("put_binding", ("queue", "target"), ()),
    c.DeleteBinding: ("delete_binding", ("queue", "target"), ()),
    c.PutSchedule: ("put_schedule", ("schedule",), ("queue",)),
    c.DeleteSchedule: ("delete_schedule", ("schedule",), ()),
    c.PutSubscription: ("put_subscription", ("queue", "name"), ()),
    c.DeleteSubscription: ("delete_subscription", ("queue", "name"), ()),
    c.PutKey: ("put_key", ("id",), ()),
    c.RotateKey: ("rotate_key", ("id",), ("grace_ms",)),
    c.RevokeKey: ("revoke_key", ("id",), ()),
    c.PutSealingKeys: ("put_encryption_keys", (), ("enabled",)),
    c.DropSealingKeys: ("destroy_encryption_keys", (), ()),
    c.SetQuotas: ("set_quotas", (), ("fields",)),
}
"""What each is called; the fields that say what it is done to, and what more may be told."""


def run_audited(
    state: State, command: c.Audited, run: Callable[[State, c.QueueCommand], Outcome]
) -> Outcome:
    """See ``commands.Audited``."""
    if command.key and state.kv.get(keys.access_key(command.key)) is None:
        detail = f"the key {command.key!r} was revoked before this took effect"
        outcome: Outcome = Refused(Reason.KEY_ENDED, detail)
    else:
        outcome = run(state, command.command)
    if isinstance(outcome, Refused) and outcome.reason is Reason.STALE_SEAL:
        return outcome  # The node has yet to send what it was asked for.
    _append(state, _record(state, command, outcome), command)
    return outcome


def _record(state: State, command: c.Audited, outcome: Outcome) -> AuditRecord:
    act, subject, detail = ACTS[type(command.command)]
    given = [(name, getattr(command.command, name)) for name in detail]
    told = [f"{name}={_text(value)}" for name, value in given if value not in (None, "", ())]
    return AuditRecord(
        state.now_ms,
        command.actor,
        command.source,
        command.request,
        command.account,
        act,
        "/".join(getattr(command.command, name) for name in subject),
        " ".join(told + _roles(command.command)),
        outcome.reason.value if isinstance(outcome, Refused) else audit.DONE,
        command.owner,
    )


def _roles(command: c.AdministrativeCommand) -> list[str]:
    """What a new key may do."""
    if not isinstance(command, c.PutKey):
        return []
    settings = command.settings
    return [f"roles={_text(settings.roles)}", f"queues={_text(settings.queues)}"]


def _text(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _append(state: State, record: AuditRecord, command: c.Audited) -> None:
    number, data = state.take_id(), records.encode(record)
    state.kv.put(keys.audit(number), data)
    state.kv.put(keys.audit_of(record.owner, number), b"")
    mark = audit.mark(state.kv, record.owner)
    mark.bytes += len(data)
    _keep(state, record.owner, mark)
    _drop_old(state, command)
    _drop_beyond(state, command)


def _drop_old(state: State, command: c.Audited) -> None:
    """Whosever they are; they lie in the order of time."""
    oldest_ms = state.now_ms - command.keep_ms
    before = first = audit.first(state.kv)
    rows = islice(state.kv.scan(keys.audit(first), keys.AUDIT_END), DROPPED_MAX)
    for number, data in [(keys.number(key[2:]), data) for key, data in rows]:
        first = number
        record = audit.decode_record(data)
        if record.time_ms >= oldest_ms:
            break
        _drop(state, record.owner, number, data)
        first = number + 1
    if first != before:
        state.kv.put(keys.AUDIT_FIRST, keys.u64(first))


def _drop_beyond(state: State, command: c.Audited) -> None:
    """Of this owner alone: nobody's acts make anybody else's be forgotten. The last one stays."""
    owner = command.owner
    mark = audit.mark(state.kv, owner)
    low, high = keys.audit_of(owner, mark.low), keys.audit_of(owner, keys.U64_MAX)
    rows = state.kv.scan(low, high) if mark.bytes > command.keep_bytes else iter(())
    numbers = [keys.number(key[-8:]) for key, _ in islice(rows, DROPPED_MAX + 1)]
    for number in numbers[:-1]:
        if audit.mark(state.kv, owner).bytes <= command.keep_bytes:
            break
        data = state.kv.get(keys.audit(number))
        assert data is not None, "what is an owner's is there"
        _drop(state, owner, number, data)


def _drop(state: State, owner: str, number: int, data: bytes) -> None:
    state.kv.delete(keys.audit(number))
    state.kv.delete(keys.audit_of(owner, number))
    mark = audit.mark(state.kv, owner)
    mark.bytes -= len(data)
    mark.low = number + 1
    _keep(state, owner, mark)


def _keep(state: State, owner: str, mark: AuditMarkRecord) -> None:
    if mark.bytes:
        state.kv.put(keys.audit_mark(owner), records.encode(mark))
    else:
        state.kv.delete(keys.audit_mark(owner))
