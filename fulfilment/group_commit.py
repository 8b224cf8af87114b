"""Group commit: requests that arrive at about the same time are sealed as one batch in one transaction."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from exchange.errors import StreamStopped
from exchange.transfer.outgoing import lock_sealing
from exchange.transfer.rate_limiter import RateLimiter
from exchange.transfer.sealing import Sealer
from exchange.wire.manifest import MAX_RAW_BYTES, MAX_RECORDS
from fulfilment.request_store import (
    IdempotencyKey,
    NewRequest,
    find_idempotency_keys,
    store_idempotency_keys,
    store_submitted,
)
from models.errors import AirlockError, IdempotencyKeyReused, Unavailable
from models.looks import until_look
from models.streams import BatchRef, StreamName
from storage.database import is_unreachable, notify

log = structlog.get_logger(__name__)

SPACING_SECONDS = 0.1
"""Least time from one group to the next, so that groups grow under load. A single call does not wait."""
FULL_SUBMISSIONS = 40
"""This many waiting calls are committed without waiting for `SPACING_SECONDS`: enough of them share the cost."""
MAX_WAITING_RECORDS = 4 * MAX_RECORDS
"""Further requests are refused while this many wait, since the database cannot keep up."""


@dataclass(frozen=True)
class Submission:
    """The requests of one call and their records for the link."""

    requests: Sequence[NewRequest]
    records: Sequence[bytes]
    idempotency: IdempotencyKey | None
    committed: "asyncio.Future[tuple[UUID, ...]]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def size(self) -> int:
        return sum(len(record) + 1 for record in self.records)


@dataclass(frozen=True)
class CommittedGroup:
    """A committed group. ``look_in``: seconds from the commit until its workflow must look at it."""

    group: BatchRef
    look_in: float
    committed_at: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds from now until that look."""
        return max(0.0, self.committed_at + self.look_in - time.monotonic())


class GroupCommit:
    """Commits submissions in groups. The next group fills while the last one is committed."""

    def __init__(
        self,
        engine: AsyncEngine,
        sealer: Sealer,
        committed: Callable[[CommittedGroup], None],
    ) -> None:
        self._engine = engine
        self._sealer = sealer
        self._committed = committed
        self._waiting: list[Submission] = []
        self._waiting_records = 0
        self._arrived = asyncio.Event()
        self._full = asyncio.Event()

    async def submit(self, submission: Submission) -> tuple[UUID, ...]:
        """Commit the requests and return their ids. A repeated idempotency key returns the ids of its first use.

        Raises `IdempotencyKeyReused`, or `Unavailable` if nothing was accepted.
        """
        if self._waiting_records + len(submission.records) > MAX_WAITING_RECORDS:
            raise Unavailable("Too many requests are waiting to be stored; this one was not accepted. Try again")
        self._waiting.append(submission)
        self._waiting_records += len(submission.records)
        self._arrived.set()
        if len(self._waiting) >= FULL_SUBMISSIONS:
            self._full.set()
        return await submission.committed

    async def run(self) -> None:
        """Commit groups for ever. When cancelled, commit the current group and all waiting submissions first."""
        limiter = RateLimiter(SPACING_SECONDS)
        committing: asyncio.Task[None] | None = None
        try:
            while True:
                await self._arrived.wait()
                await self._fill(limiter.left())
                limiter.take()
                committing = asyncio.create_task(self._commit_group(self._take()))
                await asyncio.shield(committing)
        finally:
            if committing is not None:
                await committing
            while self._waiting:
                await self._commit_group(self._take())

    async def _fill(self, seconds: float) -> None:
        """Wait for ``seconds``, or until `FULL_SUBMISSIONS` wait."""
        if seconds > 0 and not self._full.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._full.wait()
            except TimeoutError:
                pass

    def _take(self) -> list[Submission]:
        """Take as many submissions as fit one batch, in order."""
        group: list[Submission] = []
        records = size = 0
        while self._waiting:
            following = self._waiting[0]
            if group and (records + len(following.records) > MAX_RECORDS or size + following.size > MAX_RAW_BYTES):
                break
            group.append(self._waiting.pop(0))
            records, size = records + len(following.records), size + following.size
        self._waiting_records -= records
        if not self._waiting:
            self._arrived.clear()
        if len(self._waiting) < FULL_SUBMISSIONS:
            self._full.clear()
        return group

    async def _commit_group(self, group: Sequence[Submission]) -> None:
        """Commit in one transaction. After an unexpected error, commit each alone, so that only one fails."""
        try:
            await self._commit(group)
        except StreamStopped as error:
            _answer(group, refused_while_stopped(error))
        except Exception as error:
            if len(group) > 1 and not is_unreachable(error) and not isinstance(error, AirlockError):
                log.error("submission.group_failed", size=len(group), error=type(error).__name__)
                for alone in group:
                    await self._commit_group([alone])
                return
            _answer(group, error)

    async def _commit(self, group: Sequence[Submission]) -> None:
        answers: list[tuple[Submission, tuple[UUID, ...] | AirlockError]] = []
        async with self._engine.begin() as connection:
            fresh = await self._without_repeated(connection, group, answers)
            batch: BatchRef | None = None
            requests = [request for submission in fresh for request in submission.requests]
            if requests:
                records = [record for submission in fresh for record in submission.records]
                batch = await self._sealer.seal(connection, StreamName.REQUESTS, records)
                await store_submitted(connection, batch, requests)
                await store_idempotency_keys(connection, [item.idempotency for item in fresh if item.idempotency])
                await notify(connection, f"sealed {StreamName.REQUESTS}")
        if batch is not None:
            self._committed(CommittedGroup(batch, look_in(requests)))
        answers += [(item, tuple(request.request_id for request in item.requests)) for item in fresh]
        for submission, answer in answers:
            with suppress(asyncio.InvalidStateError):  # the caller has gone; its requests are accepted
                if isinstance(answer, AirlockError):
                    submission.committed.set_exception(answer)
                else:
                    submission.committed.set_result(answer)

    async def _without_repeated(
        self,
        connection: AsyncConnection,
        group: Sequence[Submission],
        answers: list[tuple[Submission, tuple[UUID, ...] | AirlockError]],
    ) -> list[Submission]:
        """Add an answer for each submission whose idempotency key was used before. Return the other submissions."""
        keys = [(item.idempotency.user_id, item.idempotency.key) for item in group if item.idempotency]
        if not keys:
            return list(group)
        await lock_sealing(connection, StreamName.REQUESTS)  # no other process can use these keys before the commit
        known = await find_idempotency_keys(connection, keys)
        fresh: list[Submission] = []
        for submission in group:
            mine = submission.idempotency
            if mine is None:
                fresh.append(submission)
                continue
            first = known.setdefault((mine.user_id, mine.key), mine)
            if first is mine:
                fresh.append(submission)
            elif first.fingerprint == mine.fingerprint:
                answers.append((submission, first.request_ids))
            else:
                answers.append(
                    (submission, IdempotencyKeyReused("This Idempotency-Key was used with another body; use a new key"))
                )
        return fresh


def _answer(group: Sequence[Submission], error: Exception) -> None:
    for submission in group:
        if not submission.committed.done():
            submission.committed.set_exception(error)


def refused_while_stopped(error: StreamStopped) -> Unavailable:
    """The error for callers while the stream waits for an operator's decision."""
    return Unavailable(f"Nothing is accepted until an operator has repaired the link: {error}")


def look_in(requests: Sequence[NewRequest]) -> float:
    """Seconds until the group's workflow must look: 0 if callbacks are wanted, since that workflow makes them."""
    if any(request.callback_url for request in requests):
        return 0.0
    deadlines = [request.deadline_at - request.submitted_at for request in requests if request.deadline_at is not None]
    return until_look(0, min(deadlines).total_seconds() if deadlines else None)
