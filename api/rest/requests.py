"""One request on its way through: the parts that every handler needs, parsed once.

Lighter than Starlette's ``Request``, because enqueue, claim and ack go through it
too: one class of request for all routes, so that nobody has to learn two.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Generic, TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

from api.access.principals import ANYONE, NOBODY, PRINCIPAL, Role
from api.access.rules import PUBLIC, Access, demand, unauthorized
from api.audit import ACTS, audited
from api.fairness.admission import PLACE, Aside
from api.fairness.allowances import Allowance, Allowances
from api.ports import Service, Unavailable
from api.problems import Problem, refused
from api.rest import parameters
from api.tracing import request_id
from statemachine.commands import Barrier, Once, QueueCommand
from statemachine.outcomes import Outcome, Reason, Refused

JSON = "application/json"
NDJSON = "application/x-ndjson"
IDEMPOTENCY_KEY = b"idempotency-key"
KEY_LENGTH_MAX = 255
RETRY_S = 1.0
"""How long a part of a stream waits at a time, when a request would be told to come back."""
ROOM_AGAIN_S = 0.05
ROOM_ASKED_MAX = 40
"""For so long, two seconds, what has come of a stream waits for room."""
SINGLE = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"host",
        IDEMPOTENCY_KEY,
        b"last-event-id",
        b"traceparent",
    }
)
"""What may be given once only, as may be the headers of our own."""
OWN = b"raftq-"
ZONE = b"raftq-zone"
ABORT = "raftq.abort"
"""An extension of ASGI: its ``abort`` drops the connection and what is not yet sent."""
STREAMED = "raftq.streamed"
"""Another one: to be called when the body is read as it comes, by who says how slowly it may."""
KNOWN = "raftq.known"
"""Another one, of a connection that is kept little for: to be called when it is known who asks."""

T = TypeVar("T")
B = TypeVar("B", bound=msgspec.Struct)
O = TypeVar("O", bound=Outcome)  # noqa: E741 - it is one outcome


class Disconnected(Exception):
    """The client went away; nobody is left to answer."""


class Call:
    """A request and the service it is for."""

    __slots__ = (
        "_access",
        "_allowance",
        "_body",
        "headers",
        "home",
        "path",
        "principal",
        "receive",
        "scope",
        "service",
    )

    def __init__(self, scope: Scope, receive: Receive, service: Service, home: str) -> None:
        self.scope = scope
        self.receive = receive
        self.service = service
        self.home = home  # The zone of the node that was asked.
        self.path: dict[str, str] = scope["path_params"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        if len(self.headers) != len(scope["headers"]):
            _refuse_repeated(name for name, _ in scope["headers"])
        if b"host" not in self.headers and scope["http_version"] == "1.1":
            raise Problem("invalid_header", "a request names its host", field="Host")
        if IDEMPOTENCY_KEY in self.headers:
            _check_key(self.headers[IDEMPOTENCY_KEY].decode("latin-1"))
        if ZONE in self.headers:
            parameters.name(self.headers[ZONE].decode("latin-1"), "Raftq-Zone")
        self.principal = NOBODY  # Who asks, once that was asked.
        self._allowance: Allowance | None = None
        self._access = PUBLIC
        self._body: bytes | None = None

    @property
    def account(self) -> str:
        """The account of the path."""
        return parameters.name(self.path["account"], "account")

    @property
    def owner(self) -> str:
        """The account of the path; empty where there is none: the operator."""
        return self.account if "account" in self.path else ""

    @property
    def queue(self) -> str:
        """The queue of the path."""
        return parameters.name(self.path["queue"], "queue")

    async def admit(self, access: Access) -> None:
        """Learn who asks, and refuse who may not; nothing else may be read before."""
        if access.resource == "public":
            return
        self._access = access
        who = self.principal = await self.service.authenticate(self.scope, self.headers)
        self.scope[PRINCIPAL] = who
        if who is not ANYONE:
            access.check(who, self.path)
        known = self.scope.get("extensions", {}).get(KNOWN)
        if known is not None:
            known()

    async def readmit(self) -> None:
        """The same once more, for a request that has waited: its key may have ended meanwhile."""
        await self.admit(self._access)

    def enter(self, allowances: Allowances, send: Send) -> Send:
        """Begin to use what the account may; raises ``rate_limited``. ``send``, with a count."""
        if not allowances.are_any or "account" not in self.path:
            return send
        self._allowance = allowances.enter(self.account, self._announced)
        return send if self._allowance is None else self._allowance.counting(send)

    def leave(self) -> None:
        """It is over."""
        if self._allowance is not None:
            self._allowance.leave()

    def park(self) -> None:
        """From here on it only waits for something to happen; raises ``rate_limited``."""
        if self._allowance is not None:
            self._allowance.park()
        if (place := self._place()) is not None:
            place.step_aside()

    def unpark(self) -> None:
        """It goes on."""
        if self._allowance is not None:
            self._allowance.unpark()
        if (place := self._place()) is not None:
            place.step_back()

    def stream(self) -> None:
        """From here on the body is read as it comes, with ``more``, and the server sets no time."""
        streamed = self.scope.get("extensions", {}).get(STREAMED)
        if streamed is not None:
            streamed()
        if (place := self._place()) is not None:
            place.step_aside()

    async def more(self) -> tuple[bytes, bool]:
        """The next piece of a body that is read as it comes, and whether there are others."""
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        piece: bytes = message.get("body", b"")
        if self._allowance is not None:
            self._allowance.charge(len(piece))
        return piece, message.get("more_body", False)

    def hold(self, size: int) -> None:
        """Of the stream so many bytes are in memory; raises ``Unavailable`` if that is too much."""
        if (place := self._place()) is not None and not place.hold(size):
            raise Unavailable("overloaded", "the node has no room for more of this stream")

    async def find_room(self, size: int) -> None:
        """The same as ``hold``, but a node that is short of room for a moment is waited for.

        Many streams that begin at once may each be taken to have as much as a request may have.
        """
        for _ in range(ROOM_ASKED_MAX):
            if (place := self._place()) is None or place.hold(size):
                return
            await asyncio.sleep(ROOM_AGAIN_S)
        self.hold(size)

    async def begin(self) -> None:
        """One more thing that the stream asks for, like a request of its own.

        Where such a request would be told to come back later this waits. Raises
        ``Unavailable`` when the node stops, and the problem of a key that has ended.
        """
        await self.pace()
        if (place := self._place()) is not None:
            await self._pause(lambda: 0.0 if place.begin() else RETRY_S)
        await self.readmit()

    async def pace(self) -> None:
        """Wait until the account may ask for one more thing; raises ``Unavailable``."""
        if self._allowance is not None:
            await self._pause(self._allowance.again_in_s)

    def end(self) -> None:
        """That was answered."""
        if (place := self._place()) is not None:
            place.end()

    async def _pause(self, wait_s: Callable[[], float]) -> None:
        while pause_s := wait_s():
            if self.service.is_stopping():
                raise Unavailable("stopping", "this node is stopping; nothing was done")
            await asyncio.sleep(min(pause_s, RETRY_S))

    def _place(self) -> Aside | None:
        found: Aside | None = self.scope.get("extensions", {}).get(PLACE)
        return found

    @property
    def _announced(self) -> int:
        """Bytes of the body, as far as they are known before it is read, and read at once."""
        if is_ndjson(self.content_type):
            return 0
        length = self.headers.get(b"content-length", b"")
        return int(length) if length.isdigit() else 0

    def demand(self, role: Role, queue: str) -> None:
        """Refuse who may not do this in a queue that is not the path's."""
        demand(self.principal, role, queue)

    def header(self, name: bytes) -> str | None:
        """A header's value; ``name`` in lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    @property
    def content_type(self) -> str:
        """The content type as given, or nothing."""
        return self.headers.get(b"content-type", b"").decode("latin-1")

    @property
    def content_encoding(self) -> str:
        """The content encoding as given, or nothing."""
        given = self.headers.get(b"content-encoding", b"")
        return "" if given == b"identity" else given.decode("latin-1")

    def refuse_encoding(self) -> None:
        """The body is to be read here: it may not be encoded."""
        if b"content-encoding" in self.headers and self.content_encoding:
            detail = "only a raw body may have a content encoding"
            raise Problem("unsupported_media_type", detail)

    async def body(self) -> bytes:
        """The whole body, as it came; refused as soon as it is known to be too large."""
        if self._body is not None:
            return self._body
        most = self.service.limits.request_bytes_max
        headers = self.headers
        length = headers.get(b"content-length")
        if length is not None and (not length.isdigit() or int(length) > most):
            raise _request_too_large(most)
        message = await self.receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        body: bytes = message.get("body", b"")
        if message.get("more_body", False) and len(body) <= most:
            body = await self._rest(body, most)
        if len(body) > most:
            raise _request_too_large(most)
        if self._allowance is not None:
            self._allowance.charge(len(body) - self._announced)
        self._body = body
        return body

    async def propose(self, command: QueueCommand, expected: type[O]) -> O:
        """The command's outcome; a refusal ends the request."""
        if type(command) in ACTS:
            command = self._audited(command)
        if IDEMPOTENCY_KEY in self.headers:
            outcome = await self.service.propose(await self._once(command))
        else:
            outcome = await self.service.propose(command)
        if isinstance(outcome, expected):
            return outcome
        if isinstance(outcome, Refused):
            if outcome.reason is Reason.KEY_ENDED:
                raise unauthorized()
            raise refused(outcome)
        raise AssertionError(f"{command!r} cannot answer {outcome!r}")

    def _audited(self, command: QueueCommand) -> QueueCommand:
        client = self.scope.get("client")
        return audited(
            command,
            self.service.audit,
            owner=self.principal.account,
            actor=self.principal.actor,
            key=self.principal.id if self.principal.kind == "key" else "",
            source=client[0] if client else "",
            request=request_id(self.scope).decode(),
        )

    async def accept(self, command: QueueCommand) -> None:
        """Return when the leader has taken the command; a refusal ends the request."""
        if IDEMPOTENCY_KEY in self.headers:
            outcome = await self.service.accept(await self._once(command))
        else:
            outcome = await self.service.accept(command)
        if isinstance(outcome, Refused):
            raise refused(outcome)

    async def barrier(self) -> None:
        """Return when this replica has seen all that was committed before the request."""
        await self.service.propose(Barrier(), account=self.path.get("account"))

    async def _rest(self, first: bytes, most: int) -> bytes:
        parts, size, more = [first], len(first), True
        while more and size <= most:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
        return b"".join(parts)

    async def _once(self, command: QueueCommand) -> Once:
        """The command under the client's ``Idempotency-Key``."""
        return Once(
            account=self.owner,
            key=self.headers[IDEMPOTENCY_KEY].decode("ascii"),
            fingerprint=await self._fingerprint(),
            window_ms=self.service.limits.idempotency_window_ms,
            command=command,
        )

    async def _fingerprint(self) -> bytes:
        """What makes two requests the same request."""
        digest = blake2b(digest_size=16)
        for part in (
            self.scope["method"].encode(),
            self.scope["path"].encode(),
            self.scope["query_string"],
            self.content_type.encode(),
            self.content_encoding.encode(),
            await self.body(),
        ):
            # Length first, so that no two lists of parts run together the same way.
            digest.update(b"%d:" % len(part))
            digest.update(part)
        return digest.digest()


class JsonBody(Generic[B]):
    """A JSON request body of one type; declared once for the handler and for the document.

    ``optional``: an absent body means all defaults.
    """

    def __init__(self, kind: type[B], *, optional: bool = False) -> None:
        self.kind = kind
        self.optional = optional
        self._decode = msgspec.json.Decoder(kind).decode

    async def read(self, call: Call) -> B:
        """The body of ``call``."""
        call.refuse_encoding()
        data = await call.body()
        if not data and self.optional:
            return self.kind()
        if not is_json(call.content_type):
            raise Problem("unsupported_media_type", f"send this as {JSON}")
        return decode(self._decode, data)


def is_json(content_type: str) -> bool:
    """Whether a request's body is JSON for us to read."""
    return content_type == JSON or _names(JSON, content_type)


def is_ndjson(content_type: str) -> bool:
    """Whether a request's body is lines of JSON for us to read."""
    return content_type != JSON and _names(NDJSON, content_type)


def _names(media_type: str, content_type: str) -> bool:
    if ";" not in content_type:
        return content_type.lower() == media_type
    essence, _, rest = content_type.partition(";")
    if essence.strip().lower() != media_type:
        return False
    charset = rest.strip().lower().replace('"', "")
    return charset in ("", "charset=utf-8")


def decode(decoder: Callable[[bytes], T], data: bytes, what: str = "body") -> T:
    """``decoder(data)``, with errors in our words; ``what`` is the data."""
    try:
        # The decoder does not look into strings that it only slices out.
        if not data.isascii():
            data.decode()
        return decoder(data)
    except msgspec.ValidationError as error:
        raise parameters.invalid(error, "field") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Problem("invalid_request", f"the {what} is not JSON: {error}") from error
    except RecursionError as error:
        raise Problem("invalid_request", f"the {what} is nested too deeply") from error


def _check_key(key: str) -> None:
    if not 1 <= len(key) <= KEY_LENGTH_MAX or not (key.isascii() and key.isprintable()):
        raise Problem(
            "invalid_header",
            f"Idempotency-Key must be 1 to {KEY_LENGTH_MAX} printable ASCII characters",
            field="Idempotency-Key",
            limit=KEY_LENGTH_MAX,
        )


def _refuse_repeated(names: Iterable[bytes]) -> None:
    """A proxy on the way may have judged the request by the other one."""
    for name, count in Counter(names).items():
        if count > 1 and (name in SINGLE or name.startswith(OWN)):
            given = name.decode("latin-1")
            raise Problem("invalid_header", f"the header {given} is given twice", field=given)


def _request_too_large(most: int) -> Problem:
    return Problem(
        "request_too_large",
        f"a request may have at most {most} bytes",
        limit=most,
        # What is left of the body would be taken for the next request.
        headers=(("Connection", "close"),),
    )
