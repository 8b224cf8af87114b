"""Starts workflows for committed batches and groups: at once, or when Temporal is back."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from configuration.logs import OutageLog
from configuration.timing import TASK_TIMEOUT
from exchange.recovery.quarantine import Quarantine
from exchange.transfer.incoming import unapplied
from fulfilment.group_commit import CommittedGroup
from fulfilment.request_store import mark_groups_seen, unattended_groups
from models.errors import describe
from models.streams import BatchRef, Network, StreamName
from orchestration.client import task_queue
from orchestration.search_attributes import search_attributes
from storage.attendance import RESULTS, attend
from storage.database import is_unreachable
from workflows.fulfilment import FulfillRequests
from workflows.importing import ImportBatch

log = structlog.get_logger(__name__)

RPC_SECONDS = timedelta(seconds=5)
LOOK_SECONDS = 5.0
"""Interval of the search for batches and groups without a workflow."""
LEFT_SECONDS = 10.0
"""If a batch is not applied after this time, its run may be lost. Another run is started; a second run is harmless."""
NOT_SEEN_SECONDS = 180.0
"""If no run has looked at an unfulfilled group for this time, its run is lost: three times the longest interval between
looks, `models.looks.LOOKS`."""
STARTS_AT_ONCE = 16
TOGETHER_SECONDS = 2.0
"""Groups that are committed within this time share a workflow. A group that needs a look sooner, for its callbacks or a
deadline, ends the wait."""
MOST_TOGETHER = 5000
"""Maximum of requests in the groups of one workflow, since one look may read all of them."""


class Dispatcher:
    """Starts the workflows that apply batches and fulfil groups. PostgreSQL records what needs a workflow, so a failed
    start is repeated later.
    """

    def __init__(self, engine: AsyncEngine, client: Client) -> None:
        self._engine = engine
        self._client = client
        self._slots = asyncio.Semaphore(STARTS_AT_ONCE)
        self._under_way: set[asyncio.Task[None]] = set()
        self._away = False
        self._outage = OutageLog("dispatch.temporal_away", "dispatch.temporal_back", log)
        self._groups: list[CommittedGroup] = []
        self._starting_groups: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._finishing = False

    def start_import(self, batch: BatchRef) -> None:
        """Start the run that applies a batch."""
        if not self._away:
            self._soon(self._import(batch))

    def group_committed(self, committed: CommittedGroup) -> None:
        """Start the run that fulfils a group of requests, together with groups committed shortly after it."""
        if not self._away:
            self._groups.append(committed)
            if committed.look_in <= TOGETHER_SECONDS:
                self._hurry.set()
            if self._starting_groups is None or self._starting_groups.done():
                self._starting_groups = self._soon(self._start_groups())

    def requests_recovered(self) -> None:
        """Retry quarantined results, whose requests a restored backup had lost and a new epoch has recovered."""
        self._soon(self._retry_results())

    async def run(self) -> None:
        """Start workflows for batches and groups that have none, for ever."""
        while True:
            try:
                await self._start_missing()
            except Exception as error:
                if not is_unreachable(error):
                    raise
                log.warning("dispatch.database_away", error=describe(error))
            await asyncio.sleep(LOOK_SECONDS)

    async def finish(self) -> None:
        """Wait for the starts in progress. Groups do not wait for later ones any more."""
        self._finishing = True
        self._hurry.set()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _start_missing(self) -> None:
        async with self._engine.begin() as connection:
            groups = await unattended_groups(connection, LOOK_SECONDS, NOT_SEEN_SECONDS)
            batches = [batch for stream in StreamName if (batch := await _without_run(connection, stream))]
        self._away = False
        for batch in batches:
            await self._import(batch)
        for together in in_ranges([CommittedGroup(group, 0.0) for group in groups]):
            await self._fulfil(together)

    def _soon(self, start: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(start)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _start_groups(self) -> None:
        """Start workflows for the waiting groups, and for those committed meanwhile, until none is left."""
        while self._groups:
            try:
                async with asyncio.timeout(TOGETHER_SECONDS):
                    await self._hurry.wait()
            except TimeoutError:
                pass
            if not self._finishing:
                self._hurry.clear()
            waiting, self._groups = self._groups, []
            for together in in_ranges(waiting):
                await self._fulfil(together)

    async def _retry_results(self) -> None:
        try:
            retried = await Quarantine(self._engine, Network.REQUEST).retry_all(StreamName.RESULTS)
        except Exception as error:
            if not is_unreachable(error):
                raise
            log.warning("dispatch.database_away", todo="airlock quarantine retry results --all", error=describe(error))
            return
        refused = sum(each.refused is not None for each in retried)
        log.info("epoch.results_retried", applied=len(retried) - refused, refused=refused)

    async def _import(self, batch: BatchRef) -> None:
        await self._start(ImportBatch.run, batch, "apply")

    async def _fulfil(self, together: Sequence[CommittedGroup]) -> None:
        """Start one run for these groups, which are a range."""
        first, last = together[0].group, together[-1].group
        groups = last.model_copy(
            update={
                "records": sum(each.group.records for each in together),
                "first": first.sequence if len(together) > 1 else None,
            }
        )
        look_in = min(each.left for each in together)
        if not await self._start(
            FulfillRequests.run, groups, "fulfil", timedelta(seconds=look_in) if look_in else None
        ):
            return
        try:
            async with self._engine.begin() as connection:
                await mark_groups_seen(connection, groups)
        except Exception as error:
            if not is_unreachable(error):
                raise
            log.warning("dispatch.database_away", groups=str(groups), error=describe(error))

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
                    static_summary=batch.summary,
                    start_delay=delay,
                    task_timeout=TASK_TIMEOUT,
                    rpc_timeout=RPC_SECONDS,
                )
            except (RPCError, RuntimeError) as error:  # RuntimeError: a lazy client that cannot connect
                self._outage.failed(error, batch=str(batch))
                self._away = True
                return False
        self._outage.succeeded()
        self._away = False
        return True


async def _without_run(connection: AsyncConnection, stream: StreamName) -> BatchRef | None:
    """The newest unapplied batch, if no run applies the batches of this stream."""
    if stream.receiver is not Network.REQUEST:
        return None
    waiting = await unapplied(connection, stream, LEFT_SECONDS, limit=5000)
    if not waiting:
        return None
    if stream is StreamName.RESULTS and not await attend(connection, RESULTS, waiting[-1].workflow_id("apply")):
        return None
    return waiting[-1]


def in_ranges(groups: Sequence[CommittedGroup]) -> Iterator[list[CommittedGroup]]:
    """Split groups into ranges for one run each: of one epoch, with at most `MOST_TOGETHER` requests."""
    found: list[CommittedGroup] = []
    requests = 0
    for each in sorted(groups, key=lambda each: (each.group.epoch, each.group.sequence)):
        if found and (each.group.epoch != found[0].group.epoch or requests + each.group.records > MOST_TOGETHER):
            yield found
            found, requests = [], 0
        found.append(each)
        requests += each.group.records
    if found:
        yield found
