"""Requests that were set aside in the response network: executed after a retry, answered as failed when dropped."""

import asyncio
from typing import Any

import orjson
import pytest
from temporalio.testing import ActivityEnvironment

from activities.pulling import PullActivities
from configuration.cadences import DEFAULT_CADENCES
from exchange.transfer.incoming import unapplied
from exchange.transfer.pulling import Pull
from exchange.transfer.quarantine_store import quarantine
from exchange.transfer.receiving import Receiver
from models.outcomes import PullProgress
from models.streams import BatchRef, Network, StreamName
from monitoring.link_watch import LinkWatch
from tests.activities.crossing import LINK, change, cross, new_id, one, request_record, table
from tests.quarantine.conftest import World

REQUESTS = StreamName.REQUESTS
RESULTS_OF = "SELECT request_id, status, reason FROM results ORDER BY request_id"


async def set_aside(world: World, record: int, body: bytes) -> None:
    """As an earlier version did, that could not read what this one can."""
    async with world.networks.response.engine.begin() as connection:
        batch = BatchRef(stream=REQUESTS, epoch=1, sequence=1)
        await quarantine(connection, batch, [(record, body, "not a request: of a newer version")])


async def left(world: World) -> list[BatchRef]:
    async with world.networks.response.engine.connect() as connection:
        return await unapplied(connection, REQUESTS)


async def test_a_request_taken_by_a_retry_is_executed_once_and_its_batch_with_it(world: World) -> None:
    ids = sorted([new_id(), new_id()])
    bodies = [request_record(request_id) for request_id in ids]
    batch = await cross(world.networks, REQUESTS, bodies)
    await set_aside(world, 1, bodies[0])
    await world.apply(batch)
    assert await table(world.networks.response, RESULTS_OF) == [(ids[1], "completed", None)], "left to the operator"
    [outcome] = await world.quarantine(Network.RESPONSE).retry(REQUESTS, 1, 1)
    assert outcome.refused is None
    assert await left(world) == [batch], "to be executed"
    await world.apply(batch)
    assert await table(world.networks.response, RESULTS_OF) == [(each, "completed", None) for each in ids]
    assert await left(world) == []
    assert len(await table(world.networks.response, "SELECT id FROM outbox")) == 2, (
        "the first result stays the only one"
    )
    assert await world.count_in_receipt(REQUESTS) == 0
    assert await world.audit(REQUESTS) == (2, 0, 0)


async def test_a_batch_whose_payload_is_past_retention_is_executed_after_a_retry_all_the_same(world: World) -> None:
    request_id = new_id()
    body = request_record(request_id)
    batch = await cross(world.networks, REQUESTS, [body])
    await set_aside(world, 1, body)
    await world.apply(batch)
    await change(world.networks.response, "UPDATE received_batches SET payload = NULL")
    await world.quarantine(Network.RESPONSE).retry(REQUESTS, 1, 1)
    await world.apply(batch)
    assert await table(world.networks.response, RESULTS_OF) == [(request_id, "completed", None)]


async def test_what_is_no_request_stays(world: World) -> None:
    await world.apply(await cross(world.networks, REQUESTS, [b"torn", request_record(new_id())]))
    [outcome] = await world.quarantine(Network.RESPONSE).retry(REQUESTS, 1, 1)
    assert str(outcome.refused).startswith("not a request: ")
    assert await left(world) == []
    assert await world.count_in_receipt(REQUESTS) == 1


async def test_an_id_that_is_taken_is_applied_only_where_the_record_says_the_same(world: World) -> None:
    twice = new_id()
    first, same, other = request_record(twice), request_record(twice), request_record(twice, params={"n": 1})
    await world.apply(await cross(world.networks, REQUESTS, [first, same, other]))
    outcomes = await world.quarantine(Network.RESPONSE).retry_all(REQUESTS)
    assert {item.record: item.refused for item in outcomes} == {
        2: None,
        3: "another request with this id is here: params differ",
    }
    assert await left(world) == [], "it has its result: nothing is to be executed"
    assert await table(world.networks.response, RESULTS_OF) == [(twice, "completed", None)]


async def test_a_cancellation_is_taken(world: World) -> None:
    request_id = new_id()
    body = request_record(request_id, kind="cancellation")
    batch = await cross(world.networks, REQUESTS, [body])
    await set_aside(world, 1, body)
    await world.apply(batch)
    [outcome] = await world.quarantine(Network.RESPONSE).retry(REQUESTS, 1, 1)
    assert outcome.refused is None
    assert await table(world.networks.response, "SELECT request_id FROM cancellations") == [(request_id,)]


async def test_a_dropped_request_is_answered_as_failed_so_that_nobody_waits_for_ever(world: World) -> None:
    poison = new_id()
    await world.apply(await cross(world.networks, REQUESTS, [request_record(poison, priority=11)]))
    await world.quarantine(Network.RESPONSE).drop(REQUESTS, 1, 1, "olga", "a secret of ours")
    assert await table(world.networks.response, RESULTS_OF) == [(poison, "failed", "dropped")]
    [(body,)] = await table(world.networks.response, "SELECT body FROM outbox WHERE stream = 'results'")
    answer = orjson.loads(body)
    assert (answer["request_id"], answer["status"], answer["error"]["reason"]) == (str(poison), "failed", "dropped")
    assert b"secret" not in body, "an operator's reason never crosses"


@pytest.mark.parametrize("body", [b"torn", b"[]", b'{"request_id":"x"}', b'{"kind":"cancellation"}'])
async def test_what_names_no_request_is_dropped_without_an_answer(world: World, body: bytes) -> None:
    await world.apply(await cross(world.networks, REQUESTS, [body]))
    await world.quarantine(Network.RESPONSE).drop(REQUESTS, 1, 1, "olga", "garbage")
    assert await table(world.networks.response, RESULTS_OF) == []
    assert await world.count_in_receipt(REQUESTS) == 0


async def test_dropping_a_second_record_of_a_request_leaves_its_result_alone(world: World) -> None:
    twice = new_id()
    await world.apply(await cross(world.networks, REQUESTS, [request_record(twice), request_record(twice, priority=1)]))
    await world.quarantine(Network.RESPONSE).drop(REQUESTS, 1, 2, "olga", "sent twice")
    assert await table(world.networks.response, RESULTS_OF) == [(twice, "completed", None)]


async def test_the_pull_loop_executes_what_a_retry_took_up_again_though_nothing_new_comes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = request_record(new_id())
    batch = await cross(world.networks, REQUESTS, [body])
    await set_aside(world, 1, body)
    await world.apply(batch)
    started: asyncio.Queue[BatchRef] = asyncio.Queue()
    side = world.networks.response

    class Quiet:
        """Stands for a link over which nothing comes; at its first poll an operator retries."""

        polls = 0

        async def pull(self, *_: Any) -> list[bytes]:
            self.polls += 1
            if self.polls == 1:
                await world.quarantine(Network.RESPONSE).retry(REQUESTS, 1, 1)
            return []

        async def send_receipt(self, *_: Any) -> None:
            pass

    monkeypatch.setattr("activities.pulling.LEFT_SECONDS", 0.0)
    link: Any = Quiet()

    async def none_running() -> list[BatchRef]:
        return []

    pull = Pull(side.engine, Receiver(side.engine, side.keys, LINK), link)
    pulling = PullActivities(pull, started.put, none_running, LinkWatch(side.engine, DEFAULT_CADENCES))
    round_ = asyncio.create_task(ActivityEnvironment().run(pulling.pull_requests, PullProgress()))
    try:
        assert await asyncio.wait_for(started.get(), 20) == batch
    finally:
        round_.cancel()
        await asyncio.wait((round_,))
    assert await one(side, "SELECT count(*) FROM requests") == 1
