"""``raftq account``: how much an account has, and how much it may have."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from raftq.cli import messages, output
from raftq.cli.failure import Exit, Failure
from raftq.cli.options import Account, Json, Timeout, Urls, account_path, connect
from raftq.cli.requests import given, write

app = typer.Typer(help="Usage and quotas of an account.", no_args_is_help=True)

Limit = Annotated[int | None, typer.Option(min=0, help="0: no limit.", metavar="N")]


@app.command()
def usage(
    as_json: Json = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Show how much an account has of what may be limited, and its limits."""
    with connect(url, timeout) as client:
        found = client.request("GET", f"{account_path(account)}/usage", repeatable=True).json()
    _print(found, as_json)


@app.command()
def limit(
    queues: Limit = None,
    messages_: Annotated[
        int | None, typer.Option("--messages", min=0, help="In all states.", metavar="N")
    ] = None,
    bytes_: Annotated[
        int | None, typer.Option("--bytes", min=0, help="Of their bodies.", metavar="N")
    ] = None,
    in_flight: Annotated[
        int | None, typer.Option(min=0, help="Messages under claims.", metavar="N")
    ] = None,
    subscriptions: Limit = None,
    schedules: Limit = None,
    bindings: Limit = None,
    history_bytes: Limit = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="No other limits; makes the account if there is none."),
    ] = False,
    as_json: Json = False,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Set limits of an account, those that are named. Who runs the cluster may."""
    limits = given(
        {
            "queues": queues,
            "messages": messages_,
            "bytes": bytes_,
            "in_flight": in_flight,
            "subscriptions": subscriptions,
            "schedules": schedules,
            "bindings": bindings,
            "history_bytes": history_bytes,
        }
    )
    if not (limits or replace):
        raise Failure("name at least one limit", Exit.USAGE)
    with connect(url, timeout) as client:
        path, method = f"{account_path(account)}/quotas", "PUT" if replace else "PATCH"
        _print(write(client, method, path, body=messages.encode(limits)), as_json)


def _print(found: dict[str, dict[str, Any]], as_json: bool) -> None:
    if as_json:
        output.print_json(found)
        return
    rows = [[name, quota["usage"], quota["limit"]] for name, quota in found.items()]
    output.print_table(("quota", "usage", "limit"), rows)
