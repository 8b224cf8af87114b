"""Verifying names exactly what differs, and nothing that does not."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import pytest

from exchange.audit.summaries import Audit, Finding, RangeDigest, Side, StreamHead
from exchange.audit.verifier import Verifier
from exchange.carriers.http import LinkClient
from exchange.errors import LinkUnavailable
from exchange.recovery.remote_side import RemoteSide
from exchange.wire.http_signature import HttpSigner
from models.streams import Network, StreamName
from monitoring.retention import delete_old, empty_batches
from tests.activities.crossing import LINK, USER, change, new_id, one
from tests.api_request.serving import setting
from tests.verification.world import REQUESTS, RESULTS, World, found

T = TypeVar("T")
THREE_ROWS = """
    INSERT INTO results (request_id, user_id, status, body, epoch, sequence)
    VALUES (:id, :user, 'completed', '{}', 1, 1)
"""


async def test_both_networks_agree_after_a_round_trip(world: World) -> None:
    await world.publish(setting("colour", "blue"))
    for _ in range(3):
        await world.answered()
    reports = {report.stream: report for report in await world.verify()}
    assert found(list(reports.values())) == set()
    results = reports[RESULTS]
    assert (results.sender.record, results.receiver.record, results.in_flight) == (9, 9, 0)
    assert [audit.agree for audit in results.audits.values()] == [9, 9]
    assert [audit.agree for audit in reports[REQUESTS].audits.values()] == [9, 9]


async def test_one_row_removed_one_byte_changed_one_row_added_are_exactly_the_three_that_are_named(
    world: World,
) -> None:
    gone, changed, _ = await world.answered()
    await world.answered()
    added = new_id()
    side = world.networks.request
    await change(side, "DELETE FROM results WHERE request_id = :id", id=gone)
    await change(
        side, "UPDATE results SET body = set_byte(body, 70, get_byte(body, 70) # 1) WHERE request_id = :id", id=changed
    )
    await change(side, THREE_ROWS, id=added, user=USER)
    assert found(await world.verify()) == {
        ("request", "results", "missing", str(gone)),
        ("request", "results", "different", str(changed)),
        ("request", "results", "extra", str(added)),
    }


@pytest.mark.parametrize("sequence", [0, 77])
async def test_a_row_that_names_a_batch_which_never_came_is_extra(world: World, sequence: int) -> None:
    await world.answered()
    added = new_id()
    statement = THREE_ROWS.replace("1, 1)", f"1, {sequence})")
    await change(world.networks.request, statement, id=added, user=USER)
    assert found(await world.verify()) == {("request", "results", "extra", str(added))}


async def test_a_result_given_to_another_user_is_different(world: World) -> None:
    first, *_ = await world.answered()
    await change(world.networks.request, "UPDATE results SET user_id = :id WHERE request_id = :r", id=new_id(), r=first)
    assert found(await world.verify()) == {("request", "results", "different", str(first))}


@pytest.mark.parametrize("network", list(Network))
async def test_a_request_lost_changed_or_added_in_either_network_is_named(world: World, network: Network) -> None:
    gone, changed, _ = await world.answered()
    side = world.networks.request if network is Network.REQUEST else world.networks.response
    added = new_id()
    await change(
        side,
        "INSERT INTO requests (request_id, user_id, type, priority, params, submitted_at, epoch, sequence)"
        " VALUES (:id, :id, 'rows', 5, '{}', now(), 1, 1)",
        id=added,
    )
    await change(side, "DELETE FROM requests WHERE request_id = :id", id=gone)
    await change(side, "UPDATE requests SET params = '[]' WHERE request_id = :id", id=changed)
    assert found(await world.verify()) == {
        (network.value, "requests", "missing", str(gone)),
        (network.value, "requests", "different", str(changed)),
        (network.value, "requests", "extra", str(added)),
    }


async def test_a_result_of_the_response_network_that_differs_or_was_never_sealed_is_named(world: World) -> None:
    gone, changed, _ = await world.answered()
    side, added = world.networks.response, new_id()
    await change(side, "DELETE FROM results WHERE request_id = :id", id=gone)
    await change(side, "UPDATE results SET body = body || ' ' WHERE request_id = :id", id=changed)
    await change(
        side, "INSERT INTO results (request_id, type, status, returned, body) VALUES (:id, '', 'x', 0, '{}')", id=added
    )
    assert found(await world.verify()) == {
        ("response", "results", "missing", str(gone)),
        ("response", "results", "different", str(changed)),
        ("response", "results", "extra", str(added)),
    }


async def test_a_batch_that_is_gone_altered_or_whose_payload_is_altered_is_found_among_many(world: World) -> None:
    for _ in range(8):
        await world.answered(1)
    side = world.networks.request
    batch = "WHERE stream = 'results' AND sequence = :n"
    await change(side, f"DELETE FROM received_batches {batch}", n=3)
    await change(
        side, f"UPDATE received_batches SET payload = set_byte(payload, 12, get_byte(payload, 12) # 1) {batch}", n=5
    )
    await change(side, f"UPDATE received_batches SET manifest = manifest || ' ' {batch}", n=8)
    assert found(await world.verify()) == {
        ("request", "received_batches", "missing", "3"),
        ("request", "received_batches", "different", "5"),
        ("request", "received_batches", "different", "8"),
    }


async def test_a_snapshot_that_shows_something_else_than_was_sealed_is_found(world: World) -> None:
    await world.publish(setting("colour", "blue"))
    await world.publish(setting("colour", "red"))
    await change(world.networks.request, "UPDATE snapshots SET records = records || ' '")
    assert found(await world.verify()) == {("request", "snapshots", "different", "2")}
    await change(world.networks.request, "UPDATE received_batches SET payload = NULL, applied_at = '2020-01-01'")
    assert found(await world.verify()) == {("request", "snapshots", "different", "2")}, "by the sender's own digest"


async def test_what_has_not_arrived_or_is_not_applied_is_in_flight_and_no_difference(world: World) -> None:
    await world.answered()
    await world.submitted()
    batch = await world.pull.once(REQUESTS, 0)
    await world.submitted()
    assert batch is not None
    reports = {report.stream: report for report in await world.verify()}
    assert found(list(reports.values())) == set()
    assert reports[REQUESTS].in_flight == 6, "three pulled and not executed, three not pulled"
    await world.execute(batch)
    assert (await world.verify())[2].in_flight == 3, "not sealed"
    await world.delivery.drain(RESULTS, lambda _: None)
    reports = {report.stream: report for report in await world.verify()}
    assert (found(list(reports.values())), reports[RESULTS].in_flight) == (set(), 3), "not applied"


async def test_a_receiver_that_is_ahead_of_its_sender_tells_of_a_restored_backup(world: World) -> None:
    await world.answered()
    await world.answered()
    await change(
        world.networks.response,
        "UPDATE outgoing_streams SET sequence = 1, hash = (SELECT hash FROM sealed_batches WHERE"
        " sealed_batches.stream = 'results' AND sealed_batches.sequence = 1) WHERE stream = 'results'",
    )
    assert ("request", "received_batches", "extra", "2") in found(await world.verify())


async def test_what_retention_took_is_counted_and_is_no_difference(world: World) -> None:
    await world.answered(hours_ago=2)
    past = "now() - interval '2 hours'"
    for side in (world.networks.request, world.networks.response):
        await change(side, f"UPDATE sealed_batches SET delivered_at = {past}, sealed_at = {past}")
        await change(side, f"UPDATE received_batches SET applied_at = {past}")
    await change(world.networks.request, f"UPDATE request_groups SET fulfilled_at = {past}")
    await change(world.networks.response, f"UPDATE results SET created_at = {past}")
    async with world.networks.request.engine.begin() as connection:
        assert await delete_old(connection, Network.REQUEST, "results", 3600) == 3
    counted = {report.stream: report for report in await world.verify()}
    assert found(list(counted.values())) == set()
    assert counted[RESULTS].audits[Network.REQUEST].past_retention == 3
    for side in (world.networks.request, world.networks.response):
        async with side.engine.begin() as connection:
            assert await empty_batches(connection, 3600) > 0
            for table in ("results", "requests"):
                await delete_old(connection, side.network, table, 3600)
    await world.answered()  # and with it comes the receipt that lets the older results go at their sender, too
    async with world.networks.response.engine.begin() as connection:
        assert await empty_batches(connection, 3600) > 0
    reports = await world.verify()
    assert found(reports) == set()
    assert [audit.past_retention for audit in reports[2].audits.values()] == [3, 3]
    assert await one(world.networks.request, "SELECT count(*) FROM results") == 3


async def test_a_payload_emptied_before_its_time_is_found(world: World) -> None:
    await world.answered()
    await change(world.networks.request, "UPDATE received_batches SET payload = NULL")
    assert found(await world.verify()) == {("request", "received_batches", "missing", "1")}


async def test_a_live_system_under_load_raises_no_false_alarm(world: World) -> None:
    """Requests come in, are executed, delivered, applied, cancelled and deleted all the while."""
    done = asyncio.Event()

    async def submitting() -> None:
        while not done.is_set():
            await world.submitted(5)
            await asyncio.sleep(0.001)

    async def carrying() -> None:
        while not done.is_set():
            await world.carry_on()
            await asyncio.sleep(0.001)

    working = [asyncio.create_task(submitting()), asyncio.create_task(carrying())]
    try:
        for _ in range(8):
            assert found(await world.verify()) == set()
    finally:
        done.set()
        await asyncio.gather(*working)
    await world.carry_on()
    reports = await world.verify()
    assert found(reports) == set()
    assert (reports[2].stream, reports[2].in_flight) == (StreamName.RESULTS, 0)
    assert reports[2].sender.record > 50


async def test_a_link_that_is_away_is_said_and_never_taken_for_agreement(world: World) -> None:
    await world.answered()
    link = LinkClient("http://127.0.0.1:1", HttpSigner(world.networks.response.keys, LINK))
    with pytest.raises(LinkUnavailable):
        await RemoteSide(link).head(RESULTS)
    await link.aclose()


class Moving:
    """A side that goes on as soon as it has answered: the worst moment, every time."""

    def __init__(self, side: Side, world: World) -> None:
        self.network, self.live = side.network, side.live
        self._side, self._world = side, world

    async def head(self, stream: StreamName) -> StreamHead:
        return await self._then_more(self._side.head(stream))

    async def digest(self, stream: StreamName, epoch: int, first: int, last: int) -> RangeDigest:
        return await self._then_more(self._side.digest(stream, epoch, first, last))

    async def audit(self, stream: StreamName, epoch: int, first: int, last: int) -> Audit:
        return await self._then_more(self._side.audit(stream, epoch, first, last))

    async def orphans(self, stream: StreamName) -> list[Finding]:
        return await self._then_more(self._side.orphans(stream))

    async def _then_more(self, asked: Awaitable[T]) -> T:
        answer = await asked
        await self._world.publish(setting("colour", str(new_id())))
        await self._world.answered(1)
        return answer


async def test_whatever_moves_between_two_questions_is_no_difference(world: World) -> None:
    await world.answered()
    sides = {network: Moving(side, world) for network, side in world.verifier.sides.items()}
    reports = await Verifier(sides, settle_seconds=0).verify(list(StreamName))
    assert found(reports) == set()
    assert reports[2].receiver.sequence > 1


async def test_what_is_gone_at_the_second_look_was_no_difference(world: World) -> None:
    """A row that is put back between the two looks."""
    gone, *_ = await world.answered()
    side = world.networks.request
    await change(side, "CREATE TABLE away AS SELECT * FROM results WHERE request_id = :id", id=gone)
    await change(side, "DELETE FROM results WHERE request_id = :id", id=gone)
    looking = asyncio.create_task(Verifier(world.verifier.sides, settle_seconds=2).verify([RESULTS]))
    await asyncio.sleep(1)
    await change(side, "INSERT INTO results SELECT * FROM away")
    await change(side, "DROP TABLE away")
    assert found(await looking) == set()
