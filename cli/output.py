"""The output of commands: tables for people, JSON with stable keys for programs.

All that a command prints passes through here, and through `printable`: names, reasons and errors come from strangers.
"""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from models.printable import printable

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def say(text: str, *, err: bool = False, colour: str | None = None, bold: bool = False) -> None:
    """Print one line, on standard error with ``err``. Our own colour is added after the text was made printable."""
    line = printable(text)
    typer.echo(typer.style(line, fg=colour, bold=bold) if colour or bold else line, err=err)


def say_in_place(text: str) -> None:
    """Replace the last line of a terminal's standard error, as progress does."""
    typer.echo(f"\r\x1b[2K{printable(text)}", err=True, nl=False)


def print_bytes(content: bytes) -> None:
    """Print exact bytes of ours into a pipe or a file. On a terminal they are text, each line made printable."""
    if sys.stdout.isatty():
        for line in content.decode("utf-8", "backslashreplace").split("\n"):
            say(line)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def print_json(content: Any) -> None:
    """Print one JSON document in UTF-8. What is not printable stays the same text, escaped as JSON has it."""
    document = json.dumps(content, indent=2, default=_plain, ensure_ascii=False)
    # Within JSON only strings can hold such characters, where an escape means the same.
    lines = ("".join(map(_json_escaped, _parts(line))) for line in document.split("\n"))
    typer.echo("\n".join(lines))


def _plain(item: object) -> str:
    return item.isoformat() if isinstance(item, datetime) else str(item)


def _parts(line: str) -> list[str]:
    return [line] if printable(line) == line else list(line)


def _json_escaped(part: str) -> str:
    return part if printable(part) == part else json.dumps(part)[1:-1] if part != "\x7f" else "\\u007f"


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
        console.print(Text(printable(f"{title}: {empty}")))
        return
    table = Table(
        title=Text(printable(title), style=style or ""), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for number, column in enumerate(columns):
        is_number = all(isinstance(row[number], int | float) for row in rows)
        table.add_column(Text(printable(column)), justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell(item))) for item in row), style=style)
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
