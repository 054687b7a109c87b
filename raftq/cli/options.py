"""What the commands that talk to replicas have in common: options, paths, the connection."""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    from raftq.cli.http import Client

_key: ContextVar[str] = ContextVar("key", default="")
_ca_file: ContextVar[str | None] = ContextVar("ca_file", default=None)

DEFAULT_URL = "http://127.0.0.1:8001"
JSON_HEADERS = {"content-type": "application/json"}

Urls = Annotated[
    list[str] | None,
    typer.Option(
        "--url",
        envvar="RAFTQ_URL",
        help=f"A replica's API, or several: repeated, or with commas; {DEFAULT_URL} if none.",
    ),
]
Account = Annotated[str, typer.Option("--account", envvar="RAFTQ_ACCOUNT", help="Whose queues.")]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0.1, help="Seconds to keep trying other replicas.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document instead of a table.")]
Queue = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name.")]


def connect(urls: list[str] | None, timeout_s: float) -> Client:
    """A client, to be used in a ``with``."""
    # Late: a node's process has these commands too, and must not carry an HTTP client for them.
    from raftq.cli.http import Client

    return Client(urls, timeout_s, key=_key.get(), ca_file=_ca_file.get())


def use_key(key: str) -> None:
    """From here on all requests carry it."""
    _key.set(key)


def use_ca_file(ca_file: Path | None) -> None:
    """From here on nobody else is trusted."""
    _ca_file.set(None if ca_file is None else str(ca_file))


def account_path(account: str) -> str:
    """One account."""
    return f"/v1/{quote(account, safe='')}"


def queue_path(account: str, queue: str) -> str:
    """One queue."""
    return f"{account_path(account)}/queues/{quote(queue, safe='')}"
