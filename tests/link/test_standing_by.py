"""Results that get ready while somebody stands by are delivered at once, and only then."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from storage.standby import Standby, ready
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import standing_by
from activities.streams import StreamActivities
from models.outcomes import DrainOutcome
from models.streams import StreamName
from tests.activities.test_brief_work import in_short
from tests.hearing import eventually, hearing, stood_by
from tests.link.conftest import Crossing

RESULTS = StreamName.RESULTS


class Pause:
    """An operator's."""

    def __init__(self) -> None:
        self.is_on = False

    async def __call__(self) -> bool:
        return self.is_on


class Worker:
    """Stands by in a worker that may be stopped."""

    def __init__(self, crossing: Crossing, standby: Standby) -> None:
        self.crossing = crossing
        self.pause = Pause()
        self.streams = StreamActivities(crossing.delivery, None, standby, self.pause)
        self.environment = in_short()

    async def stand_by(self) -> "asyncio.Task[DrainOutcome]":
        """Gives what goes on when others see it."""
        task = asyncio.create_task(self.environment.run(self.streams.drain_when_ready, RESULTS))
        await eventually(self.stands_by)
        return task

    async def stands_by(self) -> bool:
        return await stood_by(self.crossing.networks.response, ready(RESULTS))

    async def have_arrived(self, *bodies: bytes) -> None:
        async def arrived() -> bool:
            return await self.crossing.arrived() == list(bodies)

        await eventually(arrived)


@pytest.fixture
async def worker(crossing: Crossing, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    monkeypatch.setattr(standing_by, "STANDS_BY_SECONDS", 60.0)
    async with hearing(crossing.networks.response) as standby:
        yield Worker(crossing, standby)


async def test_each_that_gets_ready_meanwhile_is_delivered_at_once(crossing: Crossing, worker: Worker) -> None:
    standing = await worker.stand_by()
    await crossing.enqueue(RESULTS, b"{}")
    await worker.have_arrived(b"{}")
    await crossing.enqueue(RESULTS, b"[]", b"0")
    await worker.have_arrived(b"{}", b"[]", b"0")
    assert not standing.done()
    worker.environment.worker_shutdown()
    outcome = await standing
    assert (outcome.batches, outcome.records, outcome.heartbeat, outcome.more) == (2, 3, False, False)
    assert not await worker.stands_by()


async def test_what_was_ready_before_is_delivered_first(crossing: Crossing, worker: Worker) -> None:
    await crossing.enqueue(RESULTS, b"{}")
    standing = await worker.stand_by()
    await worker.have_arrived(b"{}")
    worker.environment.worker_shutdown()
    assert (await standing).batches == 1


async def test_when_its_time_is_over_it_ends_and_nothing_was_sent(
    crossing: Crossing, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing_by, "STANDS_BY_SECONDS", 0.1)
    heard = (await crossing.receiver()).heard_at
    assert await worker.environment.run(worker.streams.drain_when_ready, RESULTS) == DrainOutcome()
    assert (await crossing.receiver()).heard_at == heard


async def test_where_its_process_stands_by_already_it_ends_at_once(crossing: Crossing, worker: Worker) -> None:
    standing = await worker.stand_by()
    async with asyncio.timeout(10):
        assert await in_short().run(worker.streams.drain_when_ready, RESULTS) == DrainOutcome()
    worker.environment.worker_shutdown()
    await standing


async def test_an_operators_pause_holds_results_back(crossing: Crossing, worker: Worker) -> None:
    worker.pause.is_on = True
    standing = await worker.stand_by()
    await crossing.enqueue(RESULTS, b"{}")
    assert await standing == DrainOutcome()
    assert await crossing.arrived() == []


async def test_a_link_that_does_not_answer_is_told_and_nobody_is_seen_to_stand_by(
    crossing: Crossing, worker: Worker
) -> None:
    standing = await worker.stand_by()
    await crossing.proxy.cut()
    await crossing.enqueue(RESULTS, b"{}")
    with pytest.raises(ApplicationError) as failed:
        await standing
    assert failed.value.type == "LinkUnavailable"
    assert not await worker.stands_by()


async def test_the_activity_that_follows_one_that_failed_waits_for_nothing(crossing: Crossing, worker: Worker) -> None:
    for batches in (1, 0):
        if batches:
            await crossing.enqueue(RESULTS, b"{}")
        outcome: DrainOutcome = await ActivityEnvironment().run(worker.streams.drain_when_ready, RESULTS)
        assert (outcome.batches, outcome.heartbeat) == (batches, False)
    await worker.have_arrived(b"{}")
