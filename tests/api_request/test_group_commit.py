"""Group commit: what arrives together is one batch and one group, and one submission never harms another."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError
from uuid_utils.compat import uuid7

from exchange.transfer.outgoing import lock_sealing, outgoing_stream, stop_outgoing
from exchange.transfer.sealing import Sealer
from exchange.wire.manifest import MAX_RECORDS
from fulfilment.group_commit import (
    FULL_SUBMISSIONS,
    MAX_WAITING_RECORDS,
    CommittedGroup,
    GroupCommit,
    Submission,
    look_in,
)
from fulfilment.request_store import NewRequest
from models.errors import Unavailable
from models.looks import LOOKS
from models.streams import StreamName
from storage.database import rows, value
from tests.api_request.serving import eventually
from tests.conftest import Networks, Side


class Group:
    """A `GroupCommit` that has not begun, and what it said to have committed."""

    def __init__(self, side: Side) -> None:
        self.committed: list[CommittedGroup] = []
        self.commits = GroupCommit(side.engine, Sealer(side.keys, "test"), self.committed.append)

    def submit(self, *submissions: Submission) -> "list[asyncio.Task[tuple[UUID, ...]]]":
        return [asyncio.create_task(self.commits.submit(submission)) for submission in submissions]

    async def settle(self, waiting: "list[asyncio.Task[tuple[UUID, ...]]]") -> list[Any]:
        """Begin, and give what each submission came to."""
        await asyncio.sleep(0)  # all have been submitted before the first group is taken
        running = asyncio.create_task(self.commits.run())
        try:
            return list(await asyncio.gather(*waiting, return_exceptions=True))
        finally:
            running.cancel()
            await asyncio.wait((running,))


def submission(size: int = 1, priority: int = 5) -> Submission:
    now = datetime.now(UTC)
    requests = [
        NewRequest(uuid7(), UUID(int=1), "anything", None, priority, b"{}", None, now, None) for _ in range(size)
    ]
    return Submission(requests, [b'{"request_id":"%s"}' % str(item.request_id).encode() for item in requests], None)


@pytest.mark.parametrize(
    ("deadlines", "callback", "seconds"),
    [
        ([None, None], None, LOOKS[0]),
        ([None, 3.0, 4.0], None, 3.0),
        ([600.0], None, LOOKS[0]),
        ([None, None], "https://hooks.example/", 0.0),
    ],
)
async def test_a_group_is_looked_at_in_time_for_its_earliest_deadline_and_at_once_for_callbacks(
    deadlines: list[float | None], callback: str | None, seconds: float
) -> None:
    [request] = submission().requests
    requests = [
        replace(request, deadline_at=None if each is None else request.submitted_at + timedelta(seconds=each))
        for each in deadlines
    ]
    requests[-1] = replace(requests[-1], callback_url=callback)
    assert look_in(requests) == seconds


@pytest.fixture
def side(fresh: Networks) -> Side:
    return fresh.request


async def sizes(side: Side) -> list[int]:
    """Records of each sealed batch, which must be those of each group."""
    async with side.engine.connect() as connection:
        batches = await rows(connection, "SELECT sequence, records FROM sealed_batches ORDER BY sequence")
        groups = await rows(connection, "SELECT sequence, size FROM request_groups ORDER BY sequence")
        kept = await rows(connection, "SELECT sequence, count(*) FROM requests GROUP BY sequence ORDER BY sequence")
    assert list(map(tuple, batches)) == list(map(tuple, groups)) == list(map(tuple, kept))
    return [size for _, size in batches]


async def test_what_arrives_together_is_one_batch_and_one_group_and_every_id_is_there_once(side: Side) -> None:
    group = Group(side)
    submissions = [submission() for _ in range(200)]
    answers = await group.settle(group.submit(*submissions))
    assert answers == [(item.requests[0].request_id,) for item in submissions]
    assert await sizes(side) == [200]
    assert [(item.group.sequence, item.group.records) for item in group.committed] == [(1, 200)]


async def test_a_group_never_outgrows_a_batch_and_a_submission_is_never_split(side: Side) -> None:
    group = Group(side)
    submissions = [submission(3000), submission(1500), submission(1000), submission(1)]
    assert MAX_RECORDS == 5000
    answers = await group.settle(group.submit(*submissions))
    assert [len(ids) for ids in answers] == [3000, 1500, 1000, 1]
    assert await sizes(side) == [4500, 1001]


async def test_a_submission_that_cannot_be_stored_does_not_harm_its_neighbours(side: Side) -> None:
    group = Group(side)
    poison = submission(priority=70_000)
    before, after = submission(2), submission(3)
    answers = await group.settle(group.submit(before, poison, after))
    assert answers[0] == tuple(item.request_id for item in before.requests)
    assert isinstance(answers[1], DBAPIError)
    assert answers[2] == tuple(item.request_id for item in after.requests)
    assert sum(await sizes(side)) == 5


async def test_a_caller_who_went_away_does_not_harm_its_neighbours(side: Side) -> None:
    group = Group(side)
    gone, stays = group.submit(submission(), submission())
    await asyncio.sleep(0)
    gone.cancel()
    _, ids = await group.settle([gone, stays])
    assert len(ids) == 1
    assert await sizes(side) == [2]


async def test_more_than_can_be_stored_is_refused_and_what_waits_is_stored(side: Side) -> None:
    group = Group(side)
    whole = [submission(MAX_RECORDS) for _ in range(MAX_WAITING_RECORDS // MAX_RECORDS)]
    answers = await group.settle(group.submit(*whole, submission()))
    assert [len(ids) for ids in answers[:-1]] == [MAX_RECORDS] * len(whole)
    assert isinstance(answers[-1], Unavailable)
    assert len(await group.settle(group.submit(submission()))) == 1


async def test_a_group_that_commits_while_the_server_stops_is_answered(side: Side) -> None:
    group = Group(side)
    answered_at_the_end: list[bool] = []
    async with side.engine.begin() as holder:
        await lock_sealing(holder, StreamName.REQUESTS)
        (under_way,) = group.submit(submission())
        running = asyncio.create_task(group.commits.run())
        running.add_done_callback(lambda _: answered_at_the_end.append(under_way.done()))

        async def waits_for_its_turn() -> bool:
            query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
            return bool(await value(holder, query))

        await eventually(waits_for_its_turn, "the group waits for the sealer before it")
        running.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
    await asyncio.wait((running,))
    assert answered_at_the_end == [True]
    assert await sizes(side) == [1]


async def test_after_a_fork_submissions_are_refused_as_not_available(fresh: Networks) -> None:
    async with fresh.request.engine.begin() as connection:
        await outgoing_stream(connection, StreamName.REQUESTS)
        await stop_outgoing(connection, StreamName.REQUESTS, "two histories")
    group = Group(fresh.request)
    answers = await group.settle(group.submit(submission(), submission()))
    assert [type(item) for item in answers] == [Unavailable] * 2
    assert "two histories" in str(answers[0])
    assert await sizes(fresh.request) == []


async def test_a_full_group_does_not_wait_for_its_time(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fulfilment.group_commit.SPACING_SECONDS", 3600.0)
    group = Group(side)
    running = asyncio.create_task(group.commits.run())
    try:
        for _ in range(2):  # what comes after a rest, and what comes right after that
            await asyncio.gather(*group.submit(submission()))
        await asyncio.gather(*group.submit(*(submission() for _ in range(FULL_SUBMISSIONS))))
        too_few = group.submit(*(submission() for _ in range(FULL_SUBMISSIONS - 1)))
        await asyncio.gather(*group.submit(submission()), *too_few)
    finally:
        running.cancel()
        await asyncio.wait((running,))
    assert await sizes(side) == [1, 1, FULL_SUBMISSIONS, FULL_SUBMISSIONS]


async def test_what_waits_for_its_time_is_committed_when_the_server_stops(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fulfilment.group_commit.SPACING_SECONDS", 3600.0)
    group = Group(side)
    running = asyncio.create_task(group.commits.run())
    for _ in range(2):
        await asyncio.gather(*group.submit(submission()))
    waiting = group.submit(submission(), submission())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait((running,))
    await asyncio.gather(*waiting)
    assert await sizes(side) == [1, 1, 2]
