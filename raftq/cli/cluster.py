"""``raftq cluster``: the replicas, as the one that is asked sees them."""

from __future__ import annotations

import typer

from raftq.cli import output
from raftq.cli.options import Json, Timeout, Urls, connect

app = typer.Typer(help="Look at the cluster.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Look at the cluster."""


@app.command()
def status(
    as_json: Json = False,
    url: Urls = None,
    timeout: Timeout = 10.0,
) -> None:
    """Show every replica: zone, role, term, what it has applied and how far it is behind."""
    with connect(url, timeout) as client:
        answer = client.request("GET", "/cluster", repeatable=True)
    cluster = answer.json()
    if as_json:
        output.print_json(cluster)
        return
    columns = ("node", "zone", "role", "term", "applied_index", "lag", "api_url")
    output.print_table(columns, [[m[name] for name in columns] for m in cluster["members"]])
    asked = answer.headers.get("raftq-node", "?")
    typer.echo(
        f"cluster {cluster['cluster_id']}, leader {cluster['leader'] or 'none'}, "
        f"term {cluster['term']}, commit index {cluster['commit_index']:,} (as {asked} sees it)"
    )
