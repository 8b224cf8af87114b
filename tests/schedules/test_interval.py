"""The interval that a run owns, as a real Temporal server tells it: until the next run waits, a pause, or the end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import pytest
from temporalio.client import (
    Client,
    ScheduleActionExecutionStartWorkflow,
    ScheduleHandle,
    ScheduleOverlapPolicy,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError

from configuration.cadences import EXPORT_RESULTS, Cadence
from schedules import interval
from schedules.interval import OwnedInterval, owned_interval
from schedules.sync import sync_schedules
from tests.api_request.proxy import proxied

_BEGUN: list[str] = []
DAILY = Cadence(every=86_400, overlap="buffer-one")


async def running(client: Client, cadence: Cadence = DAILY) -> ScheduleHandle:
    """A schedule whose first run lasts, since no worker takes it."""
    await sync_schedules(client, {EXPORT_RESULTS: cadence})
    schedule = client.get_schedule_handle(EXPORT_RESULTS)

    async def runs() -> bool:
        return bool((await schedule.describe()).info.running_actions)

    await until(runs)
    for action in (await schedule.describe()).info.running_actions:
        assert isinstance(action, ScheduleActionExecutionStartWorkflow)
        _BEGUN.append(action.workflow_id)
    return schedule


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110, the server tells nobody
            await asyncio.sleep(0.05)


@pytest.fixture
async def looked(client: Client) -> OwnedInterval:
    """Of a run that has just begun."""
    await running(client)
    owned = OwnedInterval(client, EXPORT_RESULTS)
    await owned.look()
    return owned


@pytest.fixture(autouse=True)
async def _ends(client: Client) -> AsyncIterator[None]:
    """Runs are named by the second: one that goes on would be in the way of the next test's."""
    yield
    with suppress(RPCError):
        await client.get_schedule_handle(EXPORT_RESULTS).delete()
    while _BEGUN:
        await client.get_workflow_handle(_BEGUN.pop()).terminate()


async def test_a_run_owns_its_interval_until_the_next_one_waits(client: Client, looked: OwnedInterval) -> None:
    assert (looked.is_over, looked.is_paused, looked.ended.is_set()) == (False, False, False)
    await client.get_schedule_handle(EXPORT_RESULTS).trigger()

    async def is_over() -> bool:
        await looked.look()
        return looked.is_over

    await until(is_over)
    assert looked.ended.is_set()
    assert not looked.is_paused


async def test_an_operators_pause_ends_it_and_is_told_apart(client: Client, looked: OwnedInterval) -> None:
    await client.get_schedule_handle(EXPORT_RESULTS).pause(note="the other side moves")
    await looked.look()
    assert (looked.is_over, looked.is_paused, looked.ended.is_set()) == (False, True, True)


async def test_a_deleted_schedule_ends_it(client: Client, looked: OwnedInterval) -> None:
    await client.get_schedule_handle(EXPORT_RESULTS).delete()

    async def is_over() -> bool:
        await looked.look()
        return looked.is_over

    await until(is_over)
    assert looked.ended.is_set()


async def test_while_temporal_does_not_answer_its_last_answer_counts(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interval, "ASK_SECONDS", 0.3)
    schedule = await running(client)
    host, _, port = client.service_client.config.target_host.partition(":")
    async with proxied(host, int(port)) as proxy:
        owned = OwnedInterval(await Client.connect(f"127.0.0.1:{proxy.port}"), EXPORT_RESULTS)
        await owned.look()
        await schedule.pause()
        await proxy.cut()
        await owned.look()
        assert not owned.ended.is_set()


async def test_a_run_behind_which_nobody_waits_ends_some_time_after_its_tick(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interval, "OVERDUE", timedelta())
    schedule = await running(client)

    def to_skip(seen: ScheduleUpdateInput) -> ScheduleUpdate:
        wanted = seen.description.schedule
        wanted.spec.intervals[0].every = timedelta(seconds=1)
        wanted.policy.overlap = ScheduleOverlapPolicy.SKIP
        return ScheduleUpdate(wanted)

    await schedule.update(to_skip)
    owned = OwnedInterval(client, EXPORT_RESULTS)

    async def is_over() -> bool:
        await owned.look()
        return owned.is_over

    await until(is_over)
    assert (await schedule.describe()).raw_description.info.buffer_size == 0


async def test_the_end_is_seen_right_after_the_tick(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interval, "LOOK_SECONDS", 600.0)
    monkeypatch.setattr(interval, "AFTER_TICK_SECONDS", 1.0)  # Temporal needs longer on a busy machine
    await running(client, Cadence(every=2, overlap="buffer-one"))
    async with asyncio.timeout(20), owned_interval(client, EXPORT_RESULTS) as owned:
        await owned.ended.wait()
    assert owned.is_over


async def test_a_pause_is_seen_while_the_run_goes_on(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert interval.LOOK_SECONDS + interval.ASK_SECONDS < 10, "an operator waits no longer"
    monkeypatch.setattr(interval, "LOOK_SECONDS", 0.05)
    schedule = await running(client)
    async with asyncio.timeout(20), owned_interval(client, EXPORT_RESULTS) as owned:
        assert not owned.ended.is_set()
        await schedule.pause()
        await owned.ended.wait()
    assert (owned.is_paused, owned.is_over) == (True, False)
