"""The cluster and this node: who is there, and whether it serves."""

from __future__ import annotations

import msgspec

from api import ports
from api.problems import Problem
from api.rest import answers
from api.rest.answers import Answer
from api.rest.operations import Operation, Says
from api.rest.parameters import NoQuery
from api.rest.requests import Call

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Members(msgspec.Struct, frozen=True):
    """All replicas."""

    members: tuple[ports.Member, ...]


class Health(msgspec.Struct, frozen=True):
    """The node's state in a word."""

    status: str


async def show_cluster(call: Call, query: NoQuery) -> Answer:
    """GET /cluster."""
    return answers.json(200, call.service.cluster())


async def list_members(call: Call, query: NoQuery) -> Answer:
    """GET /cluster/members."""
    return answers.json(200, Members(call.service.cluster().members))


async def live(call: Call, query: NoQuery) -> Answer:
    """GET /livez: the process runs and its loop turns."""
    return answers.json(200, Health("live"))


async def ready(call: Call, query: NoQuery) -> Answer:
    """GET /readyz: the node can serve."""
    why_not = call.service.ready()
    if why_not is not None:
        raise Problem("not_ready", why_not, headers=(("Retry-After", "1"),))
    return answers.json(200, Health("ready"))


async def show_metrics(call: Call, query: NoQuery) -> Answer:
    """GET /metrics."""
    return Answer(200, call.service.metrics(), METRICS_TYPE.encode())


OPERATIONS = (
    Operation(
        "GET",
        "/cluster",
        show_cluster,
        "All replicas with their zones, and the leader, as this node sees them",
        query=NoQuery,
        answers={200: Says("The cluster", ports.Cluster)},
    ),
    Operation(
        "GET",
        "/cluster/members",
        list_members,
        "All replicas",
        query=NoQuery,
        answers={200: Says("The members", Members)},
    ),
    Operation(
        "GET",
        "/livez",
        live,
        "Whether the process lives",
        query=NoQuery,
        answers={200: Says("It does", Health)},
    ),
    Operation(
        "GET",
        "/readyz",
        ready,
        "Whether the node can serve",
        query=NoQuery,
        answers={200: Says("It can", Health)},
        refusals=("not_ready",),
    ),
    Operation(
        "GET",
        "/metrics",
        show_metrics,
        "Figures for Prometheus",
        query=NoQuery,
        answers={200: Says("The text exposition", media_type="text/plain")},
    ),
)
