"""The pulling activity over a link that breaks off: what was pulled stays counted, and no poll outlives it."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.pulling import SPACING_SECONDS, WIDEST_SPACING_SECONDS, PullActivities, ranges
from configuration.cadences import DEFAULT_CADENCES
from exchange.errors import LinkUnavailable
from exchange.transfer.incoming import mark_applied
from exchange.transfer.outgoing import batches_after
from exchange.transfer.pulling import Pull
from exchange.transfer.receiving import Receiver
from exchange.transfer.sealing import Sealer
from exchange.wire.batch import to_wire
from exchange.wire.manifest import MAX_PAYLOAD_BYTES, MAX_RECORDS
from models.outcomes import PullProgress
from models.streams import BatchRef, StreamName
from monitoring.link_watch import LinkWatch
from tests.conftest import Networks

REQUESTS = StreamName.REQUESTS


@pytest.fixture(autouse=True)
def a_dead_link_ends_the_activity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.pulling.START_SECONDS", 0.0)


class BreakingLink:
    """Stands for the link: gives what the request network sealed, and then does ``after``."""

    def __init__(self, networks: Networks, after: Callable[[], Awaitable[None]]) -> None:
        self._networks = networks
        self._after = after

    async def pull(self, stream: StreamName, after: int, wait: float, most: int, *_more: Any) -> list[bytes]:
        async with self._networks.request.engine.connect() as connection:
            found = await batches_after(connection, stream, 1, after, most, MAX_RECORDS, MAX_PAYLOAD_BYTES, 2**23)
        if not found:
            await self._after()
        return [to_wire(each.manifest, each.signature, each.payload or b"") for each in found]

    async def send_receipt(self, _stream: StreamName, _receipt: Any) -> None:
        """Taken."""


async def seal(networks: Networks, *records: bytes) -> None:
    async with networks.request.engine.begin() as connection:
        await Sealer(networks.request.keys, "test").seal(connection, REQUESTS, records)


def pulling(
    networks: Networks, after: Callable[[], Awaitable[None]], executed: list[BatchRef], *under_way: BatchRef
) -> PullActivities:
    async def execute(batch: BatchRef) -> None:
        executed.append(batch)

    async def running() -> list[BatchRef]:
        return list(under_way)

    side = networks.response
    link: Any = BreakingLink(networks, after)
    pull = Pull(side.engine, Receiver(side.engine, side.keys, "test"), link)
    return PullActivities(pull, execute, running, LinkWatch(side.engine, DEFAULT_CADENCES))


def attempt(*details: Any) -> ActivityEnvironment:
    """Where an attempt runs that finds these details of the one before."""
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, heartbeat_details=list(details))
    return environment


async def away() -> None:
    raise LinkUnavailable("the request network does not answer")


async def test_an_attempt_goes_on_counting_where_the_one_before_broke_off(networks: Networks) -> None:
    beats: list[Any] = []
    executed: list[BatchRef] = []
    await seal(networks, b"{}", b"{}")
    first = attempt()
    first.on_heartbeat = lambda *details: beats.append(details)
    with pytest.raises(ApplicationError) as broken:
        await first.run(pulling(networks, away, executed).pull_requests, PullProgress(batches=5, records=50))
    assert broken.value.type == "LinkUnavailable"
    assert [batch.sequence for batch in executed] == [1]
    assert beats[-1] == (PullProgress(batches=6, records=52),)

    await seal(networks, b"{}")
    second = attempt(PullProgress(batches=6, records=52).model_dump())

    async def the_worker_stops() -> None:
        second.worker_shutdown()
        await asyncio.Event().wait()

    progress = await second.run(
        pulling(networks, the_worker_stops, executed).pull_requests, PullProgress(batches=5, records=50)
    )
    assert progress == PullProgress(batches=7, records=53)


async def test_beats_in_between_do_not_take_the_details_away(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestration.resident.HEARTBEAT_SECONDS", 0.01)
    beats: list[Any] = []
    environment = attempt({"batches": 3, "records": 30})
    environment.on_heartbeat = lambda *details: beats.append(details)
    several = asyncio.Event()

    async def the_worker_stops_after_some_beats() -> None:
        while len(beats) < 4:  # noqa: ASYNC110, the beats are what it waits for
            await asyncio.sleep(0.01)
        environment.worker_shutdown()
        await several.wait()

    await environment.run(pulling(networks, the_worker_stops_after_some_beats, []).pull_requests, PullProgress())
    assert set(map(str, beats)) == {"(PullProgress(batches=3, records=30),)"}


async def test_a_poll_ends_with_the_activity_that_made_it(networks: Networks) -> None:
    polling, ended = asyncio.Event(), asyncio.Event()

    async def for_ever() -> None:
        polling.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    environment = attempt()
    running = asyncio.create_task(environment.run(pulling(networks, for_ever, []).pull_requests, PullProgress()))
    await polling.wait()
    environment.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended.is_set()


async def test_what_waited_together_is_executed_together_also_when_it_is_started_again(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.pulling.LEFT_SECONDS", 0.0)
    for number in range(5):
        await seal(networks, b"{}", b"[%d]" % number)
    executed: list[BatchRef] = []
    with pytest.raises(ApplicationError):
        await attempt().run(pulling(networks, away, executed).pull_requests, PullProgress())
    together = BatchRef(stream=REQUESTS, epoch=1, sequence=5, records=10, first=1)
    assert executed == [together]
    await seal(networks, b"{}")
    executed.clear()
    with pytest.raises(ApplicationError):
        await attempt().run(pulling(networks, away, executed).pull_requests, PullProgress())
    lone = BatchRef(stream=REQUESTS, epoch=1, sequence=6, records=1)
    assert executed == [together, lone]
    assert [batch.workflow_id("execute") for batch in executed] == ["execute-requests-1.1-5", "execute-requests-1.6"]
    executed.clear()
    with pytest.raises(ApplicationError):
        await attempt().run(pulling(networks, away, executed, together).pull_requests, PullProgress())
    assert executed == [lone], "the others are under way"


async def test_a_batch_that_was_left_behind_does_not_wait_until_no_other_comes(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.pulling.LEFT_SECONDS", 0.0)
    monkeypatch.setattr("activities.pulling.LOOK_SECONDS", 0.001)
    executed: list[BatchRef] = []
    first, second = batch(1), batch(2)
    await seal(networks, b"{}")
    work = pulling(networks, away, [])
    with pytest.raises(ApplicationError):
        await attempt().run(work.pull_requests, PullProgress())
    await seal(networks, b"{}")
    work = pulling(networks, away, executed, first, second)
    running = work._running

    async def ends() -> Sequence[BatchRef]:
        """Both run at the first look. The execution of the first is terminated before the next look."""
        monkeypatch.setattr(work, "_running", lambda: asyncio.sleep(0, [second]))
        return await running()

    monkeypatch.setattr(work, "_running", ends)
    with pytest.raises(ApplicationError):
        await attempt().run(work.pull_requests, PullProgress())
    assert first in executed


def batch(sequence: int, records: int = 1, epoch: int = 1, first: int | None = None) -> BatchRef:
    return BatchRef(stream=REQUESTS, epoch=epoch, sequence=sequence, records=records, first=first)


@pytest.mark.parametrize(
    ("waiting", "running", "found"),
    [
        ([batch(1), batch(2), batch(3)], [], [batch(3, 3, first=1)]),
        ([batch(1), batch(2), batch(3)], [batch(2)], [batch(1), batch(3)]),
        ([batch(1), batch(2), batch(3)], [batch(3, first=2)], [batch(1)]),
        ([batch(1), batch(2)], [batch(2, epoch=2, first=1)], [batch(2, 2, first=1)]),
        ([batch(7), batch(1, epoch=2)], [], [batch(7), batch(1, epoch=2)]),
        ([batch(1, MAX_RECORDS), batch(2)], [], [batch(1, MAX_RECORDS), batch(2)]),
    ],
    ids=["together", "one runs", "a range runs", "of another epoch", "over an epoch", "too many"],
)
def test_batches_that_were_left_are_executed_in_few_ranges(
    waiting: list[BatchRef], running: list[BatchRef], found: list[BatchRef]
) -> None:
    assert ranges(waiting, running) == found


async def test_polls_come_less_often_while_much_is_not_executed(networks: Networks) -> None:
    work = pulling(networks, away, [])
    spacings, pulled = [], None
    for _ in range(12):
        await seal(networks, b"{}")
        pulled = await work._pull.once(REQUESTS, 0)
        assert pulled
        spacings.append(await work._spacing(pulled))
    steps = [SPACING_SECONDS * number for number in range(1, 11)]
    assert spacings == pytest.approx([*steps, WIDEST_SPACING_SECONDS, WIDEST_SPACING_SECONDS])
    async with networks.response.engine.begin() as connection:
        await mark_applied(connection, REQUESTS, 1, 11, first=2)
    assert pulled is not None
    assert await work._spacing(pulled) == pytest.approx(2 * SPACING_SECONDS)
