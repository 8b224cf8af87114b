"""What a captured request network may send, how much of it, and what it may say of itself."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from exchange.carriers.http import LinkClient
from exchange.errors import ClockSkew, Fork, LinkError, LinkUnavailable, Malformed, StreamStopped
from exchange.recovery.quarantine import Quarantine
from exchange.transfer import quarantine_store
from exchange.transfer.incoming import stop_incoming
from exchange.wire.http_signature import HttpSigner
from exchange.wire.manifest import MAX_RAW_BYTES, MAX_RECORDS
from models.streams import Network, StreamName
from monitoring.retention import empty_batches
from tests.activities.crossing import change, new_id, one, request_record, table
from tests.link.false_server import Asked
from tests.security.captured import Lie
from tests.security.conftest import Attacked
from tests.security.test_captured_recovery import drop_all, new_epoch, works

REQUESTS, RESULTS = StreamName.REQUESTS, StreamName.RESULTS
STORED = "SELECT count(*) FROM received_batches WHERE stream = 'requests'"
ASIDE = "SELECT count(*), coalesce(sum(octet_length(body)), 0) FROM quarantined_records"


async def test_no_more_batches_are_taken_than_were_asked_for(attacked: Attacked) -> None:
    captured, world = attacked.captured, attacked.world
    captured.answer_polls(*(captured.chain.seal([b"{}"]) for _ in range(4)))
    with pytest.raises(Malformed, match="more than 3 batches"):
        await world.pull.once(REQUESTS, 0, 3)
    assert await one(world.networks.response, STORED) == 0


@pytest.mark.parametrize("lies", [{}, {"parts": 2}, {"part": 2, "parts": 2}])
async def test_an_empty_batch_or_a_part_is_no_batch_of_a_log(attacked: Attacked, lies: dict[str, Any]) -> None:
    captured, world = attacked.captured, attacked.world
    captured.answer_polls(captured.chain.seal([b"{}"] if lies else [], **lies))
    with pytest.raises(Malformed, match="only snapshots"):
        await world.pull.once(REQUESTS, 0)
    assert await one(world.networks.response, STORED) == 0


@pytest.mark.parametrize("records", [[b"{}"] * 3000, [b'"' + b" " * 3 * 2**20 + b'"']])
async def test_an_answer_is_taken_up_to_the_records_and_bytes_of_one_batch(
    attacked: Attacked, records: list[bytes]
) -> None:
    """However small they are compressed."""
    captured, world = attacked.captured, attacked.world
    captured.answer_polls(*(captured.chain.seal(records) for _ in range(20)))
    batch = await world.pull.once(REQUESTS, 0, 500)
    assert batch is not None
    assert batch.records <= MAX_RECORDS
    raw = await table(world.networks.response, "SELECT manifest FROM received_batches")
    assert sum(orjson.loads(manifest)["raw_bytes"] for (manifest,) in raw) <= MAX_RAW_BYTES
    assert raw


@pytest.mark.parametrize(
    "sealed_at", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59Z"]
)
async def test_a_time_that_no_database_holds_is_refused(attacked: Attacked, sealed_at: str) -> None:
    captured, world = attacked.captured, attacked.world
    captured.answer_polls(captured.chain.seal([b"{}"], sealed_at=sealed_at))
    with pytest.raises(Malformed):
        await world.pull.once(REQUESTS, 0)


async def test_the_quarantine_is_bounded_and_the_stream_says_why_it_stops(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the price of it, in statements of a clock, is printed: it is small against the bytes received."""
    monkeypatch.setattr(quarantine_store, "MOST_BYTES", 4 * 2**20)
    captured, world = attacked.captured, attacked.world
    junk = b"x" * 2**20
    sent, spent = await until_stopped(attacked, [junk + b"%d" % number for number in range(7)])
    rows, size = (await table(world.networks.response, ASIDE))[0]
    print(f"\n{sent} bytes received: {rows} rows, {size} bytes of quarantine, {spent:.2f} s of this process")
    assert size <= 4 * 2**20 + MAX_RECORDS * quarantine_store.SHORTENED_BYTES
    assert rows <= 14
    stopped = await one(world.networks.response, "SELECT stopped FROM incoming_streams WHERE stream = 'requests'")
    assert "airlock quarantine drop requests --all" in stopped
    captured.liar = lambda _: None
    await drop_all(world)
    await new_epoch(world, REQUESTS, discard_since=datetime(2000, 1, 1, tzinfo=UTC))
    await works(world)


async def test_rows_are_bounded_too_and_inserted_in_bulk(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine_store, "MOST_ROWS", 6000)
    side = attacked.world.networks.response
    sent, spent = await until_stopped(attacked, [b"{}"] * MAX_RECORDS)
    rows = (await table(side, ASIDE))[0][0]
    print(f"\n{sent} bytes received: {rows} rows, {spent:.2f} s of this process")
    assert rows == 2 * MAX_RECORDS
    assert await one(side, "SELECT quarantined FROM incoming_streams WHERE stream = 'requests'") == rows


async def until_stopped(attacked: Attacked, records: list[bytes]) -> tuple[int, float]:
    """Send batches of these records until no more is taken; gives the bytes sent and the seconds of this process."""
    sent, began = 0, time.process_time()
    for _ in range(50):
        wire = attacked.captured.chain.seal(records)
        sent += len(wire)
        attacked.captured.answer_polls(wire)
        try:
            batch = await attacked.world.pull.once(REQUESTS, 0)
        except StreamStopped:
            break
        assert batch is not None
        await attacked.world.execute(batch)
    stopped = await one(
        attacked.world.networks.response, "SELECT stopped FROM incoming_streams WHERE stream = 'requests'"
    )
    assert "quarantine is full" in stopped
    return sent, time.process_time() - began


async def test_a_shortened_body_is_whole_as_long_as_its_record_is_open(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine_store, "MOST_BYTES", 10)
    captured, world = attacked.captured, attacked.world
    side = world.networks.response
    long = request_record(new_id(), params={"a": "x" * 5000}) + b" torn"
    captured.answer_polls(captured.chain.seal([long]))
    batch = await world.pull.once(REQUESTS, 0)
    assert batch is not None
    await world.execute(batch)
    assert (await table(side, "SELECT size, octet_length(body) FROM quarantined_records")) == [(len(long), 1024)]
    await change(side, "UPDATE received_batches SET applied_at = now() - interval '1 day'")
    async with side.engine.begin() as connection:
        await empty_batches(connection, 60)
        found = await quarantine_store.find_quarantined(connection, REQUESTS, 1, 1)
    assert found is not None
    assert found[1] == long
    await Quarantine(side.engine, Network.RESPONSE).drop(REQUESTS, 1, 1, "tests", "invented")
    await change(side, "UPDATE quarantined_records SET dropped_at = now() - interval '1 day'")
    async with side.engine.begin() as connection:
        await empty_batches(connection, 60)
    assert await one(side, "SELECT payload FROM received_batches WHERE stream = 'requests'") is None


FALSE_RECEIPTS: dict[str, Callable[[], dict[str, Any]]] = {
    "of the year 9999": lambda: {"issued_at": "9999-12-31T23:59:59Z"},
    "beyond the year 9999": lambda: {"issued_at": "9999-12-31T23:59:59-14:00"},
    "of an hour from now": lambda: {"issued_at": datetime.now(UTC) + timedelta(hours=1)},
    "of an hour ago": lambda: {"issued_at": datetime.now(UTC) - timedelta(hours=1)},
    "more applied than received": lambda: {"applied": 2**63 - 1},
    "more quarantined than there can be": lambda: {"quarantined": 2**63 - 1},
    "more than 64 bits": lambda: {"quarantined": 2**63},
    "an epoch beyond all": lambda: {"epoch": 2**31},
}


@pytest.mark.parametrize("false", FALSE_RECEIPTS)
async def test_a_receipt_that_cannot_be_true_changes_nothing(attacked: Attacked, false: str) -> None:
    world, captured = attacked.world, attacked.captured
    state = "SELECT * FROM outgoing_streams WHERE stream = 'results'"
    await world.delivery.drain(RESULTS, lambda _: None)
    before = await table(world.networks.response, state)
    captured.answer("/streams/results", lambda _: Lie(200, captured.receipt(RESULTS, **FALSE_RECEIPTS[false]())))
    with pytest.raises((Malformed, ClockSkew)):
        await world.delivery.drain(RESULTS, lambda _: None)
    assert await table(world.networks.response, state) == before
    captured.liar = lambda _: None
    await works(world)


async def test_a_new_epoch_forgets_what_earlier_receipts_said(attacked: Attacked) -> None:
    """A database may still hold what an earlier version believed."""
    world = attacked.world
    await world.answered(1)
    await change(
        world.networks.response,
        "UPDATE outgoing_streams SET quarantined = 7, receipt_issued_at = '9999-01-01' WHERE stream = 'results'",
    )
    await new_epoch(world, RESULTS)
    await works(world)
    state = "SELECT quarantined, receipt_at > now() - interval '1 min' FROM outgoing_streams WHERE stream = 'results'"
    assert await table(world.networks.response, state) == [(0, True)]


@pytest.mark.parametrize("stream", [REQUESTS, RESULTS])
async def test_control_characters_in_a_refusal_do_not_keep_a_stream_from_stopping(
    attacked: Attacked, stream: StreamName
) -> None:
    world, captured = attacked.world, attacked.captured
    detail = "\0\x1b]52;c;eA==\x07\u202eforged\n\r" + "x" * 100_000
    body = orjson.dumps({"type": "urn:airlock:fork", "detail": detail, "expected": 2**80 // 2**20})
    captured.answer(f"/streams/{stream}", lambda _: Lie(422, body))
    with pytest.raises(Fork):
        await (world.pull.once(REQUESTS, 0) if stream is REQUESTS else world.delivery.drain(stream, lambda _: None))
    way = "incoming" if stream is REQUESTS else "outgoing"
    stopped = await one(
        world.networks.response, f"SELECT stopped FROM {way}_streams WHERE stream = :stream", stream=stream
    )
    assert stopped is not None
    assert "forged" in stopped
    assert len(stopped) <= 1000
    assert stopped.isprintable() or "\ufffd" in stopped
    assert not set(stopped) & set("\0\x1b\x07\u202e\n\r")
    captured.liar = lambda _: None
    await new_epoch(world, stream)
    await works(world)


async def test_any_reason_can_be_stored(attacked: Attacked) -> None:
    side = attacked.world.networks.response
    async with side.engine.begin() as connection:
        await attacked.world.pull.receiver.receipt(connection, REQUESTS)
        await stop_incoming(connection, REQUESTS, "\0\ud800" + "x" * 10_000)
    assert len(await one(side, "SELECT stopped FROM incoming_streams WHERE stream = 'requests'")) == 1000


async def test_answers_that_never_end_do_not_make_verifying_loop(attacked: Attacked) -> None:
    world, captured = attacked.world, attacked.captured
    await world.answered(1)
    asked = 0

    def lie(call: Asked) -> Lie | None:
        nonlocal asked
        asked += 1
        assert asked < 5000, "it goes on and on"
        stream = call.target.split("/")[4] if call.target.count("/") > 4 else ""
        if call.target.endswith("/repairs"):
            return Lie(200, b'{"rebuilt":0,"set_aside":1,"taken_up_again":false}')
        if not call.target.endswith("/summaries"):
            return None
        question = orjson.loads(call.body)
        if question["ask"] == "head":
            epochs = [{"epoch": 1, "through": 2**62}]
            head = {"network": "request", "stream": stream, "epoch": 1, "sequence": 2**62, "record": 2**62}
            rest = {"hash": "cd" * 32, "applied": 0, "epochs": epochs, "read_at": "2026-01-02T03:04:05Z"}
            return Lie(200, orjson.dumps(head | rest))
        if question["ask"] == "digest":
            return Lie(200, orjson.dumps({"count": 0, "digest": "ab" * 32}))
        return Lie(200, orjson.dumps({"through": question["first"], "batches": 1}))

    captured.liar = lie
    with pytest.raises(LinkError, match="claims"):
        await world.verify()
    captured.liar = lambda call: lie(call) if call.target.endswith("/repairs") else orphaned(call)

    def orphaned(call: Asked) -> Lie | None:
        if call.target.endswith("/summaries") and b'"orphans"' in call.body and b"results" in call.target.encode():
            finding = {
                "network": "request", "stream": "results", "table": "results", "kind": "extra", "sequence": 1,
                "request_id": str(new_id()), "detail": "\0\x1b[2J",
            }  # fmt: skip
            return Lie(200, orjson.dumps({"findings": [finding]}))
        return None

    reports, _ = await world.repair()
    assert not any("\x1b" in finding.detail for report in reports for finding in report.findings)


async def test_an_answer_that_trickles_ends(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time; the answer never does."""
    monkeypatch.setattr("exchange.carriers.http.TRANSFER_SECONDS", 0.5)
    gone = asyncio.Event()

    async def trickle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            gone.set()

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    side = attacked.world.networks.response
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    link = LinkClient(url, HttpSigner(side.keys, "test"), timeout=1.0)
    async with server:
        with pytest.raises(LinkUnavailable, match="Timeout"):
            await link.state(RESULTS)
        await link.aclose()
        async with asyncio.timeout(20):
            await gone.wait()
