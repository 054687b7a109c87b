"""``raftq config``: what is wrong with a file, and what it amounts to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from raftq.cli.serve import Sets, configuration, wrong
from raftq.config import masked, render

app = typer.Typer(help="Check and show configuration files.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help="The TOML file.")]


@app.command()
def check(file: File, sets: Sets = None) -> None:
    """List everything that is wrong, or nothing."""
    config = configuration(file, sets)
    # Late: no other command reads certificates.
    from raftq.tls.certificates import faults

    if found := faults(config):
        raise wrong(found)
    typer.echo(f"{file} is good: {config.node.name} of cluster {config.cluster.name}")


@app.command()
def show(file: File, sets: Sets = None) -> None:
    """Print what file, environment, --set and defaults amount to; secrets are masked."""
    config = configuration(file, sets)
    typer.echo(f"# Fingerprint of what all nodes share: {config.fingerprint()}")
    typer.echo(render(msgspec.to_builtins(masked(config))), nl=False)
