"""Starting workflows for what was committed, now or, when Temporal is away, as soon as it is back."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from activities.applying import tell_groups
from activities.quarantining import Quarantine
from api.request.submitting import CommittedGroup
from configuration.temporal import TASK_TIMEOUT, task_queue
from models.outcomes import BRIEF, STANDS_BY
from models.streams import BatchRef, Network, StreamName
from storage.database import autocommit, is_unreachable
from storage.incoming import unapplied
from storage.partitions import partitions_in_use, streams_in_use
from storage.standby import GRACE_SECONDS, received, somebody_stands_by
from storage.submissions import lead_groups, mark_group_started, unstarted_groups
from workflows.arrivals import ImportBatch
from workflows.fulfilment import FulfillRequests
from workflows.search_attributes import search_attributes

log = structlog.get_logger(__name__)

RPC_SECONDS = timedelta(seconds=5)
LOOK_SECONDS = 5.0
"""How often it is looked whether something was left without a workflow."""
LEFT_SECONDS = 10.0
"""A batch that is not applied after this long may have lost its workflow: it is started again, which harms nothing."""
STARTS_AT_ONCE = 16
TOGETHER_SECONDS = 2.0
"""Groups that come within this time are seen to by one workflow, which until then is not in the way of what they ask
for. One that has to be looked at sooner does not wait, nor do those with it: it has callbacks to make, or a deadline.
"""
MOST_TOGETHER = 5000
"""Requests of such groups, together: what one look may have to go through."""


class Dispatcher:
    """Starts one workflow per accepted batch and per submitted group. What is to be started lies in PostgreSQL; that
    a start failed is therefore only a matter of time.
    """

    def __init__(self, engine: AsyncEngine, client: Client) -> None:
        self._engine = engine
        self._client = client
        self._slots = asyncio.Semaphore(STARTS_AT_ONCE)
        self._under_way: set[asyncio.Task[None]] = set()
        self._away = False
        self._groups: list[CommittedGroup] = []
        self._starting_groups: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._finishing = False

    def batch_accepted(self, batch: BatchRef) -> None:
        """Have a batch applied."""
        if not self._away:
            self._soon(self._import_soon(batch))

    def group_committed(self, committed: CommittedGroup) -> None:
        """Have a group of requests fulfilled."""
        if not self._away:
            self._groups.append(committed)
            if committed.look_in <= TOGETHER_SECONDS:
                self._hurry.set()
            if self._starting_groups is None or self._starting_groups.done():
                self._starting_groups = self._soon(self._start_groups())

    def request_finished(self, group: BatchRef) -> None:
        """Have a group's workflow told to look; should it not hear, it looks for itself a little later."""
        if not self._away:
            self._soon(tell_groups(self._client, [group], RPC_SECONDS))

    def requests_recovered(self) -> None:
        """Have results applied that were set aside since their requests, lost with a restored backup, were not here."""
        self._soon(self._retry_results())

    async def run(self) -> None:
        """Look after what was left without a workflow, for ever."""
        while True:
            try:
                await self._look_after_the_left()
            except Exception as error:
                if not is_unreachable(error):
                    raise
                log.warning("dispatch.database_away", error=type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def finish(self) -> None:
        """Wait for the starts that are under way. Groups do not wait for others to come any longer."""
        self._finishing = True
        self._hurry.set()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _look_after_the_left(self) -> None:
        async with self._engine.connect() as connection:
            groups = await unstarted_groups(connection, older_than_seconds=LOOK_SECONDS)
            batches = [
                waiting[-1]
                for stream in await streams_in_use(connection)
                if stream.receiver is Network.REQUEST
                and (waiting := await unapplied(connection, stream, LEFT_SECONDS, limit=5000))
            ]
        self._away = False
        for batch in batches:
            await self._import(batch)
        for together in _together([CommittedGroup(group, 0.0) for group in groups]):
            await self._fulfil(together)

    def _soon(self, start: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(start)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _start_groups(self) -> None:
        """Start a workflow for all groups that wait, and for those that come meanwhile, until there are none."""
        while self._groups:
            try:
                async with asyncio.timeout(TOGETHER_SECONDS):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            if not self._finishing:
                self._hurry.clear()
            waiting, self._groups = self._groups, []
            for together in _together(waiting):
                await self._fulfil(together)

    async def _retry_results(self) -> None:
        try:
            tell = partial(tell_groups, self._client, rpc_timeout=RPC_SECONDS)
            kept = Quarantine(self._engine, Network.REQUEST, tell)
            async with self._engine.connect() as connection:
                streams = await partitions_in_use(connection, StreamName.RESULTS)
            retried = [each for stream in streams for each in await kept.retry_all(stream)]
        except Exception as error:
            if not is_unreachable(error):
                raise
            log.warning("dispatch.database_away", todo="airlock quarantine retry results --all", error=repr(error))
            return
        refused = sum(each.refused is not None for each in retried)
        log.info("epoch.results_retried", applied=len(retried) - refused, refused=refused)

    async def _import_soon(self, batch: BatchRef) -> None:
        """Have a batch applied by whoever stands by; by a workflow where nobody does, or it is not done soon."""
        try:
            left = await self._left_by_standby(batch)
        except Exception as error:
            if not is_unreachable(error):
                raise
            left = batch
        if left is not None:
            await self._import(left)

    async def _left_by_standby(self, batch: BatchRef) -> BatchRef | None:
        """What is to be applied by a workflow: this batch where nobody stands by, else what was not seen to in time."""
        if batch.stream.kind is not StreamName.RESULTS:
            return batch
        async with autocommit(self._engine) as connection:
            if not await somebody_stands_by(connection, received(batch.stream)):
                return batch
        await asyncio.sleep(GRACE_SECONDS)
        async with autocommit(self._engine) as connection:
            waiting = await unapplied(connection, batch.stream, GRACE_SECONDS)
        return waiting[-1] if waiting else None

    async def _import(self, batch: BatchRef) -> None:
        await self._start(ImportBatch.run, batch, "apply")

    async def _fulfil(self, together: Sequence[CommittedGroup]) -> None:
        """Start the workflow of the first of these groups, which sees to the others as well. Who leads whom is written
        down first: whoever finds the group without a workflow starts it for the same ones.
        """
        leader = together[0].group
        try:
            if len(together) > 1:
                async with self._engine.begin() as connection:
                    await lead_groups(connection, leader, [each.group for each in together[1:]])
            look_in = min(each.left for each in together)
            requests = sum(each.group.records for each in together)
            batch = leader.model_copy(update={"records": requests})
            if await self._start(FulfillRequests.run, batch, "fulfil", timedelta(seconds=look_in) if look_in else None):
                async with self._engine.begin() as connection:
                    await mark_group_started(connection, leader)
        except Exception as error:
            if not is_unreachable(error):
                raise
            log.warning("dispatch.database_away", group=str(leader), error=type(error).__name__)

    async def _start(self, workflow: Any, batch: BatchRef, verb: str, delay: timedelta | None = None) -> bool:
        async with self._slots:
            try:
                await self._client.start_workflow(
                    workflow,
                    batch,
                    id=batch.workflow_id(verb),
                    task_queue=task_queue(Network.REQUEST),
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                    search_attributes=search_attributes(batch),
                    static_summary=f"{batch}: {batch.records} records",
                    start_delay=delay,
                    memo={BRIEF: True, STANDS_BY: True},
                    task_timeout=TASK_TIMEOUT,
                    rpc_timeout=RPC_SECONDS,
                )
            except (RPCError, RuntimeError) as error:
                if not self._away:
                    log.warning("dispatch.temporal_away", batch=str(batch), error=str(error), again_in=LOOK_SECONDS)
                self._away = True
                return False
        self._away = False
        return True


def _together(groups: Sequence[CommittedGroup]) -> Iterator[list[CommittedGroup]]:
    """Groups that one workflow sees to: of one partition and epoch, and not too many requests."""
    found: list[CommittedGroup] = []
    requests = 0
    for each in sorted(groups, key=lambda each: each.group.stream):  # which keeps their order otherwise
        same = found and (each.group.stream, each.group.epoch) == (found[0].group.stream, found[0].group.epoch)
        if found and (not same or requests + each.group.records > MOST_TOGETHER):
            yield found
            found, requests = [], 0
        found.append(each)
        requests += each.group.records
    if found:
        yield found
