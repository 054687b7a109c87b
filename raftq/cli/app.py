"""All commands in one tree, and the one place where a failure becomes an exit code."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer
from typer.main import get_command

from raftq.cli import (
    account,
    audit,
    cluster,
    config,
    dev,
    encryption,
    key,
    offline,
    options,
    queue,
    schedule,
    serve,
    subscription,
    zones,
)
from raftq.cli.failure import Exit, Failure

EPILOG = (
    "Exit codes: 0 done; 1 refused, damaged or failed; 2 wrong usage or configuration; "
    "3 no replica could be reached; 4 the outcome is unknown; 5 there was nothing to get."
)

_built = cache(get_command)
"""Once for all: it takes longer than most commands."""

app = typer.Typer(
    name="raftq",
    help="A durable, multi-tenant, zone-aware REST queue on a replicated log.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("serve")(serve.serve)
app.command("dev")(dev.dev)
app.command("zones")(zones.zones)
app.command("audit")(audit.audit)
app.add_typer(queue.app, name="queue")
app.add_typer(schedule.app, name="schedule")
app.add_typer(subscription.app, name="subscription")
app.add_typer(encryption.app, name="encryption")
app.add_typer(account.app, name="account")
app.add_typer(key.app, name="key")
app.add_typer(cluster.app, name="cluster")
app.add_typer(config.app, name="config")
app.add_typer(offline.journal_app, name="journal")
app.add_typer(offline.store_app, name="store")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(installed_version("raftq"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Say which.")
    ] = False,
    access_key: Annotated[
        str,
        typer.Option("--key", envvar="RAFTQ_KEY", help="The access key; rather in RAFTQ_KEY."),
    ] = "",
    ca_file: Annotated[
        Path | None,
        typer.Option(
            envvar="RAFTQ_CA_FILE",
            metavar="FILE",
            help="Who signs the certificates of replicas under https.",
        ),
    ] = None,
) -> None:
    """Options of all commands."""
    options.use_ca_file(ca_file)
    options.use_key(access_key)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    try:
        _built(app)(args=arguments, prog_name="raftq")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else Exit.DONE
    except Failure as failure:
        typer.secho(f"raftq: {failure}", err=True, fg="red")
        return failure.code
    return Exit.DONE
