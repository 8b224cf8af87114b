"""The output of commands: tables for people, JSON with stable keys for programs."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def print_json(content: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(content, indent=2, default=_plain))


def _plain(item: object) -> str:
    return item.isoformat() if isinstance(item, datetime) else str(item)


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str = "none", style: str | None = None
) -> None:
    """Print a table, with numbers aligned to the right. ``style``: a Rich style of its title and rows, as ``red``."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no width: do not cut
    if not rows:
        console.print(f"{title}: {empty}")
        return
    table = Table(title=title, title_justify="left", title_style=style, box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        is_number = all(isinstance(row[number], int | float) for row in rows)
        table.add_column(column, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(item)) for item in row), style=style)
    console.print(table)


def cell(item: object) -> str:
    """The text of a cell; a dash for a missing value."""
    if item is None or item == "":
        return "–"  # noqa: RUF001
    if isinstance(item, datetime):
        return f"{item.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    return str(item)


def seconds(duration: float | None) -> str | None:
    """A duration in days, hours, minutes or seconds."""
    if duration is None:
        return None
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if duration >= 2 * size or duration == size:
            return f"{duration / size:g} {unit}" if duration % size == 0 else f"{duration / size:.1f} {unit}"
    return f"{duration:g} s"
