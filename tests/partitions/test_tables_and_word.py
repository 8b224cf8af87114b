"""Rows that name batches of the same number in two partitions are told apart, and word goes to the right place."""

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from activities.announcing import ExportAnnouncer
from activities.quarantining import Quarantine
from api.request.dispatching import _together
from api.request.submitting import CommittedGroup
from chaos.census import take_census
from exchange.sealing import Sealer
from models.streams import BatchRef, Network
from storage.incoming import lock_applying
from storage.outgoing import append_to_outbox, record_delivering_run, take_results_back_from_outbox
from storage.partitions import begin_partitions, partitions_in_use, streams_in_use
from storage.result_store import ArrivedResult, store_results
from storage.submissions import (
    NewRequest,
    cancel_request,
    expire_overdue,
    fulfilled_groups,
    group_state,
    lead_groups,
    mark_group_started,
    store_submitted,
    unstarted_groups,
)
from tests.activities.crossing import LINK, cross, new_id, one, request_record, result_record, table
from tests.activities.test_announcing import SIGNAL, Counting
from tests.partitions.world import REQUESTS, RESULTS, USERS, PartitionedWorld


async def submitted(world: PartitionedWorld, number: int, deadline: datetime | None = None) -> tuple[UUID, BatchRef]:
    """A request of partition ``number`` and its group, which is its first batch."""
    side, request_id = world.networks.request, new_id()
    async with side.engine.begin() as connection:
        record = request_record(request_id, user_id=USERS[number].user_id)
        group = await Sealer(side.keys, LINK).seal(connection, REQUESTS.at(number), [record])
        now = datetime.now(UTC)
        asked = NewRequest(request_id, USERS[number].user_id, "rows", None, 5, b"{}", "http://x.test/", now, deadline)
        await store_submitted(connection, group, [asked])
    return request_id, group


async def test_results_complete_the_groups_of_their_own_partitions(world: PartitionedWorld) -> None:
    (first, group), (_, other) = await submitted(world, 1), await submitted(world, 3)
    assert (group.sequence, other.sequence) == (1, 1)
    come = BatchRef(stream=RESULTS.at(2), epoch=1, sequence=1)  # results are spread otherwise than their requests were
    async with world.networks.request.engine.begin() as connection:
        await store_results(connection, come, [ArrivedResult(1, first, "completed", b"{}")])
        assert [each.group for each in await fulfilled_groups(connection, come)] == [
            group.model_copy(update={"records": 0})
        ]
        assert await fulfilled_groups(connection, come.model_copy(update={"stream": RESULTS.at(3)})) == []
        states = [await group_state(connection, each) for each in (group, other)]
    assert [(state.size, state.outstanding, state.callbacks_due) for state in states] == [(1, 0, 1), (1, 1, 0)]


async def test_deadlines_close_requests_of_their_own_group(world: PartitionedWorld) -> None:
    past = datetime(2026, 1, 1, tzinfo=UTC)
    (mine, group), (_, other) = await submitted(world, 1, past), await submitted(world, 3, past)
    async with world.networks.request.engine.begin() as connection:
        assert await expire_overdue(connection, group) == 1
    assert await table(world.networks.request, "SELECT request_id FROM requests WHERE closed = 'expired'") == [(mine,)]
    assert other.sequence == group.sequence


async def test_groups_are_started_and_led_by_those_of_their_own_partition(world: PartitionedWorld) -> None:
    groups = [(await submitted(world, number))[1] for number in (0, 3, 0, 3)]
    together = list(_together([CommittedGroup(group, 0.0) for group in groups]))
    assert [[str(each.group) for each in some] for some in together] == [
        ["requests 1.1", "requests 1.2"],
        ["requests.3 1.1", "requests.3 1.2"],
    ]
    async with world.networks.request.engine.begin() as connection:
        assert len(await unstarted_groups(connection, -1)) == 4
        await lead_groups(connection, groups[1], [groups[3]])
        await mark_group_started(connection, groups[1])
        left = await unstarted_groups(connection, -1)
    assert [(str(group), group.records) for group in left] == [("requests 1.1", 1), ("requests 1.2", 1)]


async def test_a_request_ends_one_way_whichever_partition_its_result_comes_by(world: PartitionedWorld) -> None:
    mine, _ = await submitted(world, 1)
    engine = world.networks.request.engine

    async def cancel() -> bool:
        async with engine.begin() as connection:
            return await cancel_request(connection, USERS[1].user_id, mine)

    async with engine.begin() as applying:
        await lock_applying(applying, RESULTS.at(5))
        come = BatchRef(stream=RESULTS.at(5), epoch=1, sequence=1)
        await store_results(applying, come, [ArrivedResult(1, mine, "completed", b"{}")])
        cancelling = asyncio.create_task(cancel())
        async with asyncio.timeout(10):  # for ever, if it does not wait for the result that is being applied
            while not await one(world.networks.request, "SELECT count(*) FROM pg_locks WHERE NOT granted"):
                pass
    assert not await cancelling
    assert await one(world.networks.request, "SELECT closed FROM requests") is None


async def test_who_waits_for_a_partition_is_woken_by_its_own_batches(world: PartitionedWorld) -> None:
    polling = asyncio.create_task(world.link.pull(REQUESTS.at(3), 0, 25))
    await world.ask(USERS[0])
    assert not polling.done()
    await world.ask(USERS[3])
    async with asyncio.timeout(10):
        assert await polling


async def test_what_was_in_use_stays_in_use_when_fewer_are_wanted(world: PartitionedWorld) -> None:
    async with world.networks.response.engine.begin() as connection:
        assert await begin_partitions(connection, RESULTS, 2) == 4, "the world began with four"
        assert await begin_partitions(connection, RESULTS, 6) == 6
        assert await partitions_in_use(connection, RESULTS) == RESULTS.partitions(6)
        assert await streams_in_use(connection) == ["settings", "requests", *RESULTS.partitions(6), "health"]


async def test_one_partition_brings_no_other_into_use(world: PartitionedWorld) -> None:
    async with world.networks.request.engine.begin() as connection:
        assert await begin_partitions(connection, REQUESTS, 1) == 1
        assert await table(world.networks.request, "SELECT stream FROM outgoing_streams") == []


async def test_a_run_that_has_begun_with_any_partition_hears_of_more(world: PartitionedWorld) -> None:
    side, temporal = world.networks.response, Counting()
    temporal.running = True
    announcer = ExportAnnouncer(temporal, side.engine)
    async with side.engine.begin() as connection:
        await record_delivering_run(connection, RESULTS.at(3), "run")
    await announcer.results_are_ready()
    assert temporal.calls == ["describe", SIGNAL]


async def test_a_run_that_was_triggered_is_told_once_it_has_looked_into_any_partition(world: PartitionedWorld) -> None:
    side, temporal = world.networks.response, Counting()
    announcer = ExportAnnouncer(temporal, side.engine)
    await announcer.results_are_ready()
    async with side.engine.begin() as connection:
        await record_delivering_run(connection, RESULTS.at(3), "the run that was triggered")
    temporal.running = True
    await announcer.results_are_ready()
    assert temporal.calls[-1] == SIGNAL, "what got ready in that partition since would wait for the next tick"


async def test_the_census_counts_the_records_of_every_partition(world: PartitionedWorld) -> None:
    asked = await world.all_asked(2)
    await world.carry_on()
    census = await take_census({"request": world.networks.request.url, "response": world.networks.response.url})
    every = {str(item): 1 for ids in asked.values() for item in ids}
    assert len(census.places) == 6
    assert all(dict(counted) == every for counted in census.places.values())


async def test_a_dropped_request_of_a_partition_is_answered(world: PartitionedWorld) -> None:
    bad = request_record(new_id()).replace(b'"priority"', b'"p"').replace(b'"type":"rows"', b'"type":"NOT ONE"')
    batch = await cross(world.networks, REQUESTS.at(3), [bad])
    await world.execute(batch)
    kept = Quarantine(world.networks.response.engine, Network.RESPONSE)
    dropped = await kept.drop(REQUESTS.at(3), 1, 1, "tests", "a test")
    assert dropped.stream is REQUESTS.at(3)
    found: Any = await table(world.networks.response, "SELECT stream FROM outbox")
    assert found == [("results",)], "the partition that is drained whatever is configured"


async def test_results_taken_back_are_taken_from_every_partitions_outbox(world: PartitionedWorld) -> None:

    mine = new_id()
    async with world.networks.response.engine.begin() as connection:
        for stream in (RESULTS, RESULTS.at(2)):
            await append_to_outbox(connection, stream, [result_record(mine), result_record(new_id())])
        assert await take_results_back_from_outbox(connection, [mine]) == 2
