"""Looking at schedules and operating them on a real server, with a worker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from configuration.cadences import DEFAULT_CADENCES, EXPORT_RESULTS, EXPORT_SETTINGS, Cadence
from models.errors import InvalidInput, NotFound, Unavailable
from schedules.operating import backfill, pause, resume, trigger
from schedules.sync import sync_schedules
from schedules.views import ScheduleView, describe, list_schedules

FOLLOWS = DEFAULT_CADENCES
AT_TICKS = DEFAULT_CADENCES | {EXPORT_RESULTS: Cadence(every=120, overlap="buffer-one", follow=False)}


@workflow.defn(name="ExportResults")
class HeldRun:
    """Runs until it is let go."""

    def __init__(self) -> None:
        self.released = False

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self.released)

    @workflow.signal
    def release(self) -> None:
        self.released = True


@workflow.defn(name="ExportSettings")
class QuickRun:
    """Ends at once."""

    @workflow.run
    async def run(self) -> None:
        return


@pytest.fixture
async def worked(client: Client) -> AsyncIterator[Client]:
    """The schedules are there and each has begun its first run; a worker takes them. No run comes by the clock."""
    await sync_schedules(client, {EXPORT_RESULTS: Cadence(every=86_400), EXPORT_SETTINGS: Cadence(every=3600)})
    async with Worker(
        client,
        task_queue="airlock-response",
        workflows=[HeldRun, QuickRun],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        yield client


async def when(look: Callable[[], Awaitable[ScheduleView]], good: Callable[[ScheduleView], bool]) -> ScheduleView:
    async with asyncio.timeout(15):
        while not good(view := await look()):  # noqa: ASYNC110, the server tells nobody
            await asyncio.sleep(0.1)
        return view


def has_completed(view: ScheduleView) -> bool:
    return not view.running and view.last_run is not None and view.last_run.outcome == "completed"


async def test_triggers_during_a_run_give_exactly_one_more(worked: Client) -> None:
    def results() -> Awaitable[ScheduleView]:
        return describe(worked, EXPORT_RESULTS)

    await when(results, lambda view: len(view.running) == 1)
    await asyncio.sleep(1.1)  # runs are named by the second, and Temporal loses track of the second one of a name
    for _ in range(3):
        await trigger(worked, EXPORT_RESULTS, AT_TICKS)
    for run in (1, 2):
        view = await when(results, lambda view, run=run: view.actions == run and bool(view.running))  # type: ignore[misc]
        assert view.last_run is not None
        assert view.last_run.outcome == "running"
        assert len(view.running) == 1, "two runs at a time"
        await worked.get_workflow_handle(view.running[0]).signal("release")
    view = await when(results, has_completed)
    await asyncio.sleep(0.5)
    assert (await results()).actions == 2


async def test_a_run_that_stays_answers_a_trigger_itself(worked: Client) -> None:
    view = await when(lambda: describe(worked, EXPORT_RESULTS), lambda view: len(view.running) == 1)
    answered = await trigger(worked, EXPORT_RESULTS, FOLLOWS)
    assert [answered.answered_by] == answered.running == view.running
    await worked.get_workflow_handle(view.running[0]).signal("release")
    await worked.get_workflow_handle(view.running[0]).result()
    assert (await trigger(worked, EXPORT_RESULTS, FOLLOWS)).answered_by is None, "it has ended"
    view = await when(lambda: describe(worked, EXPORT_RESULTS), lambda view: view.actions == 2 and bool(view.running))
    await worked.get_workflow_handle(view.running[0]).terminate()


async def test_what_stays_until_the_next_tick_begins_when_it_is_resumed(worked: Client) -> None:
    view = await when(lambda: describe(worked, EXPORT_RESULTS), lambda view: len(view.running) == 1)
    await pause(worked, EXPORT_RESULTS, "the other side moves")
    await worked.get_workflow_handle(view.running[0]).signal("release")
    await when(lambda: describe(worked, EXPORT_RESULTS), has_completed)
    await asyncio.sleep(1.1)  # runs are named by the second
    await resume(worked, EXPORT_RESULTS, "moved", FOLLOWS)
    view = await when(lambda: describe(worked, EXPORT_RESULTS), lambda view: view.actions == 2 and bool(view.running))
    await worked.get_workflow_handle(view.running[0]).terminate()


async def test_a_new_schedule_runs_at_once(worked: Client) -> None:
    view = await when(lambda: describe(worked, EXPORT_SETTINGS), has_completed)
    assert view.actions == 1
    await sync_schedules(worked, {EXPORT_SETTINGS: Cadence(every=7200)})
    await asyncio.sleep(0.5)
    assert (await describe(worked, EXPORT_SETTINGS)).actions == 1, "a changed schedule waits for its time"


async def test_the_outcome_of_each_of_two_runs_in_one_second_is_told(worked: Client) -> None:
    await when(lambda: describe(worked, EXPORT_SETTINGS), has_completed)
    for _ in range(3):
        await trigger(worked, EXPORT_SETTINGS, FOLLOWS)
        await when(lambda: describe(worked, EXPORT_SETTINGS), has_completed)


async def test_a_worker_that_was_away_for_three_intervals_runs_once_on_return(client: Client) -> None:
    await sync_schedules(client, {EXPORT_SETTINGS: Cadence(every=1)})

    def settings() -> Awaitable[ScheduleView]:
        return describe(client, EXPORT_SETTINGS)

    away = await when(settings, lambda view: view.skipped_overlap >= 3)
    assert (away.actions, len(away.running)) == (1, 1), "one waits, the others are skipped"
    await pause(client, EXPORT_SETTINGS, "so that what follows can be counted")
    async with Worker(
        client, task_queue="airlock-response", workflows=[QuickRun], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        back = await when(settings, has_completed)
    assert back.actions == 1


async def test_pause_and_resume_are_shown_with_their_notes(worked: Client) -> None:
    paused = await pause(worked, EXPORT_SETTINGS, "the other side moves")
    assert (paused.paused, paused.note, paused.next_run) == (True, "the other side moves", None)
    resumed = await resume(worked, EXPORT_SETTINGS, "moved", FOLLOWS)
    assert (resumed.paused, resumed.note) == (False, "moved")
    assert resumed.next_run is not None


async def test_a_backfill_runs_once_for_each_time_one_after_the_other(worked: Client) -> None:
    now = datetime.now(UTC)
    await when(lambda: describe(worked, EXPORT_SETTINGS), has_completed)
    end = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    await backfill(worked, EXPORT_SETTINGS, end - timedelta(hours=2, minutes=30), end)
    view = await when(lambda: describe(worked, EXPORT_SETTINGS), lambda view: view.actions == 4 and has_completed(view))
    assert view.last_run is not None
    assert view.last_run.scheduled_at == end


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (timedelta(hours=-1), timedelta(hours=-2), "must be before"),
        (timedelta(hours=-1), timedelta(hours=1), "in the future"),
        (timedelta(days=-300), timedelta(0), "at most 1000"),
    ],
)
async def test_a_backfill_that_makes_no_sense_is_refused(
    worked: Client, start: timedelta, end: timedelta, said: str
) -> None:
    now = datetime.now(UTC) - timedelta(seconds=1)
    with pytest.raises(InvalidInput, match=said):
        await backfill(worked, EXPORT_SETTINGS, now + start, now + end)
    with pytest.raises(InvalidInput, match="time zone"):
        await backfill(worked, EXPORT_SETTINGS, datetime(2026, 1, 1), now)  # noqa: DTZ001


async def test_views_say_what_the_table_says(client: Client) -> None:
    cron = Cadence(cron="*/15 3 * * MON-FRI", time_zone="Europe/Istanbul", jitter=5, overlap="buffer-one")
    await sync_schedules(client, DEFAULT_CADENCES | {EXPORT_SETTINGS: cron})
    views = {view.id: view for view in await list_schedules(client)}
    assert list(views) == list(DEFAULT_CADENCES)
    assert [view.every for view in views.values()] == [None, 120, 300, 3600]
    found = views[EXPORT_SETTINGS]
    assert (found.cron, found.time_zone, found.jitter) == ("*/15 3 * * MON-FRI", "Europe/Istanbul", 5)
    assert (found.workflow, found.overlap) == ("ExportSettings", "buffer-one")


async def test_an_unknown_schedule_names_the_known_ones(client: Client) -> None:
    with pytest.raises(NotFound, match="export-settings, export-results, system-monitoring, cache-maintenance"):
        await trigger(client, "nightly", FOLLOWS)
    with pytest.raises(NotFound, match="response worker makes it"):
        await describe(client, EXPORT_RESULTS)
    assert await list_schedules(client) == []


async def test_without_temporal_calls_say_so_soon() -> None:
    away = await Client.connect("127.0.0.1:1", lazy=True)
    with pytest.raises(Unavailable, match="does not answer"):
        await list_schedules(away)
