"""What each protection costs: requests/s with it against without, all in one run.

One cluster without any runs all the time; each of the others comes for its turn, and the
two are measured alternately, so that a machine that is slower for a while decides nothing.
The client speaks TLS too and shares the cores: what a server pays is in its CPU time.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from statistics import median

from api.access.minting import new_id, new_token
from loadtests.bench.plan import ALL, LIFECYCLE, PUT, Cell, Plan
from loadtests.bench.records import Record, of_kind
from loadtests.bench.report import Section, Table
from loadtests.bench.service import Guard, Service

MASTER_KEY_BYTES = 32
BATCH = 64


def guards() -> dict[str, Guard]:
    """By the name of what is paid for."""
    key = new_token(new_id())
    master = base64.b64encode(secrets.token_bytes(MASTER_KEY_BYTES)).decode()
    return {
        "keys": Guard({"auth": {"required": True, "bootstrap_key": key}}, key=key),
        "TLS": Guard(tls=True),
        "encryption at rest": Guard({"encryption": {"keys": f"k1 {master}"}}, sealed=True),
    }


def cells(plan: Plan) -> list[Cell]:
    """What is measured with each."""
    # Not the most: a lifecycle must fit into the time that is measured, many times.
    connections = plan.connections[-2:][0]
    return [
        Cell(PUT, ALL, connections, 1),
        Cell(LIFECYCLE, ALL, connections, 1),
        Cell(PUT, ALL, plan.several, BATCH),
    ]


def records(without: Service, plan: Plan) -> Iterator[Record]:
    """A record of each measurement, and one of each cost."""
    for place, (name, guard) in enumerate(guards().items()):
        with Service(without.directory.with_name(f"with-{place}"), guard) as guarded:
            for cell in cells(plan):
                pairs = []
                for repetition in range(plan.repetitions):
                    pair = [each.measure(cell, plan, repetition) for each in (without, guarded)]
                    for of, one in zip(("", name), pair, strict=True):
                        yield one | {"kind": "cost_cell", "of": of or "nothing", "beside": name}
                    pairs.append(pair)
                yield _cost(name, cell, pairs)


def section(records: list[Record]) -> Section:
    """See ``records``."""
    columns = ("of", "scenario", "clients", "batch", "requests/s without", "with", "ratio")
    rows = [
        (
            one["of"],
            one["scenario"],
            f"{one['connections']}",
            f"{one['batch']}",
            f"{one['requests_per_s_without']:,.0f}",
            f"{one['requests_per_s_with']:,.0f}",
            f"{one['ratio']:.2f}",
            f"{one['server_cpu_ratio']:.2f}",
        )
        for one in of_kind(records, "cost")
    ]
    table = Table((*columns, "server CPU, ratio"), rows, names=2)
    return Section("Costs", "What each protection costs, against a cluster without it.", [table])


def _cost(name: str, cell: Cell, pairs: list[list[Record]]) -> Record:
    """Medians; ratios within a pair, and their median over the pairs."""

    def ratio(figure: str) -> float:
        return round(median(w[figure] / max(wo[figure], 1e-9) for wo, w in pairs), 3)

    def middle(place: int) -> float:
        return round(median(pair[place]["requests_per_s"] for pair in pairs), 1)

    return {
        "kind": "cost",
        "of": name,
        **cell._asdict(),
        "repetitions": len(pairs),
        "requests_per_s_without": middle(0),
        "requests_per_s_with": middle(1),
        "ratio": ratio("requests_per_s"),
        "server_cpu_ratio": ratio("server_cpu_s_per_10k"),
    }
