"""A run of `ExportResults` delivers what is ready, then what becomes ready, until the next run waits or a pause."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import streams
from activities.streams import StreamActivities
from configuration.cadences import DEFAULT_CADENCES
from exchange.transfer import sealing
from exchange.transfer.delivery import Delivery
from models.outcomes import DrainOutcome
from models.streams import StreamName
from monitoring.link_watch import LinkWatch
from orchestration import resident
from schedules.interval import OwnedInterval
from storage.notices import NotificationListener
from tests.activities.residents import run_of
from tests.link.conftest import Crossing
from tests.listening import eventually, listening

RESULTS = StreamName.RESULTS


class Interval(OwnedInterval):
    """As Temporal's answers leave it; `tests.schedules.test_interval` has Temporal answer."""

    def __init__(self) -> None:
        self.is_paused = False
        self.is_over = False
        self.ended = asyncio.Event()

    def pause(self) -> None:
        self.is_paused = True
        self.ended.set()

    def end(self) -> None:
        self.is_over = True
        self.ended.set()


class Worker:
    """Runs `deliver_until_next_tick`, each time as another attempt."""

    def __init__(self, crossing: Crossing, listener: NotificationListener, follows: bool = True) -> None:
        self.crossing = crossing
        self.interval = Interval()
        self.during_push: Callable[[], Awaitable[None]] | None = None
        link: Any = self
        response = crossing.networks.response
        self.streams = StreamActivities(
            Delivery(response.engine, crossing.delivery.sealer, link),
            LinkWatch(response.engine, DEFAULT_CADENCES),
            listener,
            self.owned,
            follows,
        )
        self.environment = ActivityEnvironment()

    @asynccontextmanager
    async def owned(self) -> AsyncIterator[OwnedInterval]:
        yield self.interval

    async def push(self, stream: StreamName, wire: bytes) -> Any:
        """The real link; a test may do something while the first batch is on its way."""
        during, self.during_push = self.during_push, None
        if during is not None:
            await during()
        return await self.crossing.client.push(stream, wire)

    async def heartbeat(self, stream: StreamName, heartbeat: Any) -> Any:
        return await self.crossing.client.heartbeat(stream, heartbeat)

    def start(self, *details: Any, attempt: int = 1) -> "asyncio.Task[DrainOutcome]":
        self.environment = run_of("export-results", *details, attempt=attempt)
        return asyncio.create_task(self.run())

    async def run(self) -> DrainOutcome:
        outcome: DrainOutcome = await self.environment.run(self.streams.deliver_until_next_tick, RESULTS)
        return outcome

    async def have_arrived(self, *bodies: bytes) -> None:
        async def arrived() -> bool:
            return await self.crossing.arrived() == list(bodies)

        await eventually(arrived)

    async def says_that_it_lives(self) -> None:
        """The heartbeat of a run that found nothing to send."""

        async def heard() -> bool:
            return (await self.crossing.receiver()).heard_at is not None

        await eventually(heard)


@pytest.fixture
async def listener(crossing: Crossing, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NotificationListener]:
    monkeypatch.setattr("storage.notices.LISTENING_POLL_SECONDS", 600.0)  # a run looks at a notice only
    async with listening(crossing.networks.response) as listener:
        yield listener


@pytest.fixture
def worker(crossing: Crossing, listener: NotificationListener) -> Worker:
    return Worker(crossing, listener)


async def test_what_is_ready_and_what_becomes_ready_is_delivered_at_once(crossing: Crossing, worker: Worker) -> None:
    await crossing.enqueue(RESULTS, b"1")
    running = worker.start()
    await worker.have_arrived(b"1")
    await crossing.enqueue(RESULTS, b"2")
    await worker.have_arrived(b"1", b"2")
    await crossing.enqueue(RESULTS, b"3", b"4")
    await worker.have_arrived(b"1", b"2", b"3", b"4")
    assert not running.done()
    worker.interval.end()
    outcome = await running
    assert (outcome.batches, outcome.records, outcome.heartbeat, outcome.unfinished) == (3, 4, False, False)


async def test_a_run_that_finds_nothing_says_once_that_it_lives(
    crossing: Crossing, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = worker.start()
    await worker.says_that_it_lives()
    beats = 0

    async def counted(*_: Any) -> Any:
        nonlocal beats
        beats += 1

    monkeypatch.setattr(worker, "heartbeat", counted)
    await crossing.enqueue(RESULTS, b"1")
    await worker.have_arrived(b"1")
    worker.interval.end()
    assert (await running).batches == 1
    assert beats == 0


@pytest.mark.parametrize("how", [Interval.end, Interval.pause])
async def test_it_ends_when_the_next_run_waits_or_an_operator_pauses(
    crossing: Crossing, worker: Worker, how: Callable[[Interval], None]
) -> None:
    running = worker.start()
    await worker.says_that_it_lives()
    how(worker.interval)
    async with asyncio.timeout(10):
        outcome = await running
    assert (outcome.batches, outcome.unfinished) == (0, False)
    await crossing.enqueue(RESULTS, b"1")
    assert await crossing.arrived() == []


@pytest.mark.parametrize("how", [Interval.end, Interval.pause])
async def test_in_the_midst_of_a_backlog_it_ends_after_the_batch_that_is_on_its_way(
    crossing: Crossing, worker: Worker, monkeypatch: pytest.MonkeyPatch, how: Callable[[Interval], None]
) -> None:
    monkeypatch.setattr(sealing, "MAX_RECORDS", 1)
    await crossing.enqueue(RESULTS, b"1", b"2", b"3")

    async def interrupt() -> None:
        how(worker.interval)

    worker.during_push = interrupt
    outcome = await worker.start()
    assert (outcome.batches, outcome.unfinished) == (1, False)
    assert await crossing.arrived() == [b"1"]


async def test_with_the_next_run_waiting_already_a_run_delivers_what_is_ready_and_ends(
    crossing: Crossing, worker: Worker
) -> None:
    worker.interval.end()
    await crossing.enqueue(RESULTS, b"1")
    outcome = await worker.start()
    assert (outcome.batches, outcome.unfinished) == (1, False)


@pytest.mark.parametrize("how", [Interval.end, Interval.pause])
async def test_another_attempt_of_a_run_that_is_over_or_paused_delivers_nothing(
    crossing: Crossing, worker: Worker, how: Callable[[Interval], None]
) -> None:
    how(worker.interval)
    await crossing.enqueue(RESULTS, b"1")
    outcome = await worker.start(DrainOutcome(batches=3).model_dump(), attempt=2)
    assert (outcome.batches, outcome.unfinished) == (3, False)
    assert await crossing.arrived() == []


async def test_triggered_while_paused_it_delivers_what_is_ready_once(crossing: Crossing, worker: Worker) -> None:
    worker.interval.pause()
    await crossing.enqueue(RESULTS, b"1")

    async def another_becomes_ready() -> None:
        await crossing.enqueue(RESULTS, b"2")

    worker.during_push = another_becomes_ready
    outcome = await worker.start()
    assert (outcome.batches, outcome.in_spite_of_pause, outcome.unfinished) == (1, True, False)
    assert await crossing.arrived() == [b"1"]
    again = await worker.start(outcome.model_dump(), attempt=2)
    assert again.batches == 2, "an attempt that died goes on in spite of the pause"


async def test_a_worker_that_stops_leaves_the_run_unfinished(crossing: Crossing, worker: Worker) -> None:
    await crossing.enqueue(RESULTS, b"1")
    running = worker.start()
    await worker.have_arrived(b"1")
    worker.environment.worker_shutdown()
    async with asyncio.timeout(10):
        outcome = await running
    assert (outcome.batches, outcome.unfinished) == (1, True)


async def test_after_its_round_another_activity_carries_the_run_on(
    crossing: Crossing, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (resident, streams):
        monkeypatch.setattr(module, "ROUND_SECONDS", 0.2)
    outcome = await worker.start()
    assert (outcome.heartbeat, outcome.unfinished) == (True, True)


async def test_without_following_only_what_was_ready_at_the_tick_leaves(
    crossing: Crossing, listener: NotificationListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "MAX_RECORDS", 2)
    worker = Worker(crossing, listener, follows=False)
    await crossing.enqueue(RESULTS, b"1", b"2", b"3")

    async def more_become_ready() -> None:
        await crossing.enqueue(RESULTS, b"4", b"5")

    worker.during_push = more_become_ready
    outcome = await worker.start()
    assert (outcome.batches, outcome.records, outcome.unfinished) == (2, 3, False)
    assert await crossing.arrived() == [b"1", b"2", b"3"]
    assert (await worker.start()).records == 2


async def test_a_link_that_does_not_answer_is_told_and_the_next_attempt_goes_on(
    crossing: Crossing, worker: Worker
) -> None:
    beats: list[tuple[Any, ...]] = []
    await crossing.enqueue(RESULTS, b"1")
    running = worker.start()
    worker.environment.on_heartbeat = lambda *details: beats.append(details)
    await worker.have_arrived(b"1")
    await crossing.proxy.cut()
    await crossing.enqueue(RESULTS, b"2")
    with pytest.raises(ApplicationError) as failed:
        await running
    assert failed.value.type == "LinkUnavailable"
    (before,) = beats[-1]
    assert (before.batches, before.records) == (1, 1)
    crossing.proxy.heal()
    running = worker.start(before.model_dump(), attempt=2)
    await worker.have_arrived(b"1", b"2")
    worker.interval.end()
    outcome = await running
    assert (outcome.batches, outcome.records) == (2, 2)
