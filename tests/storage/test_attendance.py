"""Who attends: one run at a time, until it leaves or its lease lapses; and no work falls between two runs."""

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from configuration.timing import LEASE_SECONDS, RENEW_SECONDS
from storage import attendance
from storage.attendance import Attendance, attend, leave
from tests.activities.crossing import change, one
from tests.activities.residents import attendant
from tests.conftest import Networks
from tests.listening import eventually

SUBJECT = "something to do"
LOCKED = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"


async def tries(networks: Networks, attendant: str, subject: str = SUBJECT) -> bool:
    async with networks.request.engine.begin() as connection:
        return await attend(connection, subject, attendant)


async def attended(networks: Networks) -> bool:
    return await attendant(networks.request, SUBJECT) is not None


async def somebody_waits_for_a_lock(networks: Networks) -> bool:
    return bool(await one(networks.request, LOCKED))


async def lapse(networks: Networks) -> None:
    await change(networks.request, "UPDATE attendances SET attended_until = now() - interval '1 ms'")


async def nothing(_: AsyncConnection) -> bool:
    return False


async def something(_: AsyncConnection) -> bool:
    return True


async def test_one_attends_to_a_subject_and_may_renew_that(networks: Networks) -> None:
    assert not await attended(networks)
    assert [await tries(networks, name) for name in ("one", "other", "one")] == [True, False, True]
    assert await tries(networks, "other", "something else")
    assert await attended(networks)


async def test_a_renewal_prolongs_the_lease_and_a_refusal_does_not(networks: Networks) -> None:
    await tries(networks, "one")
    left = "SELECT extract(epoch FROM attended_until - now())::float8 FROM attendances"
    await change(networks.request, "UPDATE attendances SET attended_until = now() + interval '1 s'")
    await tries(networks, "other")
    assert await one(networks.request, left) <= 1
    await tries(networks, "one")
    assert LEASE_SECONDS - 1 < await one(networks.request, left) <= LEASE_SECONDS
    assert RENEW_SECONDS < LEASE_SECONDS / 2, "one renewal may fail"


async def test_the_lease_of_a_run_that_died_lapses_and_another_takes_its_place(networks: Networks) -> None:
    await tries(networks, "dead")
    await lapse(networks)
    assert not await attended(networks)
    assert await tries(networks, "other")
    assert not await tries(networks, "dead"), "should it not be dead after all"


async def test_a_run_renews_in_time_and_hears_that_another_one_took_over(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Attendance(networks.request.engine, SUBJECT, "run")
    assert await run.renew_in_time()
    await lapse(networks)
    assert await run.renew_in_time(), "not asked again before it is time"
    assert not await attended(networks)
    monkeypatch.setattr(attendance, "RENEW_SECONDS", 0.0)
    run = Attendance(networks.request.engine, SUBJECT, "run")
    assert await run.renew_in_time()
    assert await attended(networks)
    await lapse(networks)
    assert await tries(networks, "other")
    assert not await run.renew_in_time()


async def test_a_run_leaves_unless_work_came_in(networks: Networks) -> None:
    run = Attendance(networks.request.engine, SUBJECT, "run")
    await run.renew_in_time()
    assert not await run.leave_unless(something)
    assert not await tries(networks, "other"), "it stays"
    assert await run.leave_unless(nothing)
    assert not await attended(networks)
    assert await tries(networks, "other")


async def test_leaving_takes_no_others_place(networks: Networks) -> None:
    run = Attendance(networks.request.engine, SUBJECT, "run")
    await run.renew_in_time()
    await lapse(networks)
    assert await tries(networks, "other")
    assert await run.leave_unless(nothing)
    assert await attended(networks)


async def test_work_committed_by_whom_was_told_that_a_run_attends_is_seen_before_it_leaves(networks: Networks) -> None:
    run = Attendance(networks.request.engine, SUBJECT, "run")
    await run.renew_in_time()
    work = "INSERT INTO idempotency_keys VALUES (gen_random_uuid(), 'work', '', '{}')"

    async def is_work_left(connection: AsyncConnection) -> bool:
        found = await connection.exec_driver_sql("SELECT count(*) FROM idempotency_keys")
        return bool(found.scalar())

    async with networks.request.engine.begin() as connection:
        assert not await attend(connection, SUBJECT, "new run")
        leaving = asyncio.create_task(run.leave_unless(is_work_left))
        await eventually(lambda: somebody_waits_for_a_lock(networks))
        await connection.exec_driver_sql(work)
    assert not await leaving
    assert not await tries(networks, "new run")


async def test_whoever_commits_work_while_a_run_leaves_waits_and_finds_nobody(networks: Networks) -> None:
    assert await tries(networks, "run")
    async with networks.request.engine.begin() as connection:
        await leave(connection, SUBJECT, "run")
        accepting = asyncio.create_task(tries(networks, "new run"))
        await eventually(lambda: somebody_waits_for_a_lock(networks))
    assert await accepting


async def test_a_run_that_stays_after_all_is_found_by_whoever_waited(networks: Networks) -> None:
    assert await tries(networks, "run")
    async with networks.request.engine.connect() as connection, connection.begin() as transaction:
        await leave(connection, SUBJECT, "run")
        accepting = asyncio.create_task(tries(networks, "new run"))
        await eventually(lambda: somebody_waits_for_a_lock(networks))
        await transaction.rollback()
    assert not await accepting
