"""The cost of orchestration: events in Temporal's histories, and actions that Temporal Cloud would bill.

Actions are the server's own count, its ``action`` metric: https://docs.temporal.io/cloud/actions. They include
heartbeats, which no history shows.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import httpx
from temporalio.client import Client, WorkflowHandle

from bench.counts.counting import Count, Counts
from bench.counts.servers import Servers
from bench.counts.wire import Statements
from bench.counts.world import PATIENCE, World, until, world
from configuration.cadences import EXPORT_RESULTS
from models.streams import BatchRef, Network, StreamName

NAME, MARKS = "orchestrated", "marks"
LISTS, LIST = 10, 1000
BY_TIME = 1.0
"""Tolerance of actions: they include heartbeats, whose number depends on how long the drain takes."""

Handle = WorkflowHandle[object, object]

_ACTION = re.compile(r'^action\{.*action_type="([^"]+)".*namespace="([^"]+)".*\} (\S+)$', re.MULTILINE)
_LOOKING = "WorkflowType = 'FulfillRequests' AND ExecutionStatus = 'Running'"


async def run_orchestration(servers: Servers, root: Path, statements: Statements) -> Counts:
    """A lone request, then a drain of many results, by the real workers in a pair of networks of their own."""
    async with world(servers, root, NAME, statements) as made, running(made):
        await made.publish()
        counts = await lone_request(made)
        await pile_up(made)
        return counts | await drain(servers, made)


@asynccontextmanager
async def running(made: World) -> AsyncIterator[None]:
    """Run both workers for the block."""
    running = [asyncio.create_task(worker.run()) for worker in made.workers.values()]
    try:
        yield
    finally:
        await asyncio.gather(*(worker.shutdown() for worker in made.workers.values()))
        await asyncio.gather(*running)


async def lone_request(made: World) -> Counts:
    """Events of the workflows that one request starts, and those that it adds to the resident runs, which is none.

    A first request, which is not counted, starts the run that applies results and attends from then on.
    """
    await answer_one(made)
    residents = [(await exports(made))[-1], importing(made)]
    before = await events(residents)
    await answer_one(made)
    second = BatchRef(stream=StreamName.REQUESTS, epoch=1, sequence=2)
    started: list[Handle] = [
        made.clients[Network.RESPONSE].get_workflow_handle(second.workflow_id("execute")),
        made.clients[Network.REQUEST].get_workflow_handle(second.workflow_id("fulfil")),
    ]
    for handle in started:
        await ended(handle)
    counted = {**await events(started), **difference(before, await events(residents))}
    return _with_total("lone.events", counted, "for one request")


async def answer_one(made: World) -> None:
    """Submit one request and wait until its result is applied."""
    await made.submit([{"type": "constant", "params": {}}])
    await all_applied(made)


async def pile_up(made: World) -> None:
    """Collect results in the outbox while the export is paused; everything else goes on."""
    (*_, export) = await exports(made)
    await made.clients[Network.RESPONSE].get_schedule_handle(EXPORT_RESULTS).pause()
    await ended(export)
    for _ in range(LISTS):
        await made.submit([{"type": "constant", "params": {}}] * LIST)

    async def has_piled_up() -> bool:
        waiting: int = await made.value(Network.RESPONSE, "SELECT count(*) FROM outbox")
        return waiting == LISTS * LIST and not await made.unapplied(StreamName.REQUESTS)

    await until(has_piled_up, f"{LISTS * LIST:,} results are ready")


async def drain(servers: Servers, made: World) -> Counts:
    """One run of the export, triggered while its schedule is paused, delivers all results and ends; the run that
    attends to results applies them.
    """
    earlier = {handle.id for handle in await exports(made)}
    await _terminate_looking(made)
    applying = importing(made)
    before, actions_before = await events([applying]), await actions(servers)
    await made.clients[Network.RESPONSE].get_schedule_handle(EXPORT_RESULTS).trigger()

    async def new_export() -> list[Handle]:
        return [handle for handle in await exports(made) if handle.id not in earlier]

    (export,) = await until(new_export, "the export has begun")
    await ended(export)
    await all_applied(made)
    counted = {**await events([export]), **difference(before, await events([applying]))}
    done = await actions(servers) - actions_before
    spent = sum(times for (_, namespace), times in done.items() if namespace.startswith(NAME))
    unit = f"for {LISTS * LIST:,} results"
    return _with_total("drain.events", counted, unit) | {"drain.actions": Count(spent, unit, BY_TIME)}


def _with_total(name: str, counted: Mapping[str, int], unit: str) -> Counts:
    counts = {f"{name}.{workflow}": Count(number, unit) for workflow, number in counted.items()}
    return counts | {name: Count(sum(counted.values()), unit)}


async def ended(handle: Handle) -> None:
    """Return when the run has ended."""
    async with asyncio.timeout(PATIENCE):
        await handle.result()


async def events(handles: Iterable[Handle]) -> Counter[str]:
    """Number of events in the histories of these runs, by workflow."""
    found: Counter[str] = Counter()
    for handle in handles:
        history = await handle.fetch_history()
        found[history.events[0].workflow_execution_started_event_attributes.workflow_type.name] += len(history.events)
    return found


def difference(before: Counter[str], after: Counter[str]) -> dict[str, int]:
    """Events that were added, by workflow; 0 is kept."""
    return {name: number - before[name] for name, number in after.items()}


async def exports(made: World) -> list[Handle]:
    """The runs of the export that its schedule has started, oldest first; at least the one that comes with it."""
    client = made.clients[Network.RESPONSE]

    async def started() -> list[Handle]:
        info = (await client.get_schedule_handle(EXPORT_RESULTS).describe()).info
        return [client.get_workflow_handle(each.action.workflow_id) for each in info.recent_actions]  # type: ignore[attr-defined]

    found: list[Handle] = await until(started, "the schedule has started its first run")
    return found


def importing(made: World) -> Handle:
    """The run that applies results: the first batch of them started it, and it attends to those that follow."""
    first = BatchRef(stream=StreamName.RESULTS, epoch=1, sequence=1)
    return made.clients[Network.REQUEST].get_workflow_handle(first.workflow_id("apply"))


async def all_applied(made: World) -> None:
    """Return when each request has its result in the request network."""

    async def are_applied() -> bool:
        left = "SELECT count(*) FROM requests LEFT JOIN results USING (request_id) WHERE results.request_id IS NULL"
        return await made.value(Network.REQUEST, left) == 0 and not await made.unapplied(StreamName.RESULTS)

    await until(are_applied, "every result is applied")


async def _terminate_looking(made: World) -> None:
    """Terminate the runs that look after groups: their actions would be counted with the drain."""
    client = made.clients[Network.REQUEST]
    async for found in client.list_workflows(_LOOKING):
        await client.get_workflow_handle(found.id).terminate("would be counted with the drain")


async def actions(servers: Servers) -> Counter[tuple[str, str]]:
    """Actions so far, by kind and namespace.

    The server publishes its metrics periodically. Two marks are made, one after the other: when the second is
    published, so is everything before the first.
    """
    client = await Client.connect(servers.temporal, namespace=MARKS)
    async with httpx.AsyncClient(trust_env=False) as http:

        async def published() -> Counter[tuple[str, str]]:
            text = (await http.get(servers.temporal_metrics)).text
            found: Counter[tuple[str, str]] = Counter()
            for kind, namespace, times in _ACTION.findall(text):
                found[kind, namespace] += int(float(times))
            return found

        for _ in range(2):
            marks = await _marks(published)
            await client.start_workflow("Mark", id=f"mark-{uuid4()}", task_queue="nobody")
            await until(lambda marks=marks: _is_more(published, marks), "the Temporal server publishes its actions")  # type: ignore[misc]
        return await published()


async def _marks(published: Callable[[], Awaitable[Counter[tuple[str, str]]]]) -> int:
    return sum(times for (_, namespace), times in (await published()).items() if namespace == MARKS)


async def _is_more(published: Callable[[], Awaitable[Counter[tuple[str, str]]]], marks: int) -> bool:
    return await _marks(published) > marks
