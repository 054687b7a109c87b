"""``raftq audit``: who did which administrative act, from where, and how it ended."""

from __future__ import annotations

from typing import Annotated

import typer

from raftq.cli import output
from raftq.cli.options import Json, Timeout, Urls, connect
from raftq.cli.requests import pages


def audit(
    account: Annotated[str, typer.Option("--account", help="Only acts on this account.")] = "",
    as_json: Json = False,
    url: Urls = None,
    timeout: Timeout = 10.0,
) -> None:
    """List administrative acts, the oldest first. Needs an operator's key."""
    with connect(url, timeout) as client:
        found = [
            one
            for one in pages(client, "/audit", "acts", {})
            if not account or one["account"] == account
        ]
    if as_json:
        output.print_json(found)
        return
    columns = ("time", "actor", "source", "account", "act", "subject", "detail", "outcome")
    output.print_table(columns, [[one[name] for name in columns] for one in found])
