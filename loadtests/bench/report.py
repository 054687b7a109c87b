"""What a run tells people: sections of tables on a terminal, and with their plots as a page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table as RichTable

import plots
from loadtests.bench.records import Record


class Table(NamedTuple):
    """Rows of text; the first ``names`` columns say what the others are figures of."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: int = 1


class Plot(NamedTuple):
    """A drawing of ``plots``, and what it is of."""

    of: str
    drawing: str


class Section(NamedTuple):
    """What is told of one part."""

    title: str
    about: str
    tables: Sequence[Table]
    plots: Sequence[Plot] = ()


def show(sections: Sequence[Section], console: Console) -> None:
    """The tables."""
    for section in sections:
        console.print(f"\n[bold]{section.title}[/bold]\n{section.about}", highlight=False)
        for table in section.tables:
            shown = RichTable()
            for place, column in enumerate(table.columns):
                shown.add_column(column, justify="left" if place < table.names else "right")
            for row in table.rows:
                shown.add_row(*row)
            console.print(shown)


def write(
    run: Record,
    sections: Sequence[Section],
    path: Path,
    *,
    title: str = "raftq, measured",
    about: str = "Three nodes, the load generator and all baselines on one machine, in one run. "
    "Compare what is on this page with itself, not with other machines.",
) -> None:
    """The page, with the machine on top."""
    facts = {name: value for name, value in run.items() if name not in ("kind", "plan")}
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(about)}</p>",
        f"<dl>{''.join(_fact(name, value) for name, value in facts.items())}</dl>",
        *(_section(section) for section in sections),
    ]
    path.write_text(plots.page(title, parts))


def _fact(name: str, value: object) -> str:
    return f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd></div>"


def _section(section: Section) -> str:
    drawn = "".join(
        f"<div><h3>{html.escape(one.of)}</h3>{one.drawing}</div>" for one in section.plots
    )
    return (
        f"<h2>{html.escape(section.title)}</h2><p>{html.escape(section.about)}</p>"
        f'<div class="plots">{drawn}</div>{"".join(_table(table) for table in section.tables)}'
    )


def _table(table: Table) -> str:
    def row(texts: Sequence[str], tag: str) -> str:
        cells = (
            f"<{tag}{'' if place < table.names else ' class=figure'}>{html.escape(text)}</{tag}>"
            for place, text in enumerate(texts)
        )
        return f"<tr>{''.join(cells)}</tr>"

    rows = "".join(row(texts, "td") for texts in table.rows)
    return (
        f'<div class="wide"><table><thead>{row(table.columns, "th")}</thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
