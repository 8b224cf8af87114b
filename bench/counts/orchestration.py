"""What Temporal is asked for: events in histories, and the actions that Temporal Cloud would bill.

Actions are the server's own count, its ``action`` metric: https://docs.temporal.io/cloud/actions. Heartbeats, which no
history shows, are among them.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from bench.counts.counting import Count, Counts
from bench.counts.servers import Servers
from bench.counts.wire import Statements
from bench.counts.world import PATIENCE, World, until, world
from configuration.cadences import EXPORT_RESULTS
from models.streams import BatchRef, Network, StreamName

NAME, MARKS = "orchestrated", "marks"
LISTS, LIST = 10, 1000
FIRST = BatchRef(stream=StreamName.REQUESTS, epoch=1, sequence=1)
"""The lone request's batch, which is its group."""

COMES_ALONG = 1.0
"""Tolerance: whether a batch is applied along with the one before it, or by a run of its own, is a matter of time."""

_ACTION = re.compile(r'^action\{.*action_type="([^"]+)".*namespace="([^"]+)".*\} (\S+)$', re.MULTILINE)


async def run_orchestration(servers: Servers, root: Path, statements: Statements) -> Counts:
    """A lone request, then a drain of many results, by the real workers in a pair of networks of their own."""
    async with world(servers, root, NAME, statements) as made, running(made):
        await made.publish()
        counts = await lone_request(made)
        await pile_up(made)
        counts |= await fulfilment(made)
        return counts | await drain(servers, made)


@asynccontextmanager
async def running(made: World) -> AsyncIterator[None]:
    """Both workers run for as long as the block does."""
    running = [asyncio.create_task(worker.run()) for worker in made.workers.values()]
    try:
        yield
    finally:
        await asyncio.gather(*(worker.shutdown() for worker in made.workers.values()))
        await asyncio.gather(*running)


async def lone_request(made: World) -> Counts:
    """One request all the way: executed, exported, applied."""
    first_runs = await until(lambda: exports(made), "the schedule's first run, which comes with the schedule")
    await events(first_runs)
    await until(lambda: _is_another_second(first_runs), "another second, after which the next run is named")
    await made.submit([{"type": "constant", "params": {}}])
    applying = await imports(made)
    execution = made.clients[Network.RESPONSE].get_workflow_handle(FIRST.workflow_id("execute"))
    earlier = {handle.id for handle in first_runs}
    exporting = await until(lambda: _new_exports(made, earlier), "the export's run is known to its schedule")
    counted = await events([execution, *exporting, *applying])
    return {f"lone.events.{name}": Count(number, "for one request") for name, number in counted.items()}


async def fulfilment(made: World) -> Counts:
    """Its group, whose first look comes some seconds later."""
    counted = await events([made.clients[Network.REQUEST].get_workflow_handle(FIRST.workflow_id("fulfil"))])
    return {f"lone.events.{name}": Count(number, "for one request") for name, number in counted.items()}


async def pile_up(made: World) -> None:
    """Results get ready while the export is paused; everything else goes on."""
    await made.clients[Network.RESPONSE].get_schedule_handle(EXPORT_RESULTS).pause()
    for _ in range(LISTS):
        await made.submit([{"type": "constant", "params": {}}] * LIST)

    async def has_piled_up() -> bool:
        waiting: int = await made.value(Network.RESPONSE, "SELECT count(*) FROM outbox")
        return waiting == LISTS * LIST and not await made.unapplied(StreamName.REQUESTS)

    await until(has_piled_up, f"{LISTS * LIST:,} results are ready")


async def drain(servers: Servers, made: World) -> Counts:
    """One run of the export delivers them all."""
    records = LISTS * LIST
    earlier = {handle.id for handle in await exports(made)}
    await _end_the_rest(made)
    before = await actions(servers)
    await made.clients[Network.RESPONSE].get_schedule_handle(EXPORT_RESULTS).trigger()
    begun = await until(lambda: _new_exports(made, earlier), "the export has begun")
    counted = await events([*begun, *(await imports(made))[1:]])
    done = await actions(servers) - before
    spent = sum(times for (_, namespace), times in done.items() if namespace.startswith(NAME))
    all_of_them = {f"drain.events.{name}": number for name, number in counted.items()}
    all_of_them |= {"drain.events": counted.total(), "drain.actions": spent}
    return {name: Count(number, f"for {records:,} results", COMES_ALONG) for name, number in all_of_them.items()}


async def events(handles: Iterable[WorkflowHandle[object, object]]) -> Counter[str]:
    """Events in the histories of these runs when they have ended, by workflow."""
    found: Counter[str] = Counter()
    for handle in handles:
        async with asyncio.timeout(PATIENCE):
            await handle.result()
        history = await handle.fetch_history()
        found[history.events[0].workflow_execution_started_event_attributes.workflow_type.name] += len(history.events)
    return found


async def exports(made: World) -> list[WorkflowHandle[object, object]]:
    """The runs of the export that its schedule has begun."""
    client = made.clients[Network.RESPONSE]
    info = (await client.get_schedule_handle(EXPORT_RESULTS).describe()).info
    return [client.get_workflow_handle(each.action.workflow_id) for each in info.recent_actions]  # type: ignore[attr-defined]


async def _new_exports(made: World, earlier: set[str]) -> list[WorkflowHandle[object, object]]:
    return [handle for handle in await exports(made) if handle.id not in earlier]


async def _is_another_second(runs: Iterable[WorkflowHandle[object, object]]) -> bool:
    """Whether a run that is triggered now has another name than these. They end sooner here than they ever do."""
    now = datetime.now(UTC).strftime("%H:%M:%SZ")
    return not any(run.id.endswith(now) for run in runs)


async def imports(made: World) -> list[WorkflowHandle[object, object]]:
    """The runs that apply results, once all are applied. A batch that comes while one before it waits has none."""

    async def are_applied() -> bool:
        left = "SELECT count(*) FROM requests LEFT JOIN results USING (request_id) WHERE results.request_id IS NULL"
        return await made.value(Network.REQUEST, left) == 0 and not await made.unapplied(StreamName.RESULTS)

    await until(are_applied, "every result is applied")
    client = made.clients[Network.REQUEST]
    last: int = await made.value(Network.REQUEST, "SELECT sequence FROM incoming_streams WHERE stream = 'results'")
    batches = [BatchRef(stream=StreamName.RESULTS, epoch=1, sequence=number) for number in range(1, last + 1)]
    return [
        client.get_workflow_handle(name)
        for batch in batches
        if await _is_there(client, name := batch.workflow_id("apply"))
    ]


async def _is_there(client: Client, name: str) -> bool:
    try:
        await client.get_workflow_handle(name).describe()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return False
    return True


async def _end_the_rest(made: World) -> None:
    """End what goes on by itself and would be counted with the drain: polling, and the groups' own looks.
    Executions end by themselves.
    """
    last: int = await made.value(Network.REQUEST, "SELECT max(sequence) FROM request_groups")
    groups = [FIRST.model_copy(update={"sequence": number}) for number in range(1, last + 1)]
    for group in groups:
        try:
            await made.clients[Network.RESPONSE].get_workflow_handle(group.workflow_id("execute")).result()
        except RPCError:  # it was executed together with another
            pass
    for client, names in (
        (made.clients[Network.RESPONSE], ["pull-requests"]),
        (made.clients[Network.REQUEST], [group.workflow_id("fulfil") for group in groups]),
    ):
        for name in names:
            try:
                await client.get_workflow_handle(name).terminate("would be counted with the drain")
            except RPCError:  # it has ended
                pass


async def actions(servers: Servers) -> Counter[tuple[str, str]]:
    """Actions so far by kind and namespace. The server publishes them from time to time: what was done before a mark is
    there when the second of two marks is.
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
