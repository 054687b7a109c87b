"""``raftq zones``: the zones, and a picture of what crosses between them.

Every replica counts what it has sent and what its clients were given; the picture is the sum
over the replicas that answered, since each of them started.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import typer

from raftq.cli import output
from raftq.cli.failure import Failure
from raftq.cli.options import Json, Timeout, Urls, connect

BAR_WIDTH = 20
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")

Matrix = Mapping[tuple[str, str], int]


def zones(
    as_json: Json = False,
    url: Urls = None,
    timeout: Timeout = 10.0,
) -> None:
    """Show the zones: replicas, role, lag, and the bytes and messages that cross between them."""
    with connect(url, timeout) as client:
        answer = client.request("GET", "/cluster", repeatable=True)
    cluster, asked = answer.json(), answer.headers.get("raftq-node", "?")
    told, silent = _ask(cluster["members"], timeout)
    sent, claimed = bytes_sent(told), messages_claimed(told)
    if as_json:
        document = {"members": cluster["members"], "nodes": told, "unreachable": silent}
        output.print_json(document | {"bytes_sent": _nested(sent), "claimed": _nested(claimed)})
        return
    members = sorted(cluster["members"], key=lambda member: (member["zone"], member["node"]))
    columns = ("zone", "node", "role", "lag", "rtt_ms", "api_url")
    output.print_table(columns, [[_cell(m, name, asked) for name in columns] for m in members])
    names = sorted({member["zone"] for member in members})
    typer.echo("bytes between nodes, from zone (row) to zone (column)\n")
    typer.echo("\n".join(picture(sent, names, size)) + "\n")
    local, total = sum(claimed[name, name] for name in names), sum(claimed.values())
    share = f"{local / total:.1%} in their own zone" if total else "none yet"
    typer.echo(f"messages claimed, zone of the message (row) and of the consumer (column): {share}")
    others = sorted({zone for pair in claimed for zone in pair} - set(names))
    typer.echo("\n" + "\n".join(picture(claimed, [*names, *others], lambda n: f"{n:,}")))
    if silent:
        typer.secho(f"not counted, as they did not answer: {', '.join(silent)}", err=True)


def bytes_sent(told: Iterable[Mapping[str, Any]]) -> Counter[tuple[str, str]]:
    """Bytes by (zone of the sender, zone of the receiver)."""
    found: Counter[tuple[str, str]] = Counter()
    for node in told:
        for traffic in node["traffic"]:
            found[node["zone"], traffic["zone"]] += traffic["frame_bytes_sent"]
    return found


def messages_claimed(told: Iterable[Mapping[str, Any]]) -> Counter[tuple[str, str]]:
    """Messages by (their zone, zone of the consumer)."""
    found: Counter[tuple[str, str]] = Counter()
    for node in told:
        for one in node["messages"]:
            found[one["message_zone"], one["client_zone"]] += one["claimed"]
    return +found  # Without those that were only put.


def picture(matrix: Matrix, names: Sequence[str], text: Callable[[int], str]) -> list[str]:
    """One line for each pair: a bar as long as its part of the greatest."""
    greatest = max([*matrix.values(), 1])
    width = max(len(name) for name in names)
    most = max(len(text(count)) for count in [*matrix.values(), 0])
    lines = []
    for row in names:
        for column in names:
            count = matrix.get((row, column), 0)
            if not count and row == column:
                continue
            # What there is at all is seen.
            bar = "\N{FULL BLOCK}" * -(-count * BAR_WIDTH // greatest)
            arrow = "\N{RIGHTWARDS ARROW}"
            line = f"  {row:>{width}} {arrow} {column:<{width}}  {text(count):>{most}}  {bar}"
            lines.append(output.printable(line.rstrip()))
        lines.append("")
    return lines[:-1]


def size(count: int) -> str:
    """Bytes in the unit that suits them."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.1f} {UNITS[unit]}" if unit else f"{count} B"


def _ask(
    members: Iterable[Mapping[str, Any]], timeout_s: float
) -> tuple[list[dict[str, Any]], list[str]]:
    """What each replica has counted, and those that did not say."""
    told, silent = [], []
    for member in members:
        if member["role"] == "unreachable":
            silent.append(member["node"])
            continue
        try:
            with connect([member["api_url"]], min(timeout_s, 3.0)) as client:
                told.append(client.request("GET", "/cluster/zones", repeatable=True).json())
        except Failure:
            silent.append(member["node"])
    return told, silent


def _nested(matrix: Matrix) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (row, column), count in sorted(matrix.items()):
        found.setdefault(row, {})[column] = count
    return found


def _cell(member: Mapping[str, Any], name: str, asked: str) -> object:
    value = member.get(name)
    if name != "rtt_ms":
        return value
    return "asked" if member["node"] == asked else None if value is None else f"{value:.1f}"
