"""Batches that a worker stored and did not live to execute: they are found, and started in few ranges."""

from collections.abc import Sequence
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from activities import pulling
from activities.pulling import PullActivities, ranges
from configuration.cadences import DEFAULT_CADENCES
from exchange.errors import LinkUnavailable, Malformed
from exchange.transfer.incoming import mark_applied
from exchange.transfer.pulling import Pull
from exchange.transfer.receiving import Receiver
from exchange.wire.manifest import MAX_RECORDS
from models.outcomes import PullProgress
from models.streams import BatchRef, StreamName
from monitoring.link_watch import LinkWatch
from tests.activities.crossing import LINK, change, cross, new_id, request_record
from tests.activities.residents import run_of
from tests.conftest import Networks

REQUESTS = StreamName.REQUESTS


def batch(sequence: int, records: int = 1, epoch: int = 1, first: int | None = None) -> BatchRef:
    return BatchRef(stream=REQUESTS, epoch=epoch, sequence=sequence, records=records, first=first)


@pytest.mark.parametrize(
    ("waiting", "running", "found"),
    [
        ([], [], []),
        ([batch(7)], [], [batch(7)]),
        ([batch(1, 2), batch(2, 3), batch(3, 4)], [], [batch(3, 9, first=1)]),
        ([batch(1), batch(2), batch(4), batch(5)], [], [batch(2, 2, first=1), batch(5, 2, first=4)]),
        ([batch(8), batch(9), batch(1, epoch=2)], [], [batch(9, 2, first=8), batch(1, epoch=2)]),
        ([batch(1), batch(2, MAX_RECORDS), batch(3)], [], [batch(1), batch(2, MAX_RECORDS), batch(3)]),
        ([batch(1), batch(2, MAX_RECORDS - 1), batch(3)], [], [batch(2, MAX_RECORDS, first=1), batch(3)]),
        ([batch(n) for n in range(1, 7)], [batch(3), batch(5, first=4)], [batch(2, 2, first=1), batch(6)]),
        ([batch(1), batch(2)], [batch(5, first=1)], []),
        ([batch(1), batch(2)], [batch(2, epoch=2, first=1)], [batch(2, 2, first=1)]),
    ],
)
def test_what_waits_and_does_not_run_is_started_in_few_ranges(
    waiting: list[BatchRef], running: list[BatchRef], found: list[BatchRef]
) -> None:
    assert ranges(waiting, running) == found


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulling, "START_SECONDS", 0.0)


class Worker:
    """Pulls over a link that is dead: what was left is started all the same."""

    def __init__(self, networks: Networks, running: Sequence[BatchRef] | None) -> None:
        side = networks.response
        self.running = running
        self.started: list[BatchRef] = []
        link: Any = self
        pull = Pull(side.engine, Receiver(side.engine, side.keys, LINK), link)
        self.work = PullActivities(pull, self.start, self.running_executions, LinkWatch(side.engine, DEFAULT_CADENCES))

    async def start(self, batches: BatchRef) -> None:
        self.started.append(batches)

    async def running_executions(self) -> Sequence[BatchRef]:
        assert self.running is not None, "Temporal is asked only where something was left"
        return self.running

    async def send_receipt(self, *_: Any) -> None:
        raise LinkUnavailable("the request network does not answer")

    pull = send_receipt

    async def look(self) -> list[BatchRef]:
        with pytest.raises(ApplicationError):
            await run_of("pull-requests").run(self.work.pull_requests, PullProgress())
        return self.started


async def stored(networks: Networks, count: int) -> None:
    """Batches of requests that were stored a while ago."""
    for _ in range(count):
        await cross(networks, REQUESTS, [request_record(new_id())])
    await change(networks.response, "UPDATE received_batches SET received_at = now() - interval '6 s'")


async def test_what_a_dead_worker_left_is_started_together(networks: Networks) -> None:
    await stored(networks, 4)
    assert await Worker(networks, []).look() == [batch(4, 4, first=1)]


async def test_what_runs_or_is_executed_is_not_started_again(networks: Networks) -> None:
    await stored(networks, 4)
    async with networks.response.engine.begin() as connection:
        await mark_applied(connection, REQUESTS, 1, 4)
    assert await Worker(networks, [batch(2)]).look() == [batch(1), batch(3)]


async def test_what_has_just_been_stored_is_left_to_whoever_stored_it(networks: Networks) -> None:
    await stored(networks, 1)
    await cross(networks, REQUESTS, [request_record(new_id())])
    assert await Worker(networks, []).look() == [batch(1)]
    async with networks.response.engine.begin() as connection:
        await mark_applied(connection, REQUESTS, 1, 1)
    assert await Worker(networks, None).look() == []


async def test_a_link_that_is_away_at_the_start_costs_no_attempt(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both networks may be starting at the same time."""
    monkeypatch.setattr(pulling, "START_SECONDS", 10.0)
    await stored(networks, 1)
    errors = [LinkUnavailable("not yet"), LinkUnavailable("not yet"), Malformed("the other side answers")]

    async def send_receipt(*_: Any) -> None:
        raise errors.pop(0)

    worker = Worker(networks, [batch(1)])
    monkeypatch.setattr(worker, "send_receipt", send_receipt)
    with pytest.raises(ApplicationError) as raised:
        await run_of("pull-requests").run(worker.work.pull_requests, PullProgress())
    assert raised.value.type == "Malformed"
    assert errors == []
