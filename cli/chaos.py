"""`airlock chaos`: runs a whole Airlock under load with a seeded plan of faults, then compares all records."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import MISCONFIGURED, fail
from cli.output import AsJson, print_json, print_table, say

if TYPE_CHECKING:
    from chaos.plan import Fault, FaultKind
    from chaos.summary import Summary

DIFFERS, CANNOT_RUN = 1, MISCONFIGURED


def chaos(
    seed: Annotated[int, typer.Option(help="The same seed and minutes give the same faults and load.")] = 1,
    minutes: Annotated[float, typer.Option(min=0.1, max=24 * 60, help="How long the load lasts.")] = 10.0,
    rate: Annotated[float, typer.Option(min=0.1, max=10_000, help="Requests per second.")] = 20.0,
    faults: Annotated[str, typer.Option(metavar="KIND,KIND", help="Only these kinds of faults.")] = "",
    plan: Annotated[bool, typer.Option("--plan", help="Print the planned faults and exit.")] = False,
    home: Annotated[
        Path | None, typer.Option(help="Empty directory for the run, which is kept; a temporary one by default.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary directory even when all is well.")] = False,
    as_json: AsJson = False,
) -> None:
    """Kill, stop and starve a whole Airlock under load, then prove that nothing is lost, doubled or altered.

    Exits with 0 when all agrees, 1 when something differs, 2 when it could not be run or was interrupted.
    """
    from chaos.plan import make_plan

    try:
        planned = make_plan(seed, minutes, _kinds(faults))
    except ValueError as error:
        raise fail(str(error), CANNOT_RUN) from None
    if plan:
        _show_plan(planned, as_json)
        return
    summary = _run(seed, minutes, rate, planned, home, keep)
    if as_json:
        print_json(summary.as_json())
    else:
        _show_summary(summary)
    if not summary.is_good:
        raise typer.Exit(DIFFERS if summary.discrepancies else CANNOT_RUN)


def _kinds(named: str) -> "list[FaultKind]":
    from chaos.plan import FaultKind

    words = [word.strip() for word in named.split(",") if word.strip()]
    if unknown := [word for word in words if word not in set(FaultKind)]:
        raise fail(f"there is no kind of fault {unknown[0]!r}; there are {', '.join(FaultKind)}", CANNOT_RUN)
    return [FaultKind(word) for word in words] or list(FaultKind)


def _run(seed: int, minutes: float, rate: float, plan: "list[Fault]", home: Path | None, keep: bool) -> "Summary":
    import asyncio

    from chaos.harness import Harness, Options
    from chaos.running import CannotRun

    options = Options(seed, minutes, rate, plan, home.resolve() if home else None, keep)
    try:
        return asyncio.run(Harness(options, lambda line: say(line, err=True)).run())
    except CannotRun as error:
        raise fail(str(error), CANNOT_RUN) from None


def _show_plan(plan: "list[Fault]", as_json: bool) -> None:
    if as_json:
        print_json([fault.as_json() for fault in plan])
        return
    rows = []
    for fault in plan:
        said = ", ".join(f"{name} {item}" for name, item in fault.parameters.items())
        rows.append((fault.at, fault.kind.value, fault.target, fault.seconds, said))
    print_table("Faults", ("at s", "fault", "target", "for s", "with"), rows)


def _show_summary(summary: "Summary") -> None:
    from chaos.summary import as_rows

    print_table("Chaos", ("", ""), as_rows(summary))
    for each in summary.faults_without_effect:
        say(f"could not be done: {each}")
    for discrepancy in summary.discrepancies:
        say(str(discrepancy))
