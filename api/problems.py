"""One table of everything that can go wrong, and one shape for it (RFC 9457).

``reason`` is the stable word that programs switch on; ``detail`` is for people and
may change. Other protocols map the same words to their own codes.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from api.ports import OutcomeUnknown, Unavailable, Unreadable
from statemachine.commands import MessageId
from statemachine.ids import message_id_text
from statemachine.outcomes import Over, Reason, Refused, Why

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:raftq:problem:"


class Kind(NamedTuple):
    """The HTTP status of a reason, and its title."""

    status: int
    title: str


KINDS: dict[str, Kind] = {
    # Refused by the state machine.
    Reason.NO_ACCOUNT: Kind(404, "No such account"),
    Reason.NO_QUEUE: Kind(404, "No such queue"),
    Reason.NO_CLAIM: Kind(404, "No such claim"),
    Reason.ACCOUNT_IN_USE: Kind(409, "The account is in use"),
    Reason.KEY_REUSED: Kind(422, "The idempotency key was used for another request"),
    Reason.SESSION_EXPIRED: Kind(503, "The node's session ran out"),
    Reason.STALE_BATCH: Kind(503, "The node's batch came too late"),
    Reason.JOB_RUNNING: Kind(409, "The queue has a job that is running"),
    Reason.NO_JOB: Kind(404, "The queue has no job"),
    Reason.NO_BINDING: Kind(404, "No such binding"),
    Reason.NO_SCHEDULE: Kind(404, "No such schedule"),
    Reason.TOO_MANY_BINDINGS: Kind(409, "The queue is bound to as many queues as may be"),
    Reason.TOO_MANY_SCHEDULES: Kind(409, "The account has as many schedules as may be"),
    Reason.FAN_OUT_TOO_LARGE: Kind(413, "The bindings would make too many copies"),
    Reason.FAN_OUT_BUSY: Kind(503, "Too many copies are being made"),
    Reason.STALE_TICK: Kind(409, "The schedule does not wait for this tick"),
    Reason.NO_SUBSCRIPTION: Kind(404, "No such subscription"),
    Reason.TOO_MANY_SUBSCRIPTIONS: Kind(409, "The queue has too many subscriptions"),
    Reason.TOO_MANY_SEALING_KEYS: Kind(409, "The account has as many encryption keys as may be"),
    Reason.STALE_SEAL: Kind(503, "The account's encryption has just changed"),
    Reason.QUOTA_EXCEEDED: Kind(403, "The account has as much as it may have"),
    Reason.KEY_ENDED: Kind(401, "The key was revoked meanwhile"),
    Reason.NO_KEY: Kind(404, "No such key"),
    Reason.TOO_MANY_KEYS: Kind(409, "The account has as many keys as may be"),
    # Refused at the door.
    "unauthorized": Kind(401, "No valid key"),
    "forbidden": Kind(403, "The key does not allow this"),
    "invalid_schedule": Kind(400, "The schedule can not be followed"),
    "no_route": Kind(404, "No such resource"),
    "no_message": Kind(404, "No such message"),
    "no_history": Kind(404, "The history does not reach back that far"),
    "history_off": Kind(409, "The queue keeps no history"),
    "events_gone": Kind(410, "Some of these events are no longer held"),
    "method_not_allowed": Kind(405, "Method not allowed"),
    "stale_claim": Kind(409, "The claim holds none of these messages"),
    "stale_transaction": Kind(409, "Some of the claims do not hold what was named"),
    "invalid_request": Kind(400, "The request is not what this operation takes"),
    "invalid_name": Kind(400, "Invalid name"),
    "invalid_id": Kind(400, "Invalid message id"),
    "invalid_header": Kind(400, "Invalid header"),
    "out_of_range": Kind(400, "A number is out of range"),
    "too_many_messages": Kind(400, "Too many messages in one request"),
    "body_too_large": Kind(413, "The message body is too large"),
    "request_too_large": Kind(413, "The request is too large"),
    "headers_too_large": Kind(431, "Too many or too large message headers"),
    "malformed_request": Kind(400, "Malformed HTTP"),
    "uri_too_long": Kind(414, "Path and query are too long"),
    "request_timeout": Kind(408, "The request came too slowly"),
    "unsupported_media_type": Kind(415, "Unsupported media type"),
    "url_forbidden": Kind(400, "Nothing may be posted to this URL"),
    "body_shredded": Kind(410, "The key of the message's body was destroyed"),
    "not_encrypted": Kind(409, "The account has no encryption keys"),
    "webhooks_disabled": Kind(403, "The node does not post messages"),
    "rate_limited": Kind(429, "Too many requests"),
    # Not served.
    "issuer_unreachable": Kind(503, "The issuer of the token cannot be asked"),
    "no_leader": Kind(503, "No leader"),
    "overloaded": Kind(503, "Overloaded"),
    "too_many_connections": Kind(503, "Too many connections"),
    "stopping": Kind(503, "The node is stopping"),
    "not_ready": Kind(503, "The node is not ready"),
    "not_current": Kind(503, "This replica may not know of the latest keys"),
    "behind": Kind(503, "This replica has not caught up that far"),
    "unavailable": Kind(503, "Unavailable"),
    "encryption_key_missing": Kind(503, "The node does not have the account's encryption key"),
    "encryption_key_shredded": Kind(503, "The account's encryption keys were destroyed"),
    "body_damaged": Kind(500, "The message's body is damaged"),
    "outcome_unknown": Kind(504, "The outcome is unknown"),
    "internal_error": Kind(500, "Internal error"),
    "http_error": Kind(400, "Bad request"),
}
assert KINDS.keys() >= set(Reason), "every reason needs a status"


class StalePart(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a transaction that can not be done, and why."""

    part: str
    """``acks`` or ``releases``."""
    index: int
    claim_ended: bool
    why: dict[str, str]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every error answer."""

    type: str
    title: str
    status: int
    reason: str
    detail: str
    field: str | msgspec.UnsetType = msgspec.UNSET
    """Which part of the request is at fault."""
    limit: float | int | msgspec.UnsetType = msgspec.UNSET
    """The limit that was exceeded: a count, bytes, or seconds."""
    quota: str | msgspec.UnsetType = msgspec.UNSET
    """The account's quota for which there is no room."""
    usage: int | msgspec.UnsetType = msgspec.UNSET
    """How much the account has of it."""
    why: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    """By message, what became of those that the claim does not hold."""
    stale: tuple[StalePart, ...] | msgspec.UnsetType = msgspec.UNSET
    oldest_index: int | msgspec.UnsetType = msgspec.UNSET
    """The log index from which all events are still held."""


class Problem(Exception):
    """Ends the request with an error answer."""

    def __init__(
        self,
        reason: str,
        detail: str,
        *,
        field: str | None = None,
        limit: float | None = None,
        oldest_index: int | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        why: dict[str, str] | None = None,
        stale: tuple[StalePart, ...] = (),
        over: Over | None = None,
    ) -> None:
        super().__init__(detail)
        self.over = over
        self.why = why
        self.stale = stale
        self.reason = reason
        self.detail = detail
        self.field = field
        self.limit = limit
        self.oldest_index = oldest_index
        self.headers = headers

    @property
    def status(self) -> int:
        """The HTTP status; a reason nobody declared is a kind of unavailability."""
        return self._kind.status

    @property
    def _kind(self) -> Kind:
        return KINDS.get(self.reason) or KINDS["unavailable"]

    @property
    def document(self) -> Document:
        """What is said about it."""
        return Document(
            type=TYPE_PREFIX + self.reason,
            title=self._kind.title,
            status=self.status,
            reason=self.reason,
            detail=self.detail,
            field=msgspec.UNSET if self.field is None else self.field,
            limit=msgspec.UNSET if self.limit is None else self.limit,
            quota=self.over.quota if self.over else msgspec.UNSET,
            usage=self.over.usage if self.over else msgspec.UNSET,
            why=self.why or msgspec.UNSET,
            stale=self.stale or msgspec.UNSET,
            oldest_index=msgspec.UNSET if self.oldest_index is None else self.oldest_index,
        )

    def body(self) -> bytes:
        """The problem document, encoded."""
        return msgspec.json.encode(self.document)


ENDINGS = (Problem, Unavailable, OutcomeUnknown)
"""What ends a request with an error answer."""


def of(error: Problem | Unavailable | OutcomeUnknown) -> Problem:
    """The answer to one of ``ENDINGS``."""
    if isinstance(error, Problem):
        return error
    return unavailable(error) if isinstance(error, Unavailable) else outcome_unknown(error)


def refused(outcome: Refused) -> Problem:
    """A command that was committed and refused."""
    unserved = KINDS[outcome.reason].status == 503
    headers = (("Retry-After", "1"),) if unserved else ()
    found = why(outcome.stale, outcome.why)
    over = outcome.over
    return Problem(
        outcome.reason.value,
        outcome.detail,
        limit=over.limit if over else None,
        headers=headers,
        why=found,
        over=over,
    )


def why(stale: tuple[MessageId, ...], words: tuple[Why, ...]) -> dict[str, str]:
    """By message, what became of it."""
    texts = [message_id_text(one) for one in stale]
    return {text: word.value for text, word in zip(texts, words, strict=True)}


def unavailable(error: Unavailable) -> Problem:
    """Nothing was done: safe to repeat."""
    return Problem(error.reason, str(error), headers=(("Retry-After", str(error.retry_after_s)),))


def unreadable(error: Unreadable) -> Problem:
    """The message is there, and its body is lost."""
    return Problem(error.reason, str(error))


def outcome_unknown(error: OutcomeUnknown) -> Problem:
    """The client must not take this for a failure."""
    return Problem(
        "outcome_unknown",
        "The request may or may not have taken effect, or may yet: if it had an Idempotency-Key, "
        f"repeat it with the same one to learn which; otherwise look. ({error})",
    )


def from_status(status: int, detail: str, headers: tuple[tuple[str, str], ...] = ()) -> Problem:
    """An error that the HTTP framework found by itself."""
    reasons = {404: "no_route", 405: "method_not_allowed", 413: "request_too_large"}
    return Problem(reasons.get(status, "http_error"), detail, headers=headers)
