"""A run of `ImportBatch` attends to results: it applies what follows, and PostgreSQL says whether it attends."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from temporalio.testing import ActivityEnvironment

from activities import importing
from activities.importing import ImportActivities
from exchange.transfer.receiving import Acceptance, Receiver
from models.outcomes import ApplyOutcome
from models.streams import BatchRef, StreamName
from orchestration import resident
from storage.database import connect
from storage.notices import NotificationListener, received
from tests.activities.crossing import LINK, change, new_id, one, result_record, submit, table
from tests.activities.residents import attend_briefly, attendant, run_of
from tests.conftest import Networks, Side
from tests.link.batches import seal
from tests.listening import eventually, listening
from tests.protocol.commits import Commits

RESULTS = StreamName.RESULTS


@pytest.fixture
async def listener(networks: Networks) -> AsyncIterator[NotificationListener]:
    async with listening(networks.request) as listener:
        yield listener


@pytest.fixture
def work(networks: Networks, listener: NotificationListener) -> ImportActivities:
    return ImportActivities(networks.request.engine, listener)


def receiver(side: Side) -> Receiver:
    return Receiver(side.engine, side.keys, LINK)


async def send(networks: Networks, *request_ids: UUID) -> Acceptance:
    """Results of these requests, in one batch, as the link brings it."""
    wire = await seal(networks.response, RESULTS, *map(result_record, request_ids))
    return await receiver(networks.request).accept(RESULTS, wire)


async def has_applied(networks: Networks, batches: int) -> bool:
    found = await one(networks.request, "SELECT count(*) FROM received_batches WHERE applied_at IS NOT NULL")
    return bool(found == batches)


async def somebody_waits_for_a_lock(networks: Networks) -> bool:
    return bool(await one(networks.request, "SELECT count(*) FROM pg_locks WHERE NOT granted"))


def first_of(acceptance: Acceptance) -> ActivityEnvironment:
    """An activity of the run that this acceptance asks for."""
    assert acceptance.starts_import
    return run_of(acceptance.batch.workflow_id("apply"))


async def test_the_batches_that_follow_are_applied_at_once_without_another_run(
    networks: Networks, work: ImportActivities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "RENEW_SECONDS", 600.0)  # it looks at a notice only
    ids = [new_id() for _ in range(4)]
    await submit(networks, *ids)
    first = await send(networks, ids[0])
    environment = first_of(first)
    attending = asyncio.create_task(environment.run(work.apply_and_attend, first.batch))
    await eventually(lambda: has_applied(networks, 1))
    for number, key in enumerate(ids[1:], start=2):
        assert not (await send(networks, key)).starts_import
        await eventually(lambda number=number: has_applied(networks, number))  # type: ignore[misc]
    assert not attending.done()
    environment.worker_shutdown()
    outcome = await attending
    assert (outcome.batches, outcome.records, outcome.unfinished) == (4, 4, True)
    assert await attendant(networks.request) == first.batch.workflow_id("apply"), "its next activity goes on"


async def test_a_second_run_leaves_everything_to_the_first(
    networks: Networks, work: ImportActivities, listener: NotificationListener
) -> None:
    ids = [new_id() for _ in range(2)]
    await submit(networks, *ids)
    first = await send(networks, ids[0])
    environment = first_of(first)
    attending = asyncio.create_task(environment.run(work.apply_and_attend, first.batch))
    await eventually(lambda: has_applied(networks, 1))
    attending.cancel()  # it is held up: what comes is not applied
    with pytest.raises(asyncio.CancelledError):
        await attending
    second = await send(networks, ids[1])
    other = ImportActivities(networks.request.engine, listener)
    outcome = await run_of(second.batch.workflow_id("apply")).run(other.apply_and_attend, second.batch)
    assert outcome == ApplyOutcome()
    assert await has_applied(networks, 1)
    attending = asyncio.create_task(first_of(first).run(work.apply_and_attend, first.batch))
    await eventually(lambda: has_applied(networks, 2))
    attending.cancel()


async def test_when_the_run_that_attended_is_dead_the_next_batch_has_a_run_of_its_own(
    networks: Networks, work: ImportActivities, monkeypatch: pytest.MonkeyPatch
) -> None:
    attend_briefly(monkeypatch)
    ids = [new_id() for _ in range(3)]
    await submit(networks, *ids)
    assert (await send(networks, ids[0])).starts_import  # and whoever accepted it died before it started the run
    assert not (await send(networks, ids[1])).starts_import
    await change(networks.request, "UPDATE attendances SET attended_until = now()")
    third = await send(networks, ids[2])
    outcome = await first_of(third).run(work.apply_and_attend, third.batch)
    assert outcome.batches == 3, "with all that was left"


async def test_a_run_that_lost_its_place_ends(
    networks: Networks, work: ImportActivities, listener: NotificationListener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.attendance.RENEW_SECONDS", 0.0)
    key = new_id()
    await submit(networks, key)
    first = await send(networks, key)
    attending = asyncio.create_task(first_of(first).run(work.apply_and_attend, first.batch))
    await eventually(lambda: has_applied(networks, 1))
    await change(networks.request, "UPDATE attendances SET attendant = 'another'")
    listener.hear(received(RESULTS))
    async with asyncio.timeout(10):
        outcome = await attending
    assert (outcome.batches, outcome.unfinished) == (1, False)
    assert await attendant(networks.request) == "another"


async def test_with_nothing_more_to_come_a_run_leaves_and_the_next_batch_has_a_run_of_its_own(
    networks: Networks, work: ImportActivities, monkeypatch: pytest.MonkeyPatch
) -> None:
    attend_briefly(monkeypatch)
    ids = [new_id() for _ in range(2)]
    await submit(networks, *ids)
    for key in ids:
        acceptance = await send(networks, key)
        outcome = await first_of(acceptance).run(work.apply_and_attend, acceptance.batch)
        assert (outcome.batches, outcome.unfinished) == (1, False)
        assert await attendant(networks.request) is None


async def test_a_batch_that_is_accepted_while_the_run_leaves_is_applied_by_it(
    networks: Networks, work: ImportActivities, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The acceptance was told that a run attends, and has not committed yet."""
    attend_briefly(monkeypatch)
    ids = [new_id() for _ in range(2)]
    await submit(networks, *ids)
    first = await send(networks, ids[0])
    wire = await seal(networks.response, RESULTS, result_record(ids[1]))
    engine = connect(networks.request.url, 1, "accepting")
    commits = Commits(engine)
    try:
        held = commits.hold_at(1)
        accepting = asyncio.create_task(Receiver(engine, networks.request.keys, LINK).accept(RESULTS, wire))
        async with asyncio.timeout(10):
            await held.reached.wait()
        attending = asyncio.create_task(first_of(first).run(work.apply_and_attend, first.batch))
        await eventually(lambda: somebody_waits_for_a_lock(networks))
        commits.release()
        second, outcome = await accepting, await attending
    finally:
        commits.release()
        commits.restore()
        await engine.dispose()
    assert not second.starts_import
    assert outcome.batches == 2
    assert await attendant(networks.request) is None


async def test_acceptance_asks_for_a_run_only_where_none_attends(networks: Networks) -> None:
    ids = [new_id() for _ in range(3)]
    wires = [await seal(networks.response, RESULTS, result_record(key)) for key in ids]
    accept = receiver(networks.request).accept
    assert [(await accept(RESULTS, wire)).starts_import for wire in (*wires[:2], wires[0])] == [True, False, False]
    await change(networks.request, "DELETE FROM attendances")
    assert not (await accept(RESULTS, wires[1])).starts_import, "nothing of it is new"
    assert (await accept(RESULTS, wires[2])).starts_import
    for _ in range(2):  # each snapshot has its run
        snapshot = await seal(networks.response, StreamName.HEALTH, b"{}")
        assert (await accept(StreamName.HEALTH, snapshot)).starts_import
    requests = await seal(networks.request, StreamName.REQUESTS, b"{}")
    assert not (await receiver(networks.response).accept(StreamName.REQUESTS, requests)).starts_import


async def test_an_acceptance_that_fails_leaves_nobody_attending(networks: Networks) -> None:
    wire = await seal(networks.response, RESULTS, result_record(new_id()))
    engine = connect(networks.request.url, 1, "accepting")
    commits = Commits(engine)
    try:
        held = commits.hold_at(1)
        accepting = asyncio.create_task(Receiver(engine, networks.request.keys, LINK).accept(RESULTS, wire))
        async with asyncio.timeout(10):
            await held.reached.wait()
        accepting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await accepting
    finally:
        commits.restore()
        await engine.dispose()
    assert await attendant(networks.request) is None
    assert (await receiver(networks.request).accept(RESULTS, wire)).starts_import


async def test_after_its_round_a_run_goes_on_with_another_activity(
    networks: Networks, work: ImportActivities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "ROUND_SECONDS", 0.0)
    ids = [new_id() for _ in range(3)]
    await submit(networks, *ids)
    acceptances = [await send(networks, key) for key in ids]
    batch = acceptances[0].batch
    outcome = await first_of(acceptances[0]).run(work.apply_and_attend, batch)
    assert (outcome.batches, outcome.unfinished) == (1, True), "after the batch under way"
    assert await attendant(networks.request) == batch.workflow_id("apply")


async def test_an_attempt_goes_on_counting_where_the_one_before_was_and_beats_with_its_counts(
    networks: Networks, work: ImportActivities, monkeypatch: pytest.MonkeyPatch
) -> None:
    attend_briefly(monkeypatch)
    ids = [new_id() for _ in range(2)]
    await submit(networks, *ids)
    acceptance = await send(networks, ids[0])
    await send(networks, ids[1])
    beats: list[tuple[object, ...]] = []
    earlier = ApplyOutcome(batches=5, records=50)
    environment = run_of(acceptance.batch.workflow_id("apply"), earlier.model_dump(), attempt=2)
    environment.on_heartbeat = lambda *details: beats.append(details)
    outcome = await environment.run(work.apply_and_attend, acceptance.batch)
    assert outcome == ApplyOutcome(batches=7, records=52)
    assert (ApplyOutcome(batches=6, records=51),) in beats


async def test_snapshots_are_applied_by_a_run_that_attends_to_nothing(
    networks: Networks, work: ImportActivities
) -> None:
    wire = await seal(networks.response, StreamName.HEALTH, b'{"status":"ok"}')
    acceptance = await receiver(networks.request).accept(StreamName.HEALTH, wire)
    outcome = await first_of(acceptance).run(work.apply_and_attend, acceptance.batch)
    assert (outcome.batches, outcome.unfinished) == (1, False)
    assert await table(networks.request, "SELECT subject FROM attendances") == []


async def test_a_later_snapshot_is_left_to_its_own_run(networks: Networks, work: ImportActivities) -> None:
    batches: list[BatchRef] = []
    for number in range(2):
        wire = await seal(networks.response, StreamName.HEALTH, b"%d" % number)
        batches.append((await receiver(networks.request).accept(StreamName.HEALTH, wire)).batch)
    outcome = await run_of("apply-health-1.1").run(work.apply_and_attend, batches[0])
    assert outcome.batches == 1
