"""Syncing the schedules against a real server."""

from datetime import timedelta
from typing import Any

import pytest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    ScheduleSpec,
    ScheduleUpdate,
)
from temporalio.service import RPCError

from configuration.cadences import DEFAULT_CADENCES, EXPORT_RESULTS, EXPORT_SETTINGS, Cadence
from models.errors import ConfigurationError, Unavailable
from schedules.definitions import SCHEDULED, longest_run, schedule_for
from schedules.operating import pause
from schedules.sync import MARK, sync_schedules
from tests.schedules.conftest import FOREIGN, FORMER, listed

CADENCES = [
    Cadence(every=60),
    Cadence(every=90.5, jitter=1.5),
    Cadence(every=3600, overlap="buffer-one", catch_up=30),
    Cadence(cron="*/15 3 * * MON-FRI", time_zone="Europe/Istanbul", jitter=5),
    Cadence(cron="0  9 1,15 * *"),
    Cadence(cron="5,10-20/2 */6 1-7 JAN,MAR 0", time_zone="America/New_York"),
]


async def updated_at(client: Client, schedule_id: str) -> Any:
    return (await client.get_schedule_handle(schedule_id).describe()).info.last_updated_at


async def test_the_four_schedules_are_created(client: Client) -> None:
    outcome = await sync_schedules(client, DEFAULT_CADENCES)
    assert outcome.created == list(DEFAULT_CADENCES)
    for schedule_id, cadence in DEFAULT_CADENCES.items():
        found = (await client.get_schedule_handle(schedule_id).describe()).schedule
        assert isinstance(found.action, ScheduleActionStartWorkflow)
        assert found.spec.intervals == [ScheduleIntervalSpec(timedelta(seconds=cadence.every or 0))]
        follows = schedule_id == EXPORT_RESULTS
        assert found.policy.overlap is (ScheduleOverlapPolicy.BUFFER_ONE if follows else ScheduleOverlapPolicy.SKIP)
        assert found.policy.catchup_window == cadence.catch_up_window
        assert (found.action.workflow, found.action.id) == (SCHEDULED[schedule_id].workflow, schedule_id)
        assert found.action.task_queue == "airlock-response"
        assert found.action.run_timeout == timedelta(hours=1) + timedelta(seconds=120 * follows)


@pytest.mark.parametrize(
    ("schedule_id", "cadence", "longest"),
    [
        (EXPORT_SETTINGS, Cadence(every=7200), timedelta(hours=1)),
        (EXPORT_RESULTS, Cadence(every=7200), timedelta(hours=3)),
        (EXPORT_RESULTS, Cadence(cron="0 9 1 * *"), timedelta(days=32)),
        (EXPORT_RESULTS, Cadence(every=7200, follow=False), timedelta(hours=1)),
    ],
)
def test_a_run_that_follows_its_stream_may_last_for_its_interval(
    schedule_id: str, cadence: Cadence, longest: timedelta
) -> None:
    assert longest_run(schedule_id, cadence) == longest


@pytest.mark.parametrize("cadence", CADENCES, ids=lambda cadence: cadence.cron or str(cadence.every))
async def test_a_schedule_that_is_as_wanted_is_not_updated(client: Client, cadence: Cadence) -> None:
    wanted = {EXPORT_RESULTS: cadence}
    assert (await sync_schedules(client, wanted)).created == [EXPORT_RESULTS]
    assert (await sync_schedules(client, wanted)).unchanged == [EXPORT_RESULTS]
    assert await updated_at(client, EXPORT_RESULTS) is None, "the server has seen an update"


@pytest.mark.parametrize("before", CADENCES, ids=lambda cadence: cadence.cron or str(cadence.every))
@pytest.mark.parametrize("after", CADENCES, ids=lambda cadence: cadence.cron or str(cadence.every))
async def test_a_changed_cadence_is_taken_over_once(client: Client, before: Cadence, after: Cadence) -> None:
    if before == after:
        return
    await sync_schedules(client, {EXPORT_RESULTS: before})
    assert (await sync_schedules(client, {EXPORT_RESULTS: after})).changed == [EXPORT_RESULTS]
    assert (await sync_schedules(client, {EXPORT_RESULTS: after})).unchanged == [EXPORT_RESULTS]


@pytest.mark.parametrize(
    "change",
    [
        {"run_timeout": timedelta(hours=2)},
        {"task_queue": "elsewhere"},
        {"static_summary": "old"},
        {"task_timeout": None},
    ],
)
async def test_an_action_that_differs_is_put_right(client: Client, change: dict[str, Any]) -> None:
    await sync_schedules(client, {EXPORT_RESULTS: Cadence(every=120)})
    other = schedule_for(EXPORT_RESULTS, Cadence(every=120))
    for name, value in change.items():
        setattr(other.action, name, value)
    await client.get_schedule_handle(EXPORT_RESULTS).update(lambda _: ScheduleUpdate(other))
    assert (await sync_schedules(client, {EXPORT_RESULTS: Cadence(every=120)})).changed == [EXPORT_RESULTS]
    assert (await sync_schedules(client, {EXPORT_RESULTS: Cadence(every=120)})).unchanged == [EXPORT_RESULTS]


@pytest.mark.parametrize("every", [60, 30], ids=["same cadence", "changed cadence"])
async def test_a_pause_and_its_note_survive_a_sync(client: Client, every: float) -> None:
    await sync_schedules(client, {EXPORT_SETTINGS: Cadence(every=60)})
    await pause(client, EXPORT_SETTINGS, "moving house")
    await sync_schedules(client, {EXPORT_SETTINGS: Cadence(every=every)})
    found = (await client.get_schedule_handle(EXPORT_SETTINGS).describe()).schedule
    assert found.spec.intervals[0].every.total_seconds() == every
    assert (found.state.paused, found.state.note) == (True, "moving house")


async def test_ours_that_left_is_deleted_and_others_are_kept(client: Client) -> None:
    action = ScheduleActionStartWorkflow("Reports", id="reports", task_queue="elsewhere")
    schedule = Schedule(action=action, spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(timedelta(days=1))]))
    await client.create_schedule(FORMER, schedule, memo=MARK)
    await client.create_schedule(FOREIGN, schedule, memo={"airlock": "no"})
    await listed(client, FORMER)
    await listed(client, FOREIGN)
    assert (await sync_schedules(client, DEFAULT_CADENCES)).deleted == [FORMER]
    with pytest.raises(RPCError):
        await client.get_schedule_handle(FORMER).describe()
    await client.get_schedule_handle(FOREIGN).describe()


async def test_a_cadence_that_temporal_refuses_names_the_variable(client: Client) -> None:
    with pytest.raises(ConfigurationError, match="AIRLOCK_RESPONSE_CADENCES, export-results"):
        await sync_schedules(client, {EXPORT_RESULTS: Cadence(cron="99 * * * *")})


async def test_without_temporal_the_address_is_named() -> None:
    away = await Client.connect("127.0.0.1:1", lazy=True)
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 does not answer"):
        await sync_schedules(away, DEFAULT_CADENCES)
