"""Submissions go to the partition of their user, each of which commits by itself."""

import asyncio
from collections.abc import Callable
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from api.request.submitting import CommittedGroup, GroupCommit, Submission
from exchange.sealing import Sealer
from models.streams import StreamName, partition_of


class PartitionedCommit:
    """A `GroupCommit` for each partition: none waits for another one's lock. A submission is one user's, hence of one
    partition, whose lock also guards its idempotency key.
    """

    def __init__(
        self, engine: AsyncEngine, sealer: Sealer, committed: Callable[[CommittedGroup], None], partitions: int = 1
    ) -> None:
        self._commits = [
            GroupCommit(engine, sealer, committed, stream) for stream in StreamName.REQUESTS.partitions(partitions)
        ]

    async def submit(self, submission: Submission) -> tuple[UUID, ...]:
        """See `GroupCommit.submit`."""
        number = partition_of(submission.requests[0].user_id, len(self._commits))
        return await self._commits[number].submit(submission)

    async def run(self) -> None:
        """Commit groups for ever; ends as a whole where one of them breaks."""
        async with asyncio.TaskGroup() as group:
            for commit in self._commits:
                group.create_task(commit.run())
