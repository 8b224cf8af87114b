"""What a measurement tells of the schedules in Temporal."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from temporalio.client import Client, Schedule, ScheduleIntervalSpec, ScheduleUpdate, ScheduleUpdateInput

from configuration.cadences import DEFAULT_CADENCES
from monitoring.temporal_state import TemporalState
from schedules.sync import sync_schedules

NAME = "export-settings"


def once_a_year(schedule: Schedule) -> None:
    schedule.spec.intervals = [ScheduleIntervalSpec(timedelta(days=365))]


def no_more_runs(schedule: Schedule) -> None:
    schedule.state.limited_actions = True
    schedule.state.remaining_actions = 0


@pytest.mark.parametrize("change", [once_a_year, no_more_runs])
async def test_a_schedule_that_somebody_changed_is_told(client: Client, change: Callable[[Schedule], None]) -> None:
    await sync_schedules(client, DEFAULT_CADENCES)
    state = TemporalState(client, "airlock-response", DEFAULT_CADENCES)

    async def changed() -> list[str]:
        return [name for name, schedule in (await state())["schedules"].items() if schedule["changed"]]

    assert await changed() == []

    def update(seen: ScheduleUpdateInput) -> ScheduleUpdate:
        change(seen.description.schedule)
        return ScheduleUpdate(seen.description.schedule)

    await client.get_schedule_handle(NAME).update(update)
    assert await changed() == [NAME]
