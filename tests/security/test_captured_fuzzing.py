"""Thousands of validly signed lies: no stuck stream, no growth beyond bounds, recovery by the documented commands.

A hundred thousand by ``AIRLOCK_FUZZED_LIES=100000 ./airlock test tests/security/test_captured_fuzzing.py -s``.
"""

import os
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import SQLAlchemyError

from exchange.errors import LinkError, StreamStopped
from exchange.link_keys.introduction import KeyExchange
from exchange.link_keys.lists import MOST_NEW
from exchange.link_keys.live_keys import LiveKeys
from exchange.link_keys.states import revoke_introduced
from exchange.recovery.discarding import discard_waiting
from exchange.recovery.quarantine import Quarantine
from exchange.transfer import quarantine_store
from exchange.wire.manifest import MAX_RECORDS
from execution.request_types import put_request_type
from models.errors import AirlockError
from models.streams import Network, StreamName
from monitoring.key_alarms import announce_new_keys
from monitoring.link_attempts import record_failure
from monitoring.link_watch import classify
from tests.activities.crossing import LINK, one, table
from tests.epochs.backups import back_up, restore
from tests.exchange.kept_networks import empty
from tests.security.captured import Chain
from tests.security.conftest import Attacked
from tests.security.lies import Lies
from tests.security.test_captured_recovery import new_epoch, works

COUNT = int(os.environ.get("AIRLOCK_FUZZED_LIES", "1000"))
SEED = int(os.environ.get("AIRLOCK_FUZZ_SEED", "1"))
A_CAPTURE = 1000
"""Lies until the network is restored and everything must work again."""
REQUESTS, RESULTS = StreamName.REQUESTS, StreamName.RESULTS
EXECUTOR = {"kind": "python", "function": "tests.activities.functions:rows"}
MOST_ROWS, MOST_BYTES = 300, 2 * 2**20


async def test_whatever_is_signed_every_stream_recovers_and_nothing_grows_beyond_its_bound(
    attacked: Attacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine_store, "MOST_ROWS", MOST_ROWS)
    monkeypatch.setattr(quarantine_store, "MOST_BYTES", MOST_BYTES)
    world, captured = attacked.world, attacked.captured
    lies, errors = Lies(SEED, captured), Counter[str]()
    side = world.networks.response
    live = LiveKeys(side.engine, Network.RESPONSE, side.keys_directory)
    exchange = KeyExchange(live, world.link, LINK, announce_new_keys)
    turns = 0
    while captured.told < COUNT:
        await empty(world.networks)  # histories of hundreds of epochs are slow to verify
        async with side.engine.begin() as connection:
            await put_request_type(connection, "rows", "", {"type": "object"}, {}, EXECUTOR, "test")
        await world.answered(2)
        await back_up(world.networks.request.engine)
        began = datetime.now(UTC) - timedelta(seconds=1)
        until = min(COUNT, captured.told + A_CAPTURE)
        await _go_on_from_here(attacked)
        captured.liar = lies.about
        while captured.told < until:
            turns += 1
            await _one_turn(attacked, exchange, turns, errors)
        await _is_bounded(attacked)
        captured.liar = lambda _: None
        await restore(world.networks.request.engine)
        await _recover(attacked, live, began)
    print(f"\n{captured.told} lies, seed {SEED}: {lies.kinds}")
    print(f"  refused: {dict(errors.most_common())}")
    assert {"answer", "receipt", "refusal", "head", "digest", "keys"} <= lies.kinds.keys()


async def _one_turn(attacked: Attacked, exchange: KeyExchange, turn: int, errors: Counter[str]) -> None:
    """What the response network does all the time, and what its operators do; each error is one of ours."""
    world = attacked.world
    engine = world.networks.response.engine

    async def pull() -> None:
        for _ in range(4):
            if batch := await world.pull.once(REQUESTS, 0, 3):
                await world.execute(batch)

    async def deliver() -> None:
        await world.delivery.drain(RESULTS, lambda _: None)

    async def confirm() -> None:
        await world.pull.confirm(REQUESTS)

    async def verify() -> None:
        await world.repair()

    async def begin() -> None:
        stream = (REQUESTS, RESULTS)[turn // 50 % 2]
        await new_epoch(world, stream)
        if stream is REQUESTS:
            await _go_on_from_here(attacked)

    work = {0: verify, 5: begin, 10: exchange.once, 20: deliver, 30: confirm}.get(turn % 50, pull)
    if turn % 3 == 0 and work is pull:
        work = deliver
    try:
        await work()
    except SQLAlchemyError:
        raise  # the database is the last place that may refuse what came
    except AirlockError as error:
        errors[type(error).__name__] += 1
        if isinstance(error, StreamStopped):
            await _begin_again(attacked)
        if isinstance(error, LinkError):
            async with engine.begin() as connection:
                await record_failure(connection, RESULTS, classify(error))


async def _begin_again(attacked: Attacked) -> None:
    """The real network answers an operator for a moment, so that the attack does not end with the first stop."""
    captured = attacked.captured
    liar, captured.liar = captured.liar, lambda _: None
    await Quarantine(attacked.world.networks.response.engine, Network.RESPONSE).drop_all(REQUESTS, "tests", "invented")
    for stream in (REQUESTS, RESULTS):
        await new_epoch(attacked.world, stream)
    await _go_on_from_here(attacked)
    captured.liar = liar


async def _go_on_from_here(attacked: Attacked) -> None:
    """The attacker's batches follow the newest that the response network has."""
    side, chain = attacked.world.networks.response, attacked.captured.chain
    found = await table(side, "SELECT epoch, sequence, record, hash FROM incoming_streams WHERE stream = 'requests'")
    epoch, sequence, record, head = found[0]
    attacked.captured.chain = Chain(chain.keys, chain.stream, epoch, sequence, record, head)


async def _is_bounded(attacked: Attacked) -> None:
    side = attacked.world.networks.response
    rows, size = (await table(
        side,
        "SELECT count(*), coalesce(sum(octet_length(body)), 0) FROM quarantined_records"
        " WHERE applied_at IS NULL AND dropped_at IS NULL",
    ))[0]  # fmt: skip
    assert rows <= MOST_ROWS + MAX_RECORDS
    assert size <= MOST_BYTES + MAX_RECORDS * quarantine_store.SHORTENED_BYTES
    assert await one(side, "SELECT count(*) FROM received_batches WHERE records = 0 AND stream = 'requests'") == 0
    assert await one(side, "SELECT count(*) FROM link_keys WHERE introduced_by IS NOT NULL") <= MOST_NEW
    assert await one(side, "SELECT coalesce(max(length(detail)), 0) FROM link_attempts") <= 1000


async def _recover(attacked: Attacked, live: LiveKeys, began: datetime) -> None:
    """As docs/failures.md tells an operator of a captured network."""
    world, engine = attacked.world, attacked.world.networks.response.engine
    await revoke_introduced(live, began)
    await discard_waiting(engine, began, None, "tests", "invented")
    await Quarantine(engine, Network.RESPONSE).drop_all(REQUESTS, "tests", "invented")
    await new_epoch(world, REQUESTS, discard_since=began)
    await new_epoch(world, RESULTS)
    while batch := await world.pull.once(REQUESTS, 0):
        await world.execute(batch)
    await world.carry_on()
    await Quarantine(world.networks.request.engine, Network.REQUEST).drop_all(RESULTS, "tests", "for invented requests")
    await works(world)
    assert await one(world.networks.response, "SELECT quarantined FROM outgoing_streams WHERE stream = 'results'") == 0
