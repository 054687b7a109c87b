"""States that a campaign must have been in, or its faults and its workload are too tame.

A run names a state when it is in it (``World.sometimes``). What is in here and was never
reached in a long campaign is a failure of the campaign, whatever else it has shown.
"""

from __future__ import annotations

from collections.abc import Mapping

from simulation.plan import FAULTS
from simulation.posting import ANSWERS
from simulation.standing import LIMITS

EXPECTED_AFTER = 2_000
"""Seeds after which every one of them must have been seen."""

SOMETIMES: dict[str, str] = {
    # Elections and terms.
    "deposed leader woke up believing in itself": "a paused leader was replaced meanwhile",
    "leadership was handed over on request": "TimeoutNow was sent to a caught-up member",
    "log: moving the leadership": "to a zone that is preferred",
    "log: the leadership could not be moved": "the member that was asked did not lead in time",
    "leader elected within the life of another": "two believe to lead, in different terms",
    "leader of three terms or more": "terms moved on by more than one change of leader",
    "an election was won by a node that had been down": "it restarted, and leads now",
    "a leader stepped down for want of a majority": "it leads no more, in the term it led",
    # What the guard is for.
    "guard: skipped_matching": "an append repeated what the log holds",
    "guard: capped_commit": "a commit index ahead of what the message verified",
    "guard: stale_append": "a leader of an older term spoke",
    "guard: stale_reply": "an answer of another term, or to somebody who leads no more",
    "guard: foreign_reply": "an answer from outside the membership",
    "guard: foreign_vote": "a vote from outside the membership",
    "guard: sticky_leader": "a candidate while the leader was heard",
    "guard: repeated_vote": "a request for a vote came twice",
    "guard: duplicate_vote": "a vote came twice",
    # Logs.
    "a log's uncommitted tail was cut": "entries that never committed gave way",
    "an entry of an older term was committed by a later leader": "with the first of its own",
    "leader lost with an uncommitted entry": "nobody knows whether it will survive",
    "leader deposed with a batch in flight": "its entry is in the log, its term is over",
    "node lost with an unsynced entry": "written, not on disk",
    "node lost with requests in flight": "clients stand there",
    "paused node was killed": "it never woke up",
    "a torn tail was cut at a start": "what no disk had promised is gone",
    "commands shared an entry": "group commit",
    "log: journal truncated": "the log was cut behind a durable store",
    "a frame arrived late or twice": "on another connection than it was sent on",
    # Snapshots and membership.
    "log: snapshot installed": "a store was replaced by another node's",
    "log: changing membership": "a lost disk: the old identity goes, the new one comes",
    "log: membership changed": "committed and applied",
    "a snapshot came to a node that had a log": "it had fallen behind what the leader kept",
    "a snapshot was interrupted": "a node died while one came in",
    "died right after the pointer switch": "the new store is named, the journal is the old one",
    "journal and store were reconciled at a start": "after an installation that was cut short",
    "a disk was lost": "with everything on it",
    "a lost disk was replaced and has caught up": "a whole member again",
    "power failed while a snapshot was coming in": "at one of the next changes to the disk",
    # Disks.
    "rot was found and named": "a node refused to start on a damaged file",
    "rot in the journal": "",
    "rot in the store": "",
    "rot in the term file": "",
    "rot in the membership file": "",
    "rot in the identity": "",
    "rot in the store's pointer": "",
    "rot in a snapshot": "",
    "a node stopped itself: OSError": "its disk failed or was full",
    "a node stopped itself: Corruption": "a damaged file",
    "a node stopped in good order": "leadership handed over, requests finished",
    "power failed at a change to the disk": "between two steps of something",
    "everything was down": "no process anywhere",
    # Clients.
    "a client heard: Gone": "its node died",
    "a client heard: not submitted, no_leader": "and it did not happen",
    "a client heard: not submitted, stopping": "and it did not happen",
    "a client heard: unknown, no majority answered in time": "and it may have happened",
    "a retry was answered from the remembered outcome": "a batch came twice into the log",
    "a batch came that nobody waits for any more": "below its session's floor",
    "an idempotency key came again": "and was answered as before",
    # The queue.
    "a message was delivered again": "after its lease, or a release",
    "a message waited behind others of its group": "which go one at a time",
    "a claim took messages of several lanes": "of more than one priority or zone, or delayed ones",
    "a claim was told when others' messages are its turn": "it prefers its own zone",
    "a group's head was delivered again": "and its group waited for it",
    "a head that failed held up its group": "it was delayed, others were blocked",
    "a message came with what went wrong before": "the reason of a release",
    "some of a claim went over to another": "an extension of some messages",
    "of many claims some were over": "an extension of many",
    # Dead letters and redrives.
    "a lease that ended made a dead letter": "in a sweep",
    "a dead letter was made under another leader than claimed it": "in its sweep",
    "a dead letter was claimed": "",
    "a redrive moved messages": "",
    "a redrive went on under another leader": "from where the last one's steps had come",
    "a redrive was cancelled halfway": "some were moved, some stay",
    "a job with a filter: redrive": "",
    "a job with a filter: move": "",
    "a job with a filter: delete": "",
    "a job with a filter: release": "of messages that a claim holds",
    "a job only counted": "in a dry run",
    "a job could not do what it was to do": "some were claimed, or had nowhere to go",
    # Duplicates, transactions, weak puts.
    "a duplicate was recognised": "by its dedup id, in the window",
    "a duplicate was recognised after a restart": "by a node that found the id in its store",
    "a dedup id was free again": "its window was over",
    "a transaction settled and put": "in one entry",
    "a transaction was refused": "a claim was over, or did not hold what was named",
    "a transaction was refused for one of several parts": "the others were not done either",
    "a retry was answered from a remembered transaction": "of a batch, or of an idempotency key",
    "a transaction was remembered with the claim after it": "and told again",
    "a message was accepted before it was safe": "by its leader, as its producer asked",
    "what was accepted was lost with its leader": "which is all that is allowed",
    # Bindings, schedules and subscriptions.
    "a message was copied to several queues": "several bindings matched",
    "what no binding matched stayed": "in the queue that it was put to",
    "a put that nobody heard of was copied": "its client does not know that it happened",
    "a schedule ticked": "",
    "two leaders told of one tick": "the second in vain",
    "a schedule ticked on under another leader": "from where the last one's ticks had come",
    "ticks that were missed are made up for": "one after the other",
    "a schedule was put again as it was": "and ticks on",
    "a subscription moved to another node": "the lease of the one before it was over, or given up",
    "a subscription was taken that another node has": "it asked too late, and got nothing",
    "a subscription was given back for another node": "which it is meant for",
    "a receiver wanted no more": "and the subscription rests",
    **{f"a receiver answers: {kind}": "" for kind in ANSWERS},
    "PutBinding took effect": "",
    "DeleteBinding took effect": "",
    "DeleteBinding was refused": "",
    "PutSchedule took effect": "",
    "DeleteSchedule took effect": "",
    "DeleteSchedule was refused": "",
    "PutSubscription took effect": "",
    "DeleteSubscription took effect": "",
    "DeleteSubscription was refused": "",
    "DisableSubscription took effect": "",
    "TakeSubscriptions took effect": "",
    # Quotas.
    "SetQuotas took effect": "",
    **{f"there was no room: {quota}": "" for quota in LIMITS if quota != "history_bytes"},
    "a tick found no room": "and the next one comes at its time",
    # Access keys and the audit log.
    "PutKey took effect": "",
    "RotateKey took effect": "",
    "RotateKey was refused": "",
    "RevokeKey took effect": "",
    "UseKeys took effect": "",
    "Audited took effect": "and is in the log, with who asked for it",
    "Audited was refused": "which is there as well",
    "an act was refused, for its key was gone": "",
    # Events.
    "history was trimmed": "and the rest is whole",
    "a history was off": "and is so from a mark on",
    "a sweep ran beside live claims": "",
    "a sweep ended a lease": "",
    "a sweep ended a message's life": "",
    "a sweep ended a delay": "",
    "an ack came after its lease": "and was refused",
    "an ack arrived before the sweep that was due": "the lease was over, the sweep not yet there",
    "Claim took effect": "",
    "Take took effect": "",
    "what was taken was lost with its answer": "and nobody gets it again",
    "Ack took effect": "",
    "Extend took effect": "",
    "Extend was refused": "",
    "Release took effect": "",
    "DeleteMessages took effect": "",
    "Purge took effect": "",
    "PutQueue took effect": "",
    "PatchQueue took effect": "",
    "DeleteQueue took effect": "",
    "Once took effect": "",
    "ExtendMany took effect": "",
    "Transact took effect": "",
    "TransactAndClaim took effect": "",
    "StartJob took effect": "",
    "StartJob was refused": "no such queue, or there is one",
    "CancelJob took effect": "",
    "a queue was deleted with claims": "",
    # Every fault, on the leader and elsewhere.
    **{f"fault on the leader: {kind}": "" for kind in FAULTS},
    **{f"fault elsewhere: {kind}": "" for kind in FAULTS},
}


def missed(reached: Mapping[str, int]) -> list[str]:
    """What was never reached."""
    return [name for name in SOMETIMES if not reached.get(name)]
