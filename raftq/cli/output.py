"""What commands print: tables for people, JSON for programs, both on standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import typer

WIDTH_MAX = 500


def print_json(value: Any) -> None:
    """One indented document."""
    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def print_line(value: Any) -> None:
    """One document on one line."""
    typer.echo(orjson.dumps(value))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns whose cells are all numbers are set to the right."""
    # Late: commands that print no table start faster without.
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [list(row) for row in rows]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(columns):
        numbers = bool(cells) and all(isinstance(row[position], int | float) for row in cells)
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        # As text, not markup: what clients put into queues must not style our output.
        table.add_row(*(Text(_cell(value)) for value in row))
    # A file or a pipe has no width to fit into.
    Console(width=None if sys.stdout.isatty() else WIDTH_MAX).print(table)


def printable(text: str) -> str:
    """Without characters that could steer a terminal."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return printable(str(value))
