"""A request that waits too long is an alert in both networks, without a schedule and without Temporal."""

import pytest
from uuid_utils.compat import uuid7

from models.streams import Network, StreamName
from monitoring.measurement_store import open_alerts, settle_alerts
from monitoring.waiting import WaitingWatch, oldest_waiting
from tests.activities.calling import finish
from tests.activities.crossing import change, cross, new_id, request_record, submit
from tests.conftest import Networks, Side

BOUND = 300.0


async def alerts(side: Side, bound: float = BOUND) -> dict[str, str]:
    await WaitingWatch(side.engine, side.network, bound).look()
    async with side.engine.connect() as connection:
        return {alert.name: alert.message for alert in await open_alerts(connection)}


async def test_a_request_without_result_is_an_alert_of_the_request_network(networks: Networks) -> None:
    side = networks.request
    old, new = new_id(), new_id()
    await submit(networks, old)
    await submit(networks, new)
    await change(side, "UPDATE requests SET submitted_at = now()")
    assert await alerts(side) == {}
    await change(side, "UPDATE requests SET submitted_at = now() - interval '7 minutes' WHERE request_id = :k", k=old)
    message = (await alerts(side))["requests-waiting"]
    assert message.startswith("the oldest request (type rows) waits for 42")
    assert "airlock requests cancel --user" in message
    async with side.engine.begin() as connection:
        await settle_alerts(connection, {})  # as a measurement does
    assert await alerts(side) != {}
    await finish(networks, old)
    assert await alerts(side) == {}, "it is over"


@pytest.mark.parametrize("opened", [True, False])
async def test_a_request_that_arrived_and_is_not_executed_is_an_alert_of_the_response_network(
    networks: Networks, opened: bool
) -> None:
    side, key = networks.response, new_id()
    batch = await cross(networks, StreamName.REQUESTS, [request_record(key)])
    if opened:
        await change(
            side,
            "INSERT INTO requests (request_id, user_id, type, priority, params, submitted_at, epoch, sequence)"
            " VALUES (:key, :user, 'rows', 5, '{}', now(), :epoch, :sequence)",
            key=key,
            user=uuid7(),
            epoch=batch.epoch,
            sequence=batch.sequence,
        )
    assert await alerts(side) == {}
    await change(side, "UPDATE received_batches SET received_at = now() - interval '7 minutes'")
    assert "AIRLOCK_RESPONSE_EXECUTIONS" in (await alerts(side))["requests-waiting"]
    await change(side, "UPDATE received_batches SET applied_at = now()")
    assert await alerts(side) == {}


async def test_nothing_waits_in_empty_networks(networks: Networks) -> None:
    for side in (networks.request, networks.response):
        async with side.engine.connect() as connection:
            assert await oldest_waiting(connection, Network(side.network)) is None
