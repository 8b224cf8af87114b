"""Batches of results that come while somebody stands by are applied at once."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from storage.standby import Standby, received
from temporalio.testing import ActivityEnvironment

from activities import standing_by
from activities.importing import ImportActivities
from cache.redis_cache import Cache
from models.outcomes import ApplyOutcome
from models.streams import StreamName
from tests.activities.crossing import cross, new_id, one, result_record, submit
from tests.activities.standing_in import Told
from tests.activities.test_brief_work import in_short
from tests.conftest import Networks
from tests.hearing import eventually, hearing, stood_by

RESULTS = StreamName.RESULTS


@pytest.fixture
async def standby(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Standby]:
    monkeypatch.setattr(standing_by, "STANDS_BY_SECONDS", 60.0)
    async with hearing(networks.request) as standby:
        yield standby


async def test_each_batch_that_comes_meanwhile_is_applied_at_once(
    networks: Networks, cache: Cache, standby: Standby
) -> None:
    importing = ImportActivities(networks.request.engine, cache, 60, Told(), standby)
    ids = [new_id() for _ in range(3)]
    await submit(networks, *ids)

    async def stands_by() -> bool:
        return await stood_by(networks.request, received(RESULTS))

    await cross(networks, RESULTS, [result_record(ids[0])])
    environment = in_short()
    standing = asyncio.create_task(environment.run(importing.apply_when_received, RESULTS))
    await eventually(stands_by)
    for request_id in ids[1:]:
        await cross(networks, RESULTS, [result_record(request_id)])
    await eventually(lambda: all_applied(networks, 3))
    assert not standing.done()
    environment.worker_shutdown()
    outcome = await standing
    assert (outcome.batches, outcome.records, outcome.more) == (3, 3, False)
    assert not await stands_by()


async def all_applied(networks: Networks, count: int) -> bool:
    return bool(await one(networks.request, "SELECT count(*) FROM results") == count)


async def test_when_its_time_is_over_it_ends(
    networks: Networks, cache: Cache, standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_by, "STANDS_BY_SECONDS", 0.1)
    importing = ImportActivities(networks.request.engine, cache, 60, Told(), standby)
    assert await in_short().run(importing.apply_when_received, RESULTS) == ApplyOutcome()


async def test_however_often_it_is_called_it_ends_when_its_time_is_over(
    standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_by, "STANDS_BY_SECONDS", 0.1)

    async def called_again_and_again() -> int:
        times = 0
        async with standing_by.standing_by(standby, "a notice") as may_be_something:
            while await may_be_something():
                times += 1
                standby.hear("a notice")
        return times

    async with asyncio.timeout(10):
        assert await in_short().run(called_again_and_again) > 1


async def test_the_activity_that_follows_one_that_failed_applies_what_is_there_and_waits_for_nothing(
    networks: Networks, cache: Cache, standby: Standby
) -> None:
    importing = ImportActivities(networks.request.engine, cache, 60, Told(), standby)
    key = new_id()
    await submit(networks, key)
    await cross(networks, RESULTS, [result_record(key)])
    outcome: ApplyOutcome = await ActivityEnvironment().run(importing.apply_when_received, RESULTS)
    assert (outcome.batches, outcome.records) == (1, 1)
