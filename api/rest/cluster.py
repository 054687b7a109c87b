"""The cluster and this node: who is there, and whether it serves."""

from __future__ import annotations

import msgspec

from api import ports
from api.access.principals import Role
from api.access.rules import PUBLIC, Access
from api.problems import Problem
from api.rest import answers, parameters
from api.rest.answers import Answer
from api.rest.operations import Operation, Says
from api.rest.parameters import NoQuery
from api.rest.requests import Call

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Members(msgspec.Struct, frozen=True):
    """All replicas."""

    members: tuple[ports.Member, ...]


class ClusterQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose replicas come first, and which of them is nearest."""

    zone: parameters.Name | None = None


class ClusterView(ports.Cluster, frozen=True, kw_only=True):
    """The cluster; ``nearest`` is the API to ask from the zone named, if a replica is there."""

    nearest: str | None = None


class Health(msgspec.Struct, frozen=True):
    """The node's state in a word.

    ``accounts_without_keys``: how many accounts it can not serve for want of a master key.
    """

    status: str
    accounts_without_keys: int | msgspec.UnsetType = msgspec.UNSET


async def show_cluster(call: Call, query: ClusterQuery) -> Answer:
    """GET /cluster."""
    cluster = call.service.cluster()
    if query.zone is None:
        return answers.json(200, ClusterView(**msgspec.structs.asdict(cluster)))
    zone = parameters.name(query.zone, "zone")
    members = tuple(sorted(cluster.members, key=lambda member: member.zone != zone))
    known = msgspec.structs.asdict(cluster) | {"members": members}
    return answers.json(200, ClusterView(**known, nearest=call.service.nearest(zone)))


async def show_zones(call: Call, query: NoQuery) -> Answer:
    """GET /cluster/zones."""
    return answers.json(200, call.service.zones())


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
    without_keys = len(call.service.accounts_without_keys())
    return answers.json(200, Health("ready", without_keys or msgspec.UNSET))


async def show_metrics(call: Call, query: NoQuery) -> Answer:
    """GET /metrics."""
    return Answer(200, call.service.metrics(), METRICS_TYPE.encode())


OPERATIONS = (
    Operation(
        "GET",
        "/cluster",
        show_cluster,
        "All replicas with their zones, and the leader, as this node sees them",
        access=Access(None, "cluster"),
        query=ClusterQuery,
        answers={200: Says("The cluster", ClusterView)},
    ),
    Operation(
        "GET",
        "/cluster/zones",
        show_zones,
        "What crosses between zones, as this node has counted it since it started",
        access=Access(Role.ADMIN, "cluster"),
        query=NoQuery,
        answers={200: Says("The counters", ports.Zones)},
    ),
    Operation(
        "GET",
        "/cluster/members",
        list_members,
        "All replicas",
        access=Access(None, "cluster"),
        query=NoQuery,
        answers={200: Says("The members", Members)},
    ),
    Operation(
        "GET",
        "/livez",
        live,
        "Whether the process lives",
        access=PUBLIC,
        query=NoQuery,
        answers={200: Says("It does", Health)},
    ),
    Operation(
        "GET",
        "/readyz",
        ready,
        "Whether the node can serve",
        access=PUBLIC,
        query=NoQuery,
        answers={200: Says("It can", Health)},
        refusals=("not_ready",),
    ),
    Operation(
        "GET",
        "/metrics",
        show_metrics,
        "Figures for Prometheus",
        access=Access(Role.ADMIN, "cluster"),
        query=NoQuery,
        answers={200: Says("The text exposition", media_type="text/plain")},
    ),
)
