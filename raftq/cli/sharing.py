"""``raftq queue share``: URLs with which somebody without a key may do some of what a key may."""

from __future__ import annotations

from typing import Annotated

import typer

from raftq.cli.messages import encode
from raftq.cli.options import DEFAULT_URL, Account, Queue, Timeout, Urls, connect, queue_path
from raftq.cli.requests import write


def share(
    queue: Queue,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Below the queue, as messages, claims or stats."),
    ],
    method: Annotated[
        list[str] | None,
        typer.Option("--method", "-X", help="Repeatable; GET if none is given."),
    ] = None,
    expires_in: Annotated[float, typer.Option(min=0.001, help="Seconds, up to a week.")] = 3_600.0,
    url: Urls = None,
    account: Account = "default",
    timeout: Timeout = 10.0,
) -> None:
    """Print URLs that need no key, for some of what the key in use may do with a queue."""
    methods = [one.upper() for one in method or ["GET"]]
    body = encode({"methods": methods, "paths": paths, "expires_in": expires_in})
    with connect(url, timeout) as client:
        shared = write(client, "POST", f"{queue_path(account, queue)}/share", body=body)
    base = (url or [DEFAULT_URL])[0].partition(",")[0].rstrip("/")
    for one in shared["urls"]:
        typer.echo(f"{base}{one}")
    typer.echo(f"until {shared['expires_at']}", err=True)
