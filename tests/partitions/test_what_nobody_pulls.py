"""The two networks' numbers of partitions differ: nothing is lost, and it is said on both sides."""

import asyncio
from typing import Any

import pytest

from activities.alerting import judge_stream
from activities.unpulled import UnpulledPartitions
from api.request.link_health import UNPULLED_SECONDS, silences
from configuration.cadences import DEFAULT_CADENCES
from exchange.errors import LinkUnavailable
from exchange.http_signature import HttpSigner
from exchange.link import LinkClient
from exchange.remote_side import RemoteSide
from models.streams import Network
from storage.monitoring import open_alerts, stream_states
from tests.activities.crossing import LINK, change, table
from tests.api_request.serving import AWAY
from tests.partitions.world import REQUESTS, RESULTS, USERS, PartitionedWorld


async def looked(world: PartitionedWorld, pulled: int) -> list[str]:
    """The alarms that are open after a look."""
    await UnpulledPartitions(world.networks.response.engine, RemoteSide(world.link), pulled).look()
    async with world.networks.response.engine.connect() as connection:
        return [alert.name for alert in await open_alerts(connection)]


async def states(world: PartitionedWorld) -> dict[str, dict[str, Any]]:
    async with world.networks.response.engine.begin() as connection:
        return {state["stream"]: state for state in await stream_states(connection, Network.RESPONSE)}


async def test_what_is_sealed_in_a_partition_that_is_not_pulled_is_an_alarm_until_it_is(
    world: PartitionedWorld,
) -> None:
    assert await looked(world, 1) == [], "nothing is sealed anywhere"
    asked = await world.all_asked(2)
    assert await looked(world, 2) == ["not-pulled:requests.2", "not-pulled:requests.3"]
    async with world.networks.response.engine.connect() as connection:
        message = (await open_alerts(connection))[1].message
    assert "2 batches of requests.3 wait" in message
    assert "AIRLOCK_RESPONSE_PARTITIONS=4" in message
    state = (await states(world))["requests.3"]
    assert list(judge_stream(state, DEFAULT_CADENCES, set(), 2)) == ["not-pulled:requests.3"], (
        "a measurement says it too"
    )
    await world.carry_on()
    for user, ids in asked.items():
        assert await world.statuses(user, ids) == ["completed"] * 2, "nothing was lost meanwhile"
    assert await looked(world, 2) == []


async def test_where_the_numbers_agree_nothing_is_asked_for_in_vain(world: PartitionedWorld) -> None:
    await world.all_asked()
    assert await looked(world, 4) == []
    assert set(await states(world)) == {"settings", "requests", "results", "health", *RESULTS.partitions(4)}


async def test_drained_partitions_that_are_pulled_no_more_are_no_alarm(world: PartitionedWorld) -> None:
    await world.all_asked()
    await world.carry_on()
    old = (await states(world))["requests.3"] | {"last_contact_seconds": 86_400.0}
    assert judge_stream(old, DEFAULT_CADENCES, set(), 2) == {}
    assert list(judge_stream(old, DEFAULT_CADENCES, set(), 4)) == ["not-tried:requests.3"], "it should be pulled"
    assert await looked(world, 2) == []


async def test_a_request_network_that_knows_nothing_of_partitions_uses_none(
    world: PartitionedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def older(self: LinkClient, stream: str, question: bytes) -> bytes:
        return await self._call("POST", f"/link/v1/streams/{stream}/summaries", b'{"ask":"nothing that it knows"}')

    monkeypatch.setattr(LinkClient, "ask", older)
    assert (await RemoteSide(world.link).streams()).streams == []


async def test_looking_goes_on_when_the_link_is_dead(world: PartitionedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.unpulled.LOOK_SECONDS", 0.01)
    side = world.networks.response
    dead = LinkClient(f"http://{AWAY}", HttpSigner(side.keys, LINK))
    asked, again = 0, asyncio.Event()

    class Far(RemoteSide):
        async def streams(self) -> Any:
            nonlocal asked
            asked += 1
            if asked > 2:
                again.set()
            return await super().streams()

    looking = asyncio.create_task(UnpulledPartitions(side.engine, Far(dead), 1).run())
    async with asyncio.timeout(20):
        await again.wait()
    assert not looking.done()
    looking.cancel()
    await asyncio.wait((looking,))
    with pytest.raises(LinkUnavailable):
        await RemoteSide(dead).streams()
    await dead.aclose()


def test_the_request_network_says_which_partition_nobody_pulls() -> None:
    def state(stream: str, age: float | None) -> dict[str, Any]:
        return {"stream": stream, "direction": "out", "last_contact_seconds": None, "in_flight_records": 7,
                "oldest_age_seconds": age}  # fmt: skip

    assert silences([state("requests.3", UNPULLED_SECONDS), state("requests", 9999.0), state("requests.2", None)]) == []
    (said,) = silences([state("requests.3", UNPULLED_SECONDS + 1)])
    assert "nobody has pulled 7 records for 151 s: is AIRLOCK_RESPONSE_PARTITIONS 4 at least?" in said


async def test_one_partition_leaves_no_trace_of_others(world: PartitionedWorld, another_app: Any) -> None:
    side = world.networks.response
    await change(side, "DELETE FROM outgoing_streams")  # the world has begun four
    world.executing = world.executors[0]
    async with another_app(1) as url:
        for user in USERS:
            await world.ask(user, 1, url)
        await world.pulled(REQUESTS)
        await world.delivery.drain(RESULTS, lambda _: None)
        await world.apply(RESULTS)
        await UnpulledPartitions(side.engine, RemoteSide(world.link), 1).look()
    for network in (world.networks.request, side):
        for place in ("outgoing_streams", "incoming_streams", "sealed_batches", "received_batches"):
            known = await table(network, f"SELECT DISTINCT stream FROM {place}")
            assert {stream for (stream,) in known} <= {"requests", "results"}, place
        assert await table(network, "SELECT DISTINCT partition FROM requests") == [(0,)]
    assert await table(world.networks.request, "SELECT DISTINCT partition FROM results") == [(0,)]
    assert [report.stream for report in await world.verify()] == ["settings", "requests", "results", "health"]
