"""One user's records keep their order in one partition; what happens in one partition leaves the others alone."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from uuid import UUID

import pytest

from exchange.delivery import accept_receipt
from exchange.errors import Fork, Gap, StreamStopped
from exchange.messages import Receipt
from models.streams import GENESIS, BatchRef, Network
from storage.incoming import incoming_stream
from storage.outgoing import batch_after, lock_sealing, outgoing_stream
from storage.quarantine import list_quarantined
from storage.retention import delete_old
from storage.submissions import group_state, mark_group_fulfilled
from tests.activities.crossing import LINK, change, cross, one, result_record, table
from tests.api_request.serving import User
from tests.partitions.world import REQUESTS, RESULTS, USERS, PartitionedWorld
from tests.verification.world import found

Apps = Callable[[int], AbstractAsyncContextManager[str]]


async def test_a_users_requests_and_results_stay_in_one_partition_and_in_their_order(world: PartitionedWorld) -> None:
    asked: dict[User, list[UUID]] = {user: [] for user in USERS}
    for _ in range(3):
        for user in USERS:
            asked[user] += await world.ask(user)
    await world.carry_on()
    requests, results = await world.sealed(REQUESTS), await world.sealed(RESULTS)
    for number, user in enumerate(USERS):
        assert requests[REQUESTS.at(number)] == asked[user]
        assert results[RESULTS.at(number)] == asked[user]
        assert await world.statuses(user, asked[user]) == ["completed"] * 3
    assert found(await world.verify()) == set()


async def test_a_list_goes_to_one_partition_whole(world: PartitionedWorld) -> None:
    async with USERS[2].calls(world.url) as http:
        answer = await http.post("/v1/requests", json=[{"type": "rows"}] * 50)
    assert {stream: len(ids) for stream, ids in (await world.sealed(REQUESTS)).items()} == {REQUESTS.at(2): 50}
    assert answer.status_code == 202


async def test_the_sealer_of_one_partition_does_not_wait_for_that_of_another(world: PartitionedWorld) -> None:
    async with world.networks.request.engine.begin() as connection:
        await lock_sealing(connection, REQUESTS.at(1))
        waiting = asyncio.create_task(world.ask(USERS[1]))
        async with asyncio.timeout(20):
            for user in (USERS[0], USERS[2], USERS[3]):
                assert await world.ask(user)
        assert not waiting.done(), "nobody held the lock of its partition"
    assert await waiting


async def test_the_same_numbers_in_two_partitions_are_two_batches(world: PartitionedWorld) -> None:
    (first,), (second,) = [await world.ask(USERS[number]) for number in (1, 3)]
    groups = [BatchRef(stream=REQUESTS.at(number), epoch=1, sequence=1) for number in (1, 3)]
    assert [group.workflow_id("fulfil") for group in groups] == ["fulfil-requests.1-1.1", "fulfil-requests.3-1.1"]
    await world.pulled(REQUESTS.at(1))
    assert await world.statuses(USERS[1], [first]) == ["executing"]
    assert await world.statuses(USERS[3], [second]) == ["queued"]
    await world.carry_on()
    async with world.networks.request.engine.begin() as connection:
        assert (await group_state(connection, groups[0])).size == 1
        await mark_group_fulfilled(connection, groups[0])
    done = "SELECT partition, fulfilled_at IS NOT NULL FROM request_groups ORDER BY partition"
    assert await table(world.networks.request, done) == [(1, True), (3, False)]
    await change(world.networks.request, "UPDATE request_groups SET fulfilled_at = now() - interval '1 day'"
                 " WHERE partition = 1")  # fmt: skip
    async with world.networks.request.engine.begin() as connection:
        assert await delete_old(connection, Network.REQUEST, "results", 3600) == 1
    assert await world.statuses(USERS[3], [second]) == ["completed"]


async def test_a_cancellation_goes_the_way_of_its_request_whatever_its_users_way_is_now(
    world: PartitionedWorld, another_app: Apps
) -> None:
    (mine,) = await world.ask(USERS[3])
    async with another_app(1) as url, USERS[3].calls(url) as http:
        assert (await http.delete(f"/v1/requests/{mine}")).json()["status"] == "cancelled"
    assert await world.sealed(REQUESTS) == {REQUESTS.at(3): [mine, mine]}
    both = await world.pull.once(REQUESTS.at(3), 0, 10)
    assert both is not None
    await world.execute(both)
    assert await one(world.networks.response, "SELECT status FROM results") == "cancelled"
    await world.carry_on()
    assert found(await world.verify()) == set()


async def test_an_idempotency_key_stands_for_the_same_requests_in_every_partition(
    world: PartitionedWorld, another_app: Apps
) -> None:
    async with another_app(1) as url:
        answers = []
        for here in (world.url, url, world.url):
            async with USERS[3].calls(here) as http:
                answers.append(await http.post("/v1/requests", json={"type": "rows"}, headers={"Idempotency-Key": "k"}))
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_a_fork_stops_its_own_partition_alone(world: PartitionedWorld) -> None:
    await world.all_asked()
    await world.carry_on()
    await change(world.networks.request, "UPDATE incoming_streams SET hash = :other WHERE stream = 'results.2'",
                 other=bytes([7] * 32))  # fmt: skip
    asked = await world.all_asked()
    for stream in await world.in_use(REQUESTS):
        await world.pulled(stream)
    with pytest.raises(Fork):
        await world.delivery.drain(RESULTS.at(2), lambda _: None)
    for number in (0, 1, 3):
        await world.delivery.drain(RESULTS.at(number), lambda _: None)
        await world.apply(RESULTS.at(number))
        assert await world.statuses(USERS[number], asked[USERS[number]]) == ["completed"]
    with pytest.raises(StreamStopped):
        await world.delivery.drain(RESULTS.at(2), lambda _: None)
    assert await world.statuses(USERS[2], asked[USERS[2]]) == ["executing"]


async def test_a_receipt_covers_its_own_partition_alone(world: PartitionedWorld) -> None:
    await world.all_asked()
    async with world.networks.request.engine.begin() as connection:
        sealed = await batch_after(connection, REQUESTS.at(1), 1, 0)
        assert sealed is not None
        receipt = Receipt(link=LINK, stream=REQUESTS.at(1), epoch=1, received=1, applied=1, head=sealed.hash.hex(),
                          quarantined=0, key_id=world.networks.response.keys.key_id)  # fmt: skip
        await accept_receipt(connection, receipt.stream, receipt)
    delivered = "SELECT stream FROM sealed_batches WHERE delivered_at IS NOT NULL"
    assert await table(world.networks.request, delivered) == [("requests.1",)]
    with pytest.raises(Fork):
        async with world.networks.request.engine.begin() as connection:
            await accept_receipt(connection, REQUESTS.at(2), receipt)


async def test_a_gap_is_of_its_own_partition(world: PartitionedWorld) -> None:
    await world.all_asked(2)
    for number in (1, 2):
        await world.pulled(REQUESTS.at(number))
    wire = await world.link.pull(REQUESTS.at(3), 1, 0)
    assert wire is not None
    with pytest.raises(Gap):
        await world.pull.receiver.accept(REQUESTS.at(3), wire)
    async with world.networks.response.engine.begin() as connection:
        assert [(await incoming_stream(connection, REQUESTS.at(number))).sequence for number in (1, 2, 3)] == [2, 2, 0]


async def test_a_batch_of_another_partition_is_not_taken(world: PartitionedWorld) -> None:
    await world.all_asked()
    wire = await world.link.pull(REQUESTS.at(1), 0, 0)
    assert wire is not None
    with pytest.raises(Exception, match=r"requests\.1 was sent to test/requests\.2"):
        await world.pull.receiver.accept(REQUESTS.at(2), wire)


async def test_each_partition_has_a_quarantine_of_its_own(world: PartitionedWorld) -> None:
    unknown = UUID(int=7)
    for number in (1, 3):
        await cross(world.networks, RESULTS.at(number), [result_record(unknown)])
        await world.apply(RESULTS.at(number))
    async with world.networks.request.engine.begin() as connection:
        aside = await list_quarantined(connection, RESULTS.partitions())
        assert [(item.stream, item.name) for item in aside] == [(RESULTS.at(1), "1.1"), (RESULTS.at(3), "1.1")]
        assert (await incoming_stream(connection, RESULTS.at(3))).quarantined == 1
        assert (await incoming_stream(connection, RESULTS)).quarantined == 0


async def test_changing_from_one_to_four_to_two_partitions_loses_nothing(
    world: PartitionedWorld, another_app: Apps
) -> None:
    asked: dict[User, list[UUID]] = {user: [] for user in USERS}
    for partitions in (1, 4, 2):
        await world.respread(partitions)
        async with another_app(partitions) as url:
            for user in USERS:
                asked[user] += await world.ask(user, 2, url)
            for stream in (await world.in_use(REQUESTS))[:partitions]:
                await world.pulled(stream)  # what it made is sealed under the next number
    await world.carry_on()
    for user in USERS:
        assert await world.statuses(user, asked[user]) == ["completed"] * 6
    assert found(await world.verify()) == set()
    spread = await world.sealed(RESULTS)
    assert {stream: len(ids) for stream, ids in spread.items()} == {
        RESULTS: 8 + 2 + 4,
        RESULTS.at(1): 2 + 4,
        RESULTS.at(2): 2,
        RESULTS.at(3): 2,
    }
    async with world.networks.response.engine.begin() as connection:
        for stream in await world.in_use(RESULTS):
            head = await outgoing_stream(connection, stream)
            assert head.delivered == head.sequence
            assert head.hash != GENESIS
