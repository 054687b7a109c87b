"""``raftq serve``: one node, in the foreground."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from raftq.cli.failure import Exit, Failure
from raftq.config import Config, ConfigError, load

ConfigPath = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The TOML file; without one, defaults apply."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key, as section.key=value; repeatable."),
]


def serve(
    config: ConfigPath = None,
    sets: Sets = None,
    bootstrap: Annotated[
        bool,
        typer.Option(
            help="Found the cluster from this empty node, though not all members are reachable. "
            "Never on a cluster that has run before."
        ),
    ] = False,
) -> None:
    """Run one node until SIGTERM or SIGINT."""
    settings = configuration(config, sets)
    # Late: no other command needs the node and its engines.
    from raftq import node

    raise typer.Exit(node.run(settings, bootstrap=bootstrap))


def configuration(path: Path | None, sets: list[str] | None) -> Config:
    """The configuration out of file, environment and flags; a Failure lists all faults."""
    try:
        return load(path, os.environ, sets or ())
    except ConfigError as error:
        raise wrong(error.problems) from None


def wrong(problems: Iterable[str]) -> Failure:
    """All that is to be changed."""
    listed = "\n".join(f"  {problem}" for problem in problems)
    return Failure(f"the configuration is wrong:\n{listed}", Exit.USAGE)
