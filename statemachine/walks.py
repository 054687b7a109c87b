"""How a job comes to its messages: so many in a step, and never back over what is gone.

Through the messages it goes by their keys: lane by lane, up to the mark. Groups keep
their order: what is behind others of its group is passed over, and when the last of
these was moved away it is looked at again, wherever its key is. Through the claims a job
goes by claim, and within one by message id. Which of both it is depends on what the
job may do something with: a message that is claimed is found by its claim alone.
"""

from __future__ import annotations

from statemachine import claims, groups, keys, records
from statemachine.acts import Step
from statemachine.commands import MessageId, Release
from statemachine.outcomes import Settled
from statemachine.records import Held, JobRecord

STEP_BYTES_MAX = 4 << 20
LOOK_AHEAD = 100
"""How much more is read than may be done, lest much is read often that is looked at once."""

_LANES_END = 2**16
_END = b"\xff" * (keys.ID_BYTES + 1)


def is_over_claims(job: JobRecord) -> bool:
    """Whether a job goes through the claims."""
    return job.act == "release" or (job.act == "delete" and job.filter.state == "claimed")


def go_on(step: Step) -> bool:
    """Take the job as far as this step may; whether there is more to do."""
    return _over_claims(step) if is_over_claims(step.job) else _over_messages(step)


def _over_messages(step: Step) -> bool:
    job = step.job
    _follow_group(step)
    count = min(step.left, step.may_do + LOOK_AHEAD)
    rows = _rows(step, count) if count else []
    for message_id, data in rows:
        if step.is_over:
            return True
        if step.is_new(keys.number(message_id[2:])) or not step.may_hold(message_id):
            lane = keys.number(message_id[:2]) + 1
            job.cursor = lane.to_bytes(2, "big") if lane < _LANES_END else _END
            return True  # There may be more behind this lane.
        job.cursor = message_id + b"\x00"
        step.look_at(message_id, data)
        _follow_group(step)
    return len(rows) >= count or step.is_heavy or bool(job.group)


def _rows(step: Step, count: int) -> list[tuple[MessageId, bytes]]:
    found: list[tuple[MessageId, bytes]] = []
    queue, size = step.queue, 0
    low = queue.messages + step.job.cursor
    for key, data in step.state.kv.scan(low, keys.of_queue(b"m", queue.record.number + 1)):
        found.append((key[-keys.ID_BYTES :], data))
        size += len(data)
        if len(found) >= count or size >= STEP_BYTES_MAX:
            step.is_heavy = size >= STEP_BYTES_MAX
            break
    return found


def _follow_group(step: Step) -> None:
    """Look again at what was passed over and has its turn now."""
    job, state, queue = step.job, step.state, step.queue
    while job.group and not step.is_over:
        first = groups.first(state, queue, job.group)
        job.group = ""
        # Ahead of the cursor it will be met anyway.
        if first is not None and first < job.cursor and not step.is_new(keys.number(first[2:])):
            data = state.kv.get(queue.messages + first)
            assert data is not None, "a member is stored"
            step.look_again_at(first, data)


def _over_claims(step: Step) -> bool:
    """Claims with what is to be looked at of each; those that are read are a few at most."""
    job, queue = step.job, step.queue
    low = keys.claim(queue.record.number, queue.record.claims_low)
    low = max(low, queue.claims + job.cursor[:8])
    found: list[tuple[int, list[Held]]] = []
    count, more = 0, False
    for key, data in step.state.kv.scan(low, keys.claim(queue.record.number + 1, 0)):
        claim = keys.number(key[-8:])
        if step.is_new(claim):
            break
        place = key[-8:]
        held = [one for one in records.decode_claim(data).messages if place + one.id > job.cursor]
        found.append((claim, sorted(held, key=lambda one: one.id)))
        count += len(held)
        if count >= step.left:
            more = True
            break
    return any([_in_claim(step, claim, held) for claim, held in found]) or more


def _in_claim(step: Step, claim: int, held: list[Held]) -> bool:
    """Whether there is more to do in this claim."""
    state, queue = step.state, step.queue
    picked: list[MessageId] = []
    for at, one in enumerate(held):
        if step.is_over:
            held = held[at:]
            break
        step.job.cursor = keys.u64(claim) + one.id
        data = state.kv.get(queue.messages + one.id)
        if data is not None and step.look_at_held(one, data):  # Else it was deleted meanwhile.
            picked.append(one.id)
    else:
        held = []
    if picked and step.job.act == "release":
        account, name = queue.names
        settled = claims.release(state, Release(account, name, claim, tuple(picked), 0))
        assert isinstance(settled, Settled), "a claim whose lease has ended is gone by now"
    return bool(held)
