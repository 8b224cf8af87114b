"""`airlock bench`: every figure in one table, compared with its limit and with Celery."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import MISCONFIGURED, fail
from cli.output import print_table, say

if TYPE_CHECKING:
    from bench.figures import Figure
    from bench.report import Report
    from bench.session import Session

NOT_MEASURED = MISCONFIGURED


def bench(
    figures: Annotated[list[str] | None, typer.Argument(metavar="[FIGURE]...", help="All by default.")] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=99, help="Rounds of each figure; 5 by default, 3 of long ones.")
    ] = None,
    scale: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Fraction of the full number of records and seconds.")
    ] = 1.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="One small round, to test that all works. Its figures mean nothing.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write every round to a file.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a chart: .svg or .png.")] = None,
    compare: Annotated[Path | None, typer.Option(metavar="FILE", help="An earlier file of --json.")] = None,
    list_them: Annotated[bool, typer.Option("--list", help="List the figures and exit.")] = False,
) -> None:
    """Measure Airlock, and compare it with the machine's limit and with Celery on the same job.

    Starts the servers that it needs on free ports and stops them. Exits with 0 when everything was measured, whatever
    the figures, and with 2 when something could not be measured.
    """
    from bench.catalogue import FIGURES, chosen, described
    from bench.plot import check_plot_file, draw
    from bench.report import Report

    if list_them:
        print_table("Figures", ("figure", "what"), [(figure.name, described(figure)) for figure in FIGURES])
        return
    try:
        wanted = chosen(figures or [])
        earlier = Report.read(compare) if compare else None
        for path in filter(None, (json_file, plot)):
            check_directory(path)
        if plot:
            check_plot_file(plot)
    except (LookupError, ValueError) as error:
        raise fail(str(error.args[0]), MISCONFIGURED) from None
    from bench.figures import QUICK_SCALE

    report = _measured(wanted, rounds or (1 if quick else None), QUICK_SCALE if quick else scale)
    _show(report, earlier)
    if json_file:
        json_file.write_text(json.dumps(report.as_json(), indent=1) + "\n")
    if plot:
        try:
            draw(report, plot)
        except ValueError as error:
            raise fail(str(error), NOT_MEASURED) from None
    if report.not_measured:
        raise typer.Exit(NOT_MEASURED)


def check_directory(path: Path) -> None:
    """Raise `ValueError` if a file cannot be written there, before hours of measuring."""
    import os

    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path} cannot be written: name a file in an existing directory")


def _measured(figures: "list[Figure]", rounds: int | None, scale: float) -> "Report":
    import asyncio
    import tempfile

    from bench.session import Session
    from configuration.logs import configure_logs

    configure_logs(level="ERROR")  # standard output is for the table
    with tempfile.TemporaryDirectory(prefix="airlock-bench-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)  # PostgreSQL runs as another user if we are root
        session = Session(figures, Path(directory), lambda text: say(text, err=True), rounds, scale)
        asyncio.run(_until_stopped(session))
        return session.report()


async def _until_stopped(session: "Session") -> None:
    """Run until the end, SIGINT or SIGTERM. A signal stops everything that was started."""
    import asyncio
    import signal
    from contextlib import suppress

    running = asyncio.ensure_future(session.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.cancel)
    with suppress(asyncio.CancelledError):
        await running


def _show(report: "Report", earlier: "Report | None") -> None:
    from bench.machine import in_words
    from bench.report import COLUMNS, comparison, falls_short, notes, rows

    print_table("Airlock, its limit, and Celery: median (lowest to highest)", COLUMNS, rows(report))
    for sentence in falls_short(report):
        say(sentence)
    for number, note in enumerate(notes(report)):
        for line in () if number else ("", "How it was measured"):
            say(line)
        say(f"  {note}")
    if report.scale != 1.0:
        from bench.figures import QUICK_SCALE

        says = "this shows that it works, not how fast it is" if report.scale <= QUICK_SCALE else "for orientation"
        say(f"  at {report.scale:g} of the full size: {says}")
    say("")
    say(f"{in_words(report.machine)}; {report.date}")
    if earlier is not None:
        columns = ("figure", "then", "now", "now / then", "")
        say("")
        print_table(f"Against the run of {earlier.date}", columns, comparison(report, earlier), "nothing in common")
        if dict(earlier.machine) != dict(report.machine):
            say(f"another machine or other versions then: {in_words(earlier.machine)}")
