"""After a capture of the request network: nothing that it sent can keep an operator from recovering every stream."""

import asyncio
from pathlib import Path
from uuid import UUID

import orjson
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner

from cli.program import app
from exchange.audit.auditor import Auditor
from exchange.errors import Malformed
from exchange.recovery.epoch_ordering import EpochOrdering
from exchange.recovery.quarantine import Quarantine
from exchange.recovery.remote_side import RemoteSide
from exchange.transfer.sealing import Sealer
from models.outcomes import EpochOutcome
from models.streams import Network, StreamName
from storage.database import execute
from tests.activities.crossing import LINK, USER, change, new_id, one, request_record, submit, table
from tests.epochs.backups import back_up, restore
from tests.security.captured import Lie
from tests.security.conftest import Attacked
from tests.verification.world import RETENTION, World

REQUESTS, RESULTS, SETTINGS = StreamName.REQUESTS, StreamName.RESULTS, StreamName.SETTINGS

HUGE = b'{"request_id":"%s","user_id":"%s","type":"rows","params":{"n":%d},"submitted_at":"2026-01-02T03:04:05Z"}'


def hostile(request_id: UUID) -> dict[str, bytes]:
    """Records that no honest request network seals."""
    return {
        "no request": b"{}",
        "no JSON": b"\xff\x00\x1b]52;c;eA==\x07",
        "a list": b"[]",
        "nothing": b"",
        "null": b"null",
        "deep": b'{"params":' + b"[" * 5000,
        "a number beyond 64 bits": HUGE % (str(request_id).encode(), str(USER).encode(), 10**40),
        "lone surrogates": request_record(request_id).replace(b'"params":{}', b'"params":{"a":"\\ud800"}'),
        "a NUL in the type": request_record(request_id).replace(b'"rows"', b'"ro\\u0000ws"'),
        "a cancellation of nothing": b'{"kind":"cancellation","request_id":"x"}',
        "the end of time": request_record(request_id, submitted_at="9999-12-31T23:59:59-14:00"),
    }


async def new_epoch(world: World, stream: StreamName, **more: object) -> EpochOutcome:
    side = world.networks.response
    local = Auditor(side.engine, Network.RESPONSE, RETENTION)
    ordering = EpochOrdering(local, RemoteSide(world.link), Sealer(side.keys, LINK))
    return await ordering.order(stream, "it was captured", "tests", **more)  # type: ignore[arg-type]


async def works(world: World) -> None:
    """A request is answered, and both sides agree."""
    answered = await world.answered(2)
    there = await table(world.networks.request, "SELECT request_id FROM results")
    assert set(answered) <= {item for (item,) in there}
    for stream in (REQUESTS, RESULTS):
        for side, way in ((world.networks.request, "outgoing"), (world.networks.response, "incoming")):
            way = {"outgoing": "incoming", "incoming": "outgoing"}[way] if stream is RESULTS else way
            assert await one(side, f"SELECT stopped FROM {way}_streams WHERE stream = :stream", stream=stream) is None


async def pulled(world: World) -> None:
    while batch := await world.pull.once(REQUESTS, 0):
        await world.execute(batch)


async def drop_all(world: World) -> None:
    await Quarantine(world.networks.response.engine, Network.RESPONSE).drop_all(REQUESTS, "tests", "invented")


async def seal(world: World, *records: bytes) -> None:
    side = world.networks.request
    async with side.engine.begin() as connection:
        await Sealer(side.keys, LINK).seal(connection, REQUESTS, records)


@pytest.mark.parametrize("kind", hostile(new_id()))
@pytest.mark.parametrize("fate", ["open", "dropped"])
async def test_a_restored_network_recovers_whatever_it_sealed_while_it_was_captured(
    world: World, kind: str, fate: str
) -> None:
    before = await world.answered(2)
    await back_up(world.networks.request.engine)
    since = await world.submitted(1)
    await seal(world, hostile(new_id())[kind], request_record(new_id()))
    await pulled(world)
    if fate == "dropped":
        await drop_all(world)
    await restore(world.networks.request.engine)
    await new_epoch(world, REQUESTS)
    await world.carry_on()
    await works(world)
    there = {item for (item,) in await table(world.networks.request, "SELECT request_id FROM results")}
    assert {*before, *since} <= there, "what was asked before and after the backup is answered"
    await drop_all(world)
    await works(world)


@pytest.mark.parametrize("kind", hostile(new_id()))
async def test_a_network_that_still_has_what_it_sealed_recovers_too(world: World, kind: str) -> None:
    await world.answered(1)
    await seal(world, hostile(new_id())[kind])
    waiting = await world.submitted(1)
    for _ in range(2):
        await new_epoch(world, REQUESTS)
    await world.carry_on()
    await works(world)
    there = {item for (item,) in await table(world.networks.request, "SELECT request_id FROM results")}
    assert set(waiting) <= there


async def test_two_records_of_one_id_leave_the_request_that_was_executed(world: World) -> None:
    await world.answered(1)
    await back_up(world.networks.request.engine)
    request_id = new_id()
    await seal(world, request_record(request_id), request_record(request_id, params={"n": 2}))
    await pulled(world)
    await restore(world.networks.request.engine)
    await new_epoch(world, REQUESTS)
    await world.carry_on()
    found = await one(world.networks.request, "SELECT params FROM requests WHERE request_id = :id", id=request_id)
    assert found == b"{}", "the first one, as the response network took it"


async def test_batches_of_a_key_that_the_restored_network_never_had_are_not_given_back(
    attacked: Attacked,
) -> None:
    world = attacked.world
    await world.answered(1)
    await pulled(world)
    chain = attacked.captured.chain
    chain.sequence, chain.record = 1, 1
    chain.head = await one(world.networks.response, "SELECT hash FROM received_batches WHERE stream = 'requests'")
    wire = chain.seal([request_record(new_id())])
    attacked.captured.answer_polls(wire)
    await world.pull.once(REQUESTS, 0)
    attacked.captured.answer("/recoveries", lambda _: Lie(403, b'{"detail":"unknown key"}', signed=False))
    with pytest.raises(Exception, match="refuses"):  # unsigned: the link does not work
        await new_epoch(world, REQUESTS)
    attacked.captured.answer("/recoveries", lambda _: Lie(400, b'{"detail":"not ours"}'))
    outcome = await new_epoch(world, REQUESTS)
    assert outcome.given_back == 0
    attacked.captured.liar = lambda _: None
    await world.carry_on()
    await works(world)


async def test_results_with_a_nul_in_a_string_are_taken_back(world: World) -> None:
    """An executor may answer with one, and a JSONB of PostgreSQL cannot hold it."""
    (request_id,) = await world.answered(1)
    body = orjson.dumps({"request_id": str(request_id), "status": "completed", "data": ["\0"], "returned": 1})
    side = world.networks.response
    async with side.engine.begin() as connection:
        await execute(connection, "DELETE FROM sealed_batches WHERE stream = 'results'")
        await execute(
            connection,
            "UPDATE outgoing_streams SET sequence = 0, record = 0, hash = :genesis, delivered = 0"
            " WHERE stream = 'results'",
            genesis=bytes(32),
        )
        await execute(connection, "INSERT INTO outbox (stream, body) VALUES ('results', :body)", body=body)
    outcome = await new_epoch(world, RESULTS)
    assert outcome.taken_back == 1
    (waiting,) = await table(side, "SELECT body FROM outbox WHERE stream = 'results'")
    assert waiting != (body,), "the result that its owner was shown takes the place of the other one"


@pytest.mark.parametrize("kind", hostile(new_id()))
async def test_verifying_and_repairing_come_to_an_end_with_every_record(world: World, kind: str) -> None:
    await world.answered(1)
    await seal(world, hostile(new_id())[kind])
    await pulled(world)
    for decide in (lambda: None, lambda: drop_all(world)):
        if (decided := decide()) is not None:
            await decided
        reports, outcome = await world.repair()
        assert outcome.left == {}
        assert [finding for report in reports for finding in report.findings] == []
        assert all(report.agrees for report in reports)


@pytest.mark.parametrize("kind", hostile(new_id()))
async def test_a_row_that_was_lost_with_its_quarantine_is_set_aside_again_by_a_repair(world: World, kind: str) -> None:
    await seal(world, hostile(new_id())[kind])
    await pulled(world)
    await change(world.networks.response, "DELETE FROM quarantined_records")
    await change(world.networks.response, "DELETE FROM requests")
    reports, _ = await world.repair()
    assert all(report.agrees for report in reports)


async def test_what_was_invented_is_dropped_in_bulk_by_epoch_and_range(world: World) -> None:
    await seal(world, *(b"{}" for _ in range(50)))
    await pulled(world)
    quarantine = Quarantine(world.networks.response.engine, Network.RESPONSE)
    open_ones = "SELECT count(*) FROM quarantined_records WHERE dropped_at IS NULL"
    assert await quarantine.drop_all(REQUESTS, "tests", "invented", epoch=1, first=1, last=10) == 10
    assert await one(world.networks.response, open_ones) == 40
    assert await quarantine.drop_all(REQUESTS, "tests", "invented", epoch=2) == 0
    assert await quarantine.drop_all(REQUESTS, "tests", "invented", epoch=1) == 40
    assert await one(world.networks.response, open_ones) == 0
    assert await one(world.networks.response, "SELECT quarantined FROM incoming_streams WHERE stream='requests'") == 0


async def test_dropped_requests_get_one_failed_result_each_whatever_their_records_say(world: World) -> None:
    ids = [new_id(), new_id()]
    bodies = [request_record(each).replace(b'"rows"', b'"ro\\u0000ws\\u001b"') for each in ids]
    await seal(world, *bodies, *bodies)
    await pulled(world)
    await drop_all(world)
    found = await table(world.networks.response, "SELECT request_id, reason FROM results ORDER BY request_id")
    assert found == [(each, "dropped") for each in sorted(ids)]


async def test_requests_of_the_time_of_the_capture_fail_and_are_not_given_back(world: World) -> None:
    before = await world.answered(1)
    await back_up(world.networks.request.engine)
    engine: AsyncEngine = world.networks.response.engine
    since = await one(world.networks.response, "SELECT clock_timestamp()")
    invented = [new_id(), new_id()]
    await submit(world.networks, *invented)
    batch = await world.pull.once(REQUESTS, 0)  # it waits: nothing has executed it yet
    assert batch is not None
    discarded = await discard_waiting(engine, since)
    assert discarded == 2
    await world.execute(batch)
    found = await table(world.networks.response, "SELECT request_id, status, reason FROM results ORDER BY created_at")
    assert {item[0] for item in found if item[1:] == ("failed", "dropped")} == set(invented)
    await restore(world.networks.request.engine)
    outcome = await new_epoch(world, REQUESTS, discard_since=since)
    assert outcome.given_back == 0
    await world.carry_on()
    there = {item for (item,) in await table(world.networks.request, "SELECT request_id FROM requests")}
    assert there == set(before)
    await works(world)


async def discard_waiting(engine: AsyncEngine, since: object) -> int:
    from exchange.recovery.discarding import discard_waiting as discard

    return await discard(engine, since, None, "tests", "invented")  # type: ignore[arg-type]


async def test_false_digests_do_not_make_a_new_epoch_of_results_loop(attacked: Attacked) -> None:
    world = attacked.world
    await world.answered(1)
    asked = 0

    def lie(call: object) -> Lie | None:
        nonlocal asked
        asked += 1
        assert asked < 20_000, "it goes on and on"
        target, body = call.target, call.body  # type: ignore[attr-defined]
        if target.endswith("/summaries") and b'"digest"' in body:
            return Lie(200, orjson.dumps({"count": 1, "digest": "ab" * 32}))
        if target.endswith("/summaries"):
            return Lie(200, orjson.dumps(far_head(2**31 - 2)))
        return None

    attacked.captured.liar = lie
    with pytest.raises(Malformed, match="epoch"):
        await new_epoch(world, RESULTS)
    attacked.captured.liar = lambda call: (
        Lie(200, orjson.dumps(far_head(3))) if call.target.endswith("/summaries") and b'"head"' in call.body
        else lie(call)
    )  # fmt: skip
    await new_epoch(world, RESULTS)  # it comes to an end, whatever is claimed
    attacked.captured.liar = lambda _: None
    await new_epoch(world, RESULTS)
    await works(world)


def far_head(epoch: int) -> dict[str, object]:
    return {
        "network": "request", "stream": "results", "epoch": epoch, "sequence": 2**62, "record": 2**62,
        "hash": "cd" * 32, "applied": 0, "epochs": [{"epoch": epoch, "through": 2**62}],
        "read_at": "2026-01-02T03:04:05Z",
    }  # fmt: skip


async def test_the_commands_of_a_recovery(
    world: World, served: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As docs/failures.md tells an operator: drop, discard, new epoch."""
    side = world.networks.response
    monkeypatch.setenv("AIRLOCK_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRLOCK_RESPONSE_DATABASE_URL", side.url)
    monkeypatch.setenv("AIRLOCK_RESPONSE_KEYS", str(side.keys_directory))
    monkeypatch.setenv("AIRLOCK_RESPONSE_LINK_URL", served)
    monkeypatch.setenv("AIRLOCK_RESPONSE_LINK_ID", LINK)
    monkeypatch.setenv("AIRLOCK_RESPONSE_TEMPORAL_ADDRESS", "127.0.0.1:1")
    before = await world.answered(1)
    since = str(await one(side, "SELECT clock_timestamp()"))
    await seal(world, b"{}", b"{}", b"{}")
    await pulled(world)
    await submit(world.networks, new_id())
    await world.pull.once(REQUESTS, 0)

    async def airlock(*arguments: str) -> tuple[int, str]:
        result = await asyncio.to_thread(lambda: CliRunner().invoke(app, list(arguments)))
        return result.exit_code, result.output

    assert await airlock("quarantine", "drop", "requests", "1.2-3", "--reason", "invented") == (
        0,
        "2 records of requests dropped\n",
    )
    assert await airlock("quarantine", "drop", "requests", "--all", "--reason", "invented") == (
        0,
        "1 record of requests dropped\n",
    )
    assert (await airlock("quarantine", "drop", "requests", "--reason", "x"))[0] == 2
    assert (await airlock("quarantine", "drop", "requests", "1.1-x", "--reason", "x"))[0] == 2
    assert await airlock("stream", "discard", "--since", since, "--reason", "invented") == (0, "1 request discarded\n")
    assert (await airlock("stream", "discard", "--since", "noon", "--reason", "x"))[0] == 2
    code, told = await airlock("stream", "new-epoch", "requests", "--reason", "captured", "--discard-since", since)
    assert code == 0, told
    await world.carry_on()
    await works(world)
    assert before
