"""`airlock schedules`: show schedules and operate them."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import answer, fail, response_temporal
from cli.output import AsJson, cell, print_json, print_table, say, seconds

if TYPE_CHECKING:
    from temporalio.client import Client

    from configuration.cadences import Cadence
    from schedules.views import ScheduleView

app = typer.Typer(help="Schedules: list, describe, trigger, pause, resume, backfill.", no_args_is_help=True)

ScheduleId = Annotated[str, typer.Argument(metavar="SCHEDULE", help="As in: airlock schedules list")]
Note = Annotated[str, typer.Option("--note", "-n", help="Why; shown with the schedule.")]
Moment = Annotated[str, typer.Option(metavar="TIME", help="RFC 3339, as 2026-01-01T00:00:00Z; in UTC by default.")]

COLUMNS = ("schedule", "runs", "state", "next", "last", "outcome", "running", "actions", "skipped", "missed")


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """List all schedules."""
    views = answer(schedules_now)
    if as_json:
        print_json([view.model_dump(mode="json") for view in views])
    else:
        show_schedules(views)


@app.command()
def describe(schedule: ScheduleId, as_json: AsJson = False) -> None:
    """Show one schedule in full."""
    from schedules.views import describe as look

    _operate(lambda client: look(client, schedule), as_json)


@app.command()
def trigger(schedule: ScheduleId, as_json: AsJson = False) -> None:
    """Run now. If a run is under way, run once more after it, unless that run lasts until the next tick."""
    from schedules.operating import Triggered
    from schedules.operating import trigger as act

    view = _operate(lambda client: act(client, schedule, _cadences()), as_json)
    if isinstance(view, Triggered) and view.answered_by and not as_json:
        say(f"No run was started: {view.answered_by} is under way and delivers what is ready at once.")


@app.command()
def pause(schedule: ScheduleId, note: Note = "paused from the command line", as_json: AsJson = False) -> None:
    """Start no more scheduled runs until it is resumed. A pause survives restarts."""
    from schedules.operating import pause as act

    _operate(lambda client: act(client, schedule, note), as_json)


@app.command()
def resume(schedule: ScheduleId, note: Note = "resumed from the command line", as_json: AsJson = False) -> None:
    """Start scheduled runs again. A schedule that follows its stream starts a run at once."""
    from schedules.operating import resume as act

    _operate(lambda client: act(client, schedule, note, _cadences()), as_json)


@app.command()
def backfill(schedule: ScheduleId, start: Moment, end: Moment, as_json: AsJson = False) -> None:
    """Run once for each scheduled time between --start and --end, one after the other."""
    from schedules.operating import backfill as act

    begin, until = _moment("--start", start), _moment("--end", end)
    _operate(lambda client: act(client, schedule, begin, until), as_json)


async def schedules_now() -> "list[ScheduleView]":
    """All schedules of the response network."""
    from schedules.views import list_schedules

    async with response_temporal() as client:
        return await list_schedules(client)


def show_schedules(views: "list[ScheduleView]") -> None:
    """Print schedules as a table."""
    rows = [
        (
            view.id,
            _runs(view),
            "paused" if view.paused else "active",
            view.next_run,
            view.last_run.started_at if view.last_run else None,
            view.last_run.outcome if view.last_run else None,
            len(view.running),
            view.actions,
            view.skipped_overlap,
            view.missed_catch_up,
        )
        for view in views
    ]
    print_table("Schedules", COLUMNS, rows, "none yet: a response worker makes them when it starts")


def _cadences() -> "Mapping[str, Cadence]":
    from configuration.settings import ResponseSettings

    return ResponseSettings.load().cadences


def _operate(act: "Callable[[Client], Awaitable[ScheduleView]]", as_json: bool) -> "ScheduleView":
    async def work() -> "ScheduleView":
        async with response_temporal() as client:
            return await act(client)

    view = answer(work)
    if as_json:
        print_json(view.model_dump(mode="json"))
        return view
    last = view.last_run
    lines = {
        "workflow": view.workflow,
        "runs": _runs(view),
        "state": "paused" if view.paused else "active",
        "note": view.note,
        "next run": view.next_run,
        "last run": f"{cell(last.started_at)}, {last.outcome}, workflow id {last.workflow_id}" if last else None,
        "running": ", ".join(view.running) or None,
        "counts": f"{view.actions} started, {view.skipped_overlap} skipped for overlap, {view.missed_catch_up} missed",
    }
    say(view.id)
    for name, text in lines.items():
        say(f"  {name:9} {cell(text)}")
    return view


def _runs(view: "ScheduleView") -> str:
    when = f"every {seconds(view.every)}" if view.every else f"{view.cron} ({view.time_zone})"
    return f"{when}, jitter {seconds(view.jitter)}" if view.jitter else when


def _moment(option: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise fail(f"{option} {text!r} is not a time; write it as 2026-01-01T00:00:00Z") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
