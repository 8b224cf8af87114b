"""Retention lets go of what is finished and old, never of what somebody waits for; stale cache keys go."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities import maintaining
from activities.maintaining import MaintenanceActivities
from cache.redis_cache import Cache, answer_key, result_key, settings_key
from exchange.transfer.sealing import Sealer
from execution.execution_store import FinishedResult, store_results
from execution.request_types import put_request_type, retire_request_type
from fulfilment.result_store import store_snapshot
from models.outcomes import MaintenanceOutcome
from models.streams import Network, StreamName
from monitoring import retention
from tests.activities.crossing import (
    LINK,
    NOW,
    USER,
    cancellation,
    change,
    cross,
    new_id,
    one,
    request_record,
    submit,
    table,
)
from tests.conftest import Networks, Side

OLD = "now() - interval '8 days'"
YOUNG = "now() - interval '6 days'"
WEEK = 7 * 86400.0


@pytest.fixture
async def cache(networks: Networks) -> AsyncIterator[Cache]:
    cache = Cache(networks.servers.redis_url)
    await cache._redis.flushdb()
    yield cache
    await cache.aclose()


async def tend(side: Side, cache: Cache, seconds: float = WEEK) -> MaintenanceOutcome:
    worker = MaintenanceActivities(side.network, side.engine, cache, seconds)
    outcome: MaintenanceOutcome = await ActivityEnvironment().run(worker.tend)
    return outcome


async def count(side: Side, name: str) -> int:
    return int(await one(side, f"SELECT count(*) FROM {name}"))


async def executed(networks: Networks, created: str = OLD, applied: str | None = OLD) -> Any:
    """A request of the response network with its result; gives its id."""
    key = new_id()
    await cross(networks, StreamName.REQUESTS, [request_record(key)])
    side = networks.response
    sequence = await one(side, "SELECT max(sequence) FROM received_batches")
    await change(side, f"UPDATE received_batches SET applied_at = {applied or 'NULL'} WHERE sequence = {sequence}")
    await change(
        side,
        "INSERT INTO requests (request_id, user_id, type, priority, params, submitted_at, epoch, sequence)"
        f" VALUES (:key, :user, 'rows', 5, '{{}}', {OLD}, 1, {sequence})",
        key=key,
        user=USER,
    )
    async with side.engine.begin() as connection:
        await store_results(connection, [FinishedResult(key, "rows", "completed", None, 0, 0, 1.0, b"{}")])
    await change(side, f"UPDATE results SET created_at = {created} WHERE request_id = :key", key=key)
    return key


async def test_old_executions_go_and_young_ones_stay(networks: Networks, cache: Cache) -> None:
    side = networks.response
    await executed(networks)
    young = await executed(networks, YOUNG, YOUNG)
    outcome = await tend(side, cache)
    assert (outcome.rows_deleted["results"], outcome.rows_deleted["requests"]) == (1, 1)
    assert await table(side, "SELECT request_id FROM results") == [(young,)]
    assert await table(side, "SELECT request_id FROM requests") == [(young,)]


async def test_a_result_that_is_not_sealed_or_not_delivered_stays(networks: Networks, cache: Cache) -> None:
    side = networks.response
    await executed(networks)
    async with side.engine.begin() as connection:
        await Sealer(side.keys, LINK).enqueue(connection, StreamName.RESULTS, [b"{}"])
    await change(side, "UPDATE outbox SET created_at = now() - interval '9 days'")
    await tend(side, cache)
    assert (await count(side, "results"), await count(side, "outbox")) == (1, 1)
    async with side.engine.begin() as connection:
        await Sealer(side.keys, LINK).seal_pending(connection, StreamName.RESULTS)
    await change(side, "UPDATE sealed_batches SET sealed_at = now() - interval '8 days'")
    await tend(side, cache)
    assert await count(side, "results") == 1
    assert await one(side, "SELECT payload IS NOT NULL FROM sealed_batches WHERE stream = 'results'")
    await change(side, f"UPDATE sealed_batches SET delivered_at = {OLD}")
    await tend(side, cache)
    assert await count(side, "results") == 0


@pytest.mark.parametrize("applied", [None, YOUNG])
async def test_a_result_stays_while_its_batch_may_still_be_executed_again(
    networks: Networks, cache: Cache, applied: str | None
) -> None:
    await executed(networks, OLD, applied)
    await tend(networks.response, cache)
    assert await count(networks.response, "results") == 1


async def test_a_request_without_a_result_stays_until_its_batch_is_applied(networks: Networks, cache: Cache) -> None:
    side = networks.response
    await executed(networks, OLD, None)
    await change(side, "DELETE FROM results")
    await tend(side, cache)
    assert await count(side, "requests") == 1


async def test_a_cancellation_stays_as_long_as_its_request(networks: Networks, cache: Cache) -> None:
    side = networks.response
    key = await executed(networks, OLD, None)
    insert = f"INSERT INTO cancellations VALUES (:key, {OLD})"
    await change(side, insert, key=key)
    await change(side, insert, key=new_id())
    assert (await tend(side, cache)).rows_deleted["cancellations"] == 1
    assert await table(side, "SELECT request_id FROM cancellations") == [(key,)]


async def test_history_goes_and_open_alerts_stay(networks: Networks, cache: Cache) -> None:
    side = networks.response
    await change(side, f"INSERT INTO measurements VALUES ({OLD}, '{{}}'), ({YOUNG}, '{{}}')")
    await change(
        side,
        "INSERT INTO alerts (name, message, raised_at, cleared_at) VALUES"
        f" ('open', '', {OLD}, NULL), ('old', '', {OLD}, {OLD}), ('young', '', {OLD}, {YOUNG})",
    )
    outcome = await tend(side, cache)
    assert (outcome.rows_deleted["measurements"], outcome.rows_deleted["alerts"]) == (1, 1)
    assert await table(side, "SELECT name FROM alerts ORDER BY name") == [("open",), ("young",)]


async def test_only_payloads_that_were_applied_on_the_other_side_are_emptied_and_their_manifests_stay(
    networks: Networks, cache: Cache
) -> None:
    side = networks.response
    async with side.engine.begin() as connection:
        for _ in range(4):
            await Sealer(side.keys, LINK).seal(connection, StreamName.RESULTS, [b"{}"])
    await change(side, f"UPDATE sealed_batches SET delivered_at = {OLD} WHERE sequence <= 2")
    await change(side, f"UPDATE sealed_batches SET delivered_at = {YOUNG} WHERE sequence = 3")
    await change(side, "UPDATE outgoing_streams SET applied = 1, delivered = 3 WHERE stream = 'results'")
    assert (await tend(side, cache)).batches_emptied == 1
    left = "SELECT sequence FROM sealed_batches WHERE payload IS NOT NULL ORDER BY sequence"
    assert await table(side, left) == [(2,), (3,), (4,)]
    assert await one(side, "SELECT count(manifest) FROM sealed_batches") == 4


async def test_received_payloads_are_emptied_only_when_applied_and_old(networks: Networks, cache: Cache) -> None:
    side = networks.response
    for _ in range(3):
        await cross(networks, StreamName.REQUESTS, [cancellation(new_id())])
    await change(side, f"UPDATE received_batches SET applied_at = {OLD} WHERE sequence = 1")
    await change(side, f"UPDATE received_batches SET applied_at = {YOUNG} WHERE sequence = 2")
    await change(side, f"UPDATE received_batches SET received_at = {OLD}")
    assert (await tend(side, cache)).batches_emptied == 1
    assert await table(side, "SELECT sequence FROM received_batches WHERE payload IS NULL") == [(1,)]


async def group(networks: Networks, fulfilled: str | None, callback: str | None = None, result: bool = True) -> Any:
    """A group of one request in the request network; gives the request's id."""
    side, key = networks.request, new_id()
    ref = await submit(networks, key, callback=callback)
    if result:
        await change(
            side, f"INSERT INTO results VALUES (:key, :user, 'completed', '{{}}', 1, 1, {OLD})", key=key, user=USER
        )
    await change(
        side,
        f"UPDATE request_groups SET submitted_at = {OLD}, fulfilled_at = {fulfilled or 'NULL'}"
        f" WHERE sequence = {ref.sequence}",
    )
    return key


async def test_fulfilled_requests_go_with_their_results_and_open_or_young_ones_stay(
    networks: Networks, cache: Cache
) -> None:
    side = networks.request
    await group(networks, OLD)
    await group(networks, OLD, result=False)
    outstanding = await group(networks, None, result=False)
    young = await group(networks, YOUNG)
    outcome = await tend(side, cache)
    assert (outcome.rows_deleted["results"], outcome.rows_deleted["requests"]) == (1, 2)
    assert set(await table(side, "SELECT request_id FROM requests")) == {(outstanding,), (young,)}
    assert await table(side, "SELECT request_id FROM results") == [(young,)]


@pytest.mark.parametrize("result", [True, False])
async def test_a_request_whose_callback_is_not_made_stays(networks: Networks, cache: Cache, result: bool) -> None:
    side = networks.request
    key = await group(networks, OLD, "http://hooks.example/", result)
    await tend(side, cache)
    assert await table(side, "SELECT request_id FROM requests") == [(key,)]
    assert await count(side, "results") == int(result)
    await change(side, "UPDATE requests SET callback_at = now()")
    await tend(side, cache)
    assert (await count(side, "requests"), await count(side, "results")) == (0, 0)


async def test_idempotency_keys_go_when_they_are_old(networks: Networks, cache: Cache) -> None:
    side = networks.request
    insert = "INSERT INTO idempotency_keys VALUES (:user, :key, '', '{}', "
    await change(side, f"{insert}{OLD})", user=USER, key="old")
    await change(side, f"{insert}{YOUNG})", user=USER, key="young")
    assert (await tend(side, cache)).rows_deleted["idempotency_keys"] == 1
    assert await table(side, "SELECT key FROM idempotency_keys") == [("young",)]


async def test_more_than_one_chunk_is_deleted_in_one_run(
    networks: Networks, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (retention, maintaining):
        monkeypatch.setattr(module, "CHUNK", 3)
    side = networks.response
    insert = "INSERT INTO measurements SELECT now() - interval '8 days' - n * interval '1 s', '{}'"
    await change(side, f"{insert} FROM generate_series(1, 10) AS n")
    assert (await tend(side, cache)).rows_deleted["measurements"] == 10


async def test_settings_of_snapshots_that_are_gone_are_dropped_from_the_cache_and_nothing_else(
    networks: Networks, cache: Cache
) -> None:
    async with networks.request.engine.begin() as connection:
        await store_snapshot(connection, StreamName.SETTINGS, 1, 12, NOW, b"{}")
    current, kept = settings_key(1, 12, "all"), result_key(USER, new_id())
    stale = [settings_key(1, 1, "all"), settings_key(1, 120, "all"), settings_key(0, 12, "all")]
    await cache.put_many(dict.fromkeys([current, kept, *stale], b"x"), 60)
    assert (await tend(networks.request, cache)).cache_keys_dropped == 3
    assert [await cache.get(key) for key in (current, kept)] == [b"x", b"x"]
    assert [await cache.get(key) for key in stale] == [None] * 3


async def test_answers_of_changed_and_retired_types_are_dropped_from_the_cache(
    networks: Networks, cache: Cache
) -> None:
    async with networks.response.engine.begin() as connection:
        for name in ("rows", "gone"):
            await put_request_type(connection, name, "", {}, {}, {}, "test")
        changed = await put_request_type(connection, "rows", "changed", {}, {}, {}, "test")
        await retire_request_type(connection, "gone")
    assert changed.version == 2
    stale = [answer_key("rows", 1, "a"), answer_key("gone", 1, "a"), answer_key("row", 2, "a")]
    await cache.put_many(dict.fromkeys([answer_key("rows", 2, "a"), *stale], b"x"), 60)
    assert (await tend(networks.response, cache)).cache_keys_dropped == 3
    assert await cache.get(answer_key("rows", 2, "a")) == b"x"


@pytest.mark.parametrize("network", list(Network))
async def test_what_others_wrote_into_redis_is_left_alone_and_never_fails_the_maintenance(
    networks: Networks, cache: Cache, network: Network
) -> None:
    foreign = [
        b"\xff",
        b"airlock:\xff\xfe",
        b"airlock:settings:\xff:all",
        b"airlock:answer:rows:2:\xff",
        b"airlock:settings:1.1:all\n",
        b"airlock:settings:1.1",
        b"airlock:answer:rows",
        b"airlock:result:" + b"x" * 100_000,
        b"airlock:other:1",
        b"celery-task-meta-1",
        b"x-airlock:settings:1.1:all",
        b"",
    ]
    redis = cache._redis
    for key in foreign:
        await redis.set(key, b"theirs")
    assert (await tend(getattr(networks, network), cache)).cache_keys_dropped == 0
    assert [await redis.get(key) for key in foreign] == [b"theirs"] * len(foreign)


@pytest.mark.parametrize("network", list(Network))
async def test_a_key_of_ours_that_would_stay_for_ever_goes(networks: Networks, cache: Cache, network: Network) -> None:
    async with networks.request.engine.begin() as connection:
        await store_snapshot(connection, StreamName.SETTINGS, 1, 12, NOW, b"{}")
    async with networks.response.engine.begin() as connection:
        await put_request_type(connection, "rows", "", {}, {}, {}, "test")
    names = [settings_key(1, 12, "all"), answer_key("rows", 1, "a" * 64), result_key(USER, new_id())]
    redis = cache._redis
    for key in names:
        await redis.set(key, b"for ever")
    long = result_key(USER, new_id())
    await redis.set(long, b"for a hundred years", ex=100 * 365 * 86_400)
    lists = [settings_key(1, 12, "list"), result_key(USER, new_id())]
    for key in lists:
        await redis.rpush(key, "a", "b")
    fine = result_key(USER, new_id())
    await cache.put(fine, b"x", 3600)
    await tend(getattr(networks, network), cache)
    assert [await redis.exists(key) for key in (*names, long, *lists)] == [0] * 6
    assert await cache.get(fine) == b"x"


async def test_with_redis_away_retention_is_applied_all_the_same(networks: Networks) -> None:
    away = Cache("redis://127.0.0.1:1")
    await change(networks.response, f"INSERT INTO measurements VALUES ({OLD}, '{{}}')")
    outcome = await tend(networks.response, away)
    await away.aclose()
    assert (outcome.cache_keys_dropped, outcome.rows_deleted["measurements"]) == (0, 1)


@pytest.mark.parametrize("network", list(Network))
async def test_where_there_is_nothing_to_do_nothing_is_done(networks: Networks, cache: Cache, network: Network) -> None:
    side = networks.request if network is Network.REQUEST else networks.response
    outcome = await tend(side, cache)
    assert (outcome.cache_keys_dropped, outcome.batches_emptied, set(outcome.rows_deleted.values())) == (0, 0, {0})
