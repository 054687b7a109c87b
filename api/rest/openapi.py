"""The OpenAPI 3.1 document, derived from the route table and the types that validate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from api import problems
from api.access import tokens
from api.access.rules import PUBLIC
from api.rest import parameters
from api.rest.answers import Answer
from api.rest.operations import Operation, Says
from api.rest.parameters import NoQuery
from api.rest.requests import JSON, NDJSON, Call

TAGS = (
    "messages",
    "claims",
    "queues",
    "transactions",
    "events",
    "bindings",
    "schedules",
    "subscriptions",
    "keys",
)
ANY = "*/*"
REF = "#/components/schemas/{name}"
RAW = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}

PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "account": {"type": "string", "pattern": f"^{parameters.NAME_PATTERN}$"},
    "queue": {"type": "string", "pattern": f"^{parameters.NAME_PATTERN}$"},
    "target": {"type": "string", "pattern": f"^{parameters.NAME_PATTERN}$"},
    "schedule": {"type": "string", "pattern": f"^{parameters.NAME_PATTERN}$"},
    "message": {"type": "string", "pattern": f"^{parameters.MESSAGE_ID_PATTERN}$"},
    "key_id": {"type": "string", "pattern": f"^{tokens.ID_PATTERN}$"},
    "subscription": {"type": "string", "pattern": f"^{parameters.NAME_PATTERN}$"},
    "claim": {"type": "string", "pattern": f"^{parameters.CLAIM_PATTERN}$"},
}

KEY_HEADER: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Repeats with the same key within the window get the first answer.",
    "schema": {"type": "string", "pattern": "^[ -~]{1,255}$"},
}
ZONE_HEADER: dict[str, Any] = {
    "name": "Raftq-Zone",
    "in": "header",
    "description": "Where the client is: an answer from another zone names a replica there.",
    "schema": {"type": "string", "pattern": f"^{parameters.NAME_PATTERN}$"},
}
NEAREST: dict[str, Any] = {
    "Raftq-Nearest": {
        "description": "The API of a replica in the zone that the request named, if that is "
        "not this node's and one is there.",
        "schema": {"type": "string", "format": "uri"},
    }
}
READ_HEADERS: list[dict[str, Any]] = [
    {
        "name": "Raftq-Consistency",
        "in": "header",
        "description": "Like the parameter consistency, which goes first.",
        "schema": {"enum": ["local", "session", "linearizable"]},
    },
    {
        "name": "Raftq-Min-Index",
        "in": "header",
        "description": "For session: the last Raftq-Applied-Index the client has seen.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 10**19 - 1},
    },
]
RESUME_HEADER: dict[str, Any] = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The last id the client has seen: go on right behind it. Goes before from.",
    "schema": {"type": "string", "pattern": r"^\d{1,19}(\.\d{1,10})?$"},
}


SECURITY_SCHEMES: dict[str, dict[str, Any]] = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "An access key of the account, or of the operator. A node may be "
        "configured to ask for none.",
    }
}


def operation(table: Sequence[Operation[Any]]) -> Operation[NoQuery]:
    """The operation that answers the document of ``table`` and itself."""

    async def show_openapi(call: Call, query: NoQuery) -> Answer:
        """GET /openapi.json."""
        return Answer(200, encoded)

    own = Operation(
        "GET",
        "/openapi.json",
        show_openapi,
        "This document",
        access=PUBLIC,
        query=NoQuery,
        answers={200: Says("OpenAPI 3.1", media_type=JSON)},
    )
    encoded = msgspec.json.encode(document([*table, own]))
    return own


def document(table: Sequence[Operation[Any]]) -> dict[str, Any]:
    """The whole document."""
    kinds = [problems.Document, *(kind for row in table for kind in _kinds(row))]
    schemas = msgspec.json.schema_components(list(dict.fromkeys(kinds)), ref_template=REF)[1]
    paths: dict[str, dict[str, Any]] = {}
    for row in table:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "raftq",
            "version": "1",
            "description": "A durable queue on a replicated log. Times in requests are seconds, "
            "timestamps are RFC 3339. Every answer says in Raftq-* headers who gave it and how "
            "fresh it is. A write that is answered 504, or not at all, may have happened.",
        },
        "paths": paths,
        "components": {
            "schemas": {n: s for n, s in schemas.items() if n not in _queries(table)},
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def _kinds(row: Operation[Any]) -> list[Any]:
    answered = [says.kind for says in row.answers.values() if says.kind is not None]
    return [*row.body_kinds, *row.line_kinds, *answered, row.query]


def _queries(table: Sequence[Operation[Any]]) -> set[str]:
    """Queries are documented as parameters, not as objects."""
    return {row.query.__name__ for row in table}


def _operation(row: Operation[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": row.id,
        "summary": row.summary,
        "tags": [_tag(row.path)],
        "parameters": _parameters(row, schemas),
        "responses": _responses(row),
        "security": [] if row.access.resource == "public" else [{"key": []}],
    }
    if content := _content(row):
        found["requestBody"] = {"content": content, "required": not row.body_optional}
    return found


def _tag(path: str) -> str:
    nouns = [part for part in path.split("/") if part and not part.startswith("{")]
    if nouns[0] != "v1":
        return "node"
    words = [noun for noun in nouns if noun in TAGS]
    return words[-1] if words else "accounts"


def _parameters(row: Operation[Any], schemas: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": PATH_PARAMETERS[name]}
        for name in re.findall(r"{(\w+)}", row.path)
    ]
    query = schemas[row.query.__name__]["properties"]
    found += [_in_query(name, query[name]) for name in query]
    found += READ_HEADERS if row.reads else []
    found += [RESUME_HEADER] if row.resumes else []
    found += [KEY_HEADER] if row.proposes else []
    found.append(ZONE_HEADER)
    return found


def _in_query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type") != "object":
        return {"name": name, "in": "query", "schema": _set(schema)}
    # OpenAPI has no style for names with a dot: its own name says how they are written.
    named = {"name": f"{name}.NAME", "in": "query", "schema": {"type": "string"}}
    return {**named, "description": "NAME is the name of a header; an empty value is any"}


def _set(schema: dict[str, Any]) -> dict[str, Any]:
    """A query parameter cannot be null: it is absent instead."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if not kinds:
        if None in schema.get("enum", ()):
            return {"enum": [value for value in schema["enum"] if value is not None]}
        return schema
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _content(row: Operation[Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if row.body_kinds:
        content[JSON] = {"schema": _one_of(row.body_kinds)}
    if row.line_kinds:
        content[NDJSON] = {"schema": _one_of(row.line_kinds)}
    if row.raw_body:
        content[ANY] = RAW
    return content


def _one_of(kinds: tuple[Any, ...]) -> dict[str, Any]:
    refs = [{"$ref": REF.format(name=kind.__name__)} for kind in kinds]
    return refs[0] if len(refs) == 1 else {"oneOf": refs}


def _responses(row: Operation[Any]) -> dict[str, Any]:
    found = {str(status): _says(says) for status, says in row.answers.items()}
    by_status: dict[int, list[str]] = {}
    for reason in row.problems:
        by_status.setdefault(problems.KINDS[reason].status, []).append(reason)
    for status, reasons in sorted(by_status.items()):
        found[str(status)] = _problem(" or ".join(f"`{reason}`" for reason in reasons))
    found["default"] = _problem("Any other error")
    return found


def _says(says: Says) -> dict[str, Any]:
    found: dict[str, Any] = {"description": says.meaning, "headers": NEAREST}
    if says.kind is not None:
        schema: dict[str, Any] = {"$ref": REF.format(name=says.kind.__name__)}
        if says.media_type == ANY:  # A body that is JSON comes back bare as well.
            schema = {"anyOf": [schema, {}]}
        # Of a stream it is what each line is.
        found["content"] = {NDJSON if says.media_type == NDJSON else JSON: {"schema": schema}}
    for media_type in filter(None, says.media_type.split(",")):
        found.setdefault("content", {}).setdefault(media_type, {})
    return found


def _problem(description: str) -> dict[str, Any]:
    schema = {"$ref": REF.format(name=problems.Document.__name__)}
    return {"description": description, "content": {problems.MEDIA_TYPE: {"schema": schema}}}
