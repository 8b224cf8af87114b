"""Every way in which a workflow's activities and workers fail, as one run each: on a real server, with time-outs that
are short. What an activity does depends on the run's id alone, so that a worker in another process does the same.

`python -m tests.workflows.failures ADDRESS QUEUE` is such a worker, to be stopped or killed.
"""

import asyncio
import dataclasses
import logging
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from temporalio import activity, workflow
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client, WorkflowContinuedAsNewError, WorkflowFailureError, WorkflowHandle
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from configuration.home import CLONE
from models.outcomes import ApplyOutcome, CallbackOutcome, DrainOutcome, PullProgress
from models.streams import BatchRef, StreamName
from orchestration.client import DATA
from tests.workflows.conftest import WORKFLOWS
from tests.workflows.standins import StandIns, group_state
from workflows import timing
from workflows.execution import ExecuteRequests
from workflows.exports import CacheMaintenance, ExportResults, ExportSettings, SystemMonitoring
from workflows.fulfilment import FulfillRequests
from workflows.importing import ImportBatch
from workflows.pulling import PullRequests

LONG_HISTORY = 30
"""Events after which the server suggests to continue as new."""
TASK_TIMEOUT = timedelta(seconds=2)
PATIENCE = 60.0
AT_ONCE = 3
"""Kinds of failure."""


class Failure(StrEnum):
    """What happens to a run's activity, or to the worker that has it. The second time it does its work."""

    RETRIED = "retried"
    """It fails with an error of the link that passes by itself, twice."""
    REFUSED = "refused"
    """It fails with an error that waits for an operator."""
    WAITED_FOR = "waited-for"
    """It fails again and again, for longer than the run waits for it."""
    HEARTBEAT = "heartbeat-timeout"
    """Its first attempt hangs, without heartbeats."""
    LASTS = "start-to-close-timeout"
    """Its first attempt beats, and does not end."""
    CANCELLED = "cancelled"
    """The run is cancelled while it is under way."""
    STOPPED = "worker-stopped"
    """Its worker stops in order; another one goes on."""
    KILLED = "worker-killed"
    """Its worker is killed; another one goes on."""
    TASK_FAILED = "task-failed"
    """The run's own workflow task fails at first, with a worker whose code is not right."""
    CONTINUED = "continued-as-new"
    """It has more to do, round after round."""


RESULTS = BatchRef(stream=StreamName.RESULTS, epoch=1, sequence=4, records=9)
HEALTH = RESULTS.model_copy(update={"stream": StreamName.HEALTH})
REQUESTS = RESULTS.model_copy(update={"stream": StreamName.REQUESTS})
RUNS: list[tuple[type, list[Any], dict[str, str]]] = [
    (ExportSettings, [], {"seal_settings": "sealing", "deliver": "delivering"}),
    (ExportResults, [], {"deliver_until_next_tick": "delivering"}),
    (SystemMonitoring, [], {"measure": "measuring", "deliver": "delivering"}),
    (CacheMaintenance, [], {"tend": "tending"}),
    (PullRequests, [PullProgress()], {"pull_requests": "pulling"}),
    (ExecuteRequests, [REQUESTS], {"execute_batches": "executing"}),
    (ImportBatch, [HEALTH], {"apply_and_attend": "applying", "tend": "tending"}),
    (FulfillRequests, [REQUESTS], {"settle_groups": "looking", "make_callbacks": "calling"}),
]
"""Each workflow, its arguments, its activities and how they are called in the name of a run."""
OF_ACTIVITIES = (
    Failure.RETRIED,
    Failure.REFUSED,
    Failure.HEARTBEAT,
    Failure.LASTS,
    Failure.CANCELLED,
    Failure.STOPPED,
    Failure.KILLED,
)
CONTINUES = {"ExportResults": "delivering", "ImportBatch": "applying", "FulfillRequests": "looking"}
UNFINISHED = {
    "deliver_until_next_tick": DrainOutcome(batches=1, records=2, unfinished=True),
    "apply_and_attend": ApplyOutcome(batches=1, records=2, unfinished=True),
    "make_callbacks": CallbackOutcome(delivered=1, unfinished=True),
    "settle_groups": group_state(1, deadline_in=0.05),
    "pull_requests": PullProgress(batches=1, records=2),
}


@dataclass(frozen=True)
class Run:
    """One run of a workflow in which one thing goes wrong."""

    workflow: type
    arguments: list[Any]
    activity: str
    """The one that fails."""
    word: str
    failure: Failure

    @property
    def name(self) -> str:
        return f"{self.workflow.__name__}-{self.word}-{self.failure}"


def every_run() -> list[Run]:
    """Each workflow, with each failure of each of its activities."""
    found = []
    for kind, arguments, activities in RUNS:
        for name, word in activities.items():
            failures = [*OF_ACTIVITIES]
            if CONTINUES.get(kind.__name__) == word:
                failures.append(Failure.CONTINUED)
            if (kind, name) == (SystemMonitoring, "deliver"):
                failures.append(Failure.WAITED_FOR)
            if name == next(iter(activities)):
                failures.append(Failure.TASK_FAILED)
            found += [Run(kind, arguments, name, word, failure) for failure in failures]
    return found


def shorten_timeouts() -> None:
    """What a workflow decides does not depend on how long its time-outs are."""
    for options in (timing.QUICK, timing.OVER_THE_LINK, timing.WHOLE_BATCH):
        options["heartbeat_timeout"] = timedelta(seconds=3)
        options["start_to_close_timeout"] = timedelta(seconds=12)
        policy: RetryPolicy = options["retry_policy"]
        short = timedelta(seconds=0.1)
        options["retry_policy"] = dataclasses.replace(policy, initial_interval=short, maximum_interval=short)
    timing.HEALTH_WAITS = timedelta(seconds=20)
    timing.WHILE_STOPPED = timedelta(seconds=0.2)


class FailingActivities(StandIns):
    """Each activity does what the name of its run says of it."""

    def __init__(self, doomed: bool = False) -> None:
        """``doomed``: in a worker that is going to be stopped or killed."""
        super().__init__()
        self._doomed = doomed
        self._times: Counter[tuple[str, str]] = Counter()

    async def _answer(self, argument: Any, default: Any) -> Any:
        info = activity.info()
        run = next(each for each in every_run() if (info.workflow_id or "").startswith(each.name))
        self._times[run.name, info.activity_type] += 1
        times = self._times[run.name, info.activity_type]
        if info.activity_type == run.activity:
            if run.failure is Failure.CONTINUED:
                return UNFINISHED[run.activity]
            await self._fail(run, times)
            if self._doomed and run.failure is Failure.STOPPED:
                return UNFINISHED.get(run.activity, default)
        elif run.workflow is FulfillRequests and info.activity_type == "settle_groups" and times == 1:
            return group_state(1, callbacks_wanted=1, deadline_in=0.05)  # callbacks are made at the next look
        return default

    async def _fail(self, run: Run, times: int) -> None:
        match run.failure:
            case Failure.RETRIED if times <= 2:
                raise ApplicationError("LinkUnavailable: nobody answers", type="LinkUnavailable")
            case Failure.WAITED_FOR:
                raise ApplicationError("LinkUnavailable: nobody answers", type="LinkUnavailable")
            case Failure.REFUSED if times == 1:
                raise ApplicationError("StreamStopped: the histories differ", type="StreamStopped")
            case Failure.HEARTBEAT if times == 1:
                await asyncio.Event().wait()
            case Failure.LASTS if times == 1:
                await beat_for_ever()
            case Failure.CANCELLED:
                await beat_for_ever()
            case Failure.KILLED if self._doomed:
                await beat_for_ever()
            case Failure.STOPPED if self._doomed:
                stopping = asyncio.create_task(activity.wait_for_worker_shutdown())
                beating = asyncio.create_task(beat_for_ever())
                await stopping
                beating.cancel()
                if run.activity not in UNFINISHED:  # it is no resident, and is cut off
                    await asyncio.Event().wait()


async def beat_for_ever() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(0.2)


@workflow.defn(dynamic=True, sandboxed=False)
class Wrong:
    """Workflow code that fails whatever it is."""

    @workflow.run
    async def run(self, _arguments: Sequence[RawValue]) -> None:
        raise RuntimeError("this code does not fit")


def worker(client: Client, queue: str, *, doomed: bool = False) -> Worker:
    activities = FailingActivities(doomed).activities()
    stays = timedelta(seconds=1)
    return Worker(
        client,
        task_queue=queue,
        workflows=WORKFLOWS,
        activities=activities,
        sticky_queue_schedule_to_start_timeout=stays,
        graceful_shutdown_timeout=stays if doomed else timedelta(),
    )


async def carry_out(client: Client) -> dict[str, WorkflowHandle[Any, Any]]:
    """Do every run to its end; gives them by name."""
    shorten_timeouts()
    logging.disable(logging.WARNING)  # every failure is told, with its stack
    groups = {failure: [run for run in every_run() if run.failure is failure] for failure in Failure}
    handles: dict[str, WorkflowHandle[Any, Any]] = {}

    async def start(runs: Sequence[Run]) -> list[WorkflowHandle[Any, Any]]:
        for run in runs:
            handles[run.name] = await client.start_workflow(
                run.workflow.__name__,
                args=run.arguments,
                id=run.name,
                task_queue=run.failure.value,
                task_timeout=TASK_TIMEOUT,
            )
        return [handles[run.name] for run in runs]

    slots = asyncio.Semaphore(AT_ONCE)

    async def one(failure: Failure) -> None:
        async with slots:
            started = await start(groups[failure])
            await _begin(client, failure, groups[failure], started)
            async with worker(client, failure.value):
                if failure is Failure.CANCELLED:
                    await _under_way(groups[failure], started)
                    for handle in started:
                        await handle.cancel()
                async with asyncio.timeout(PATIENCE):
                    await asyncio.gather(*map(_ended, started))
            for handle in started:  # it may go on as another run
                await _terminate(client, handle.id)

    async with asyncio.TaskGroup() as tasks:
        for failure in Failure:
            tasks.create_task(one(failure))
    return handles


async def _begin(
    client: Client, failure: Failure, runs: Sequence[Run], started: Sequence[WorkflowHandle[Any, Any]]
) -> None:
    """What the runs go through before a worker takes them that does its work."""
    if failure is Failure.TASK_FAILED:
        async with Worker(client, task_queue=failure.value, workflows=[Wrong]):
            await asyncio.gather(*map(_task_failed, started))
    elif failure in (Failure.STOPPED, Failure.KILLED):
        program = [sys.executable, "-m", "tests.workflows.failures"]
        doomed = await asyncio.create_subprocess_exec(
            *program, client.service_client.config.target_host, failure.value, cwd=CLONE
        )
        try:
            await _under_way(runs, started)
        finally:
            doomed.send_signal(signal.SIGTERM if failure is Failure.STOPPED else signal.SIGKILL)
            await doomed.wait()


async def _ended(handle: WorkflowHandle[Any, Any]) -> None:
    try:
        await handle.result(follow_runs=False)
    except (WorkflowFailureError, WorkflowContinuedAsNewError):
        pass


async def _under_way(runs: Sequence[Run], started: Sequence[WorkflowHandle[Any, Any]]) -> None:
    """Return when the activity of each run that is to fail has been begun."""

    async def has_begun(run: Run, handle: WorkflowHandle[Any, Any]) -> bool:
        pending = (await handle.describe()).raw_description.pending_activities
        return any(
            each.activity_type.name == run.activity
            and each.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
            for each in pending
        )

    async with asyncio.timeout(PATIENCE):
        for run, handle in zip(runs, started, strict=True):
            while not await has_begun(run, handle):  # noqa: ASYNC110, the server tells nobody
                await asyncio.sleep(0.05)


async def _task_failed(handle: WorkflowHandle[Any, Any]) -> None:
    """Return when a workflow task of this run has failed."""
    async for event in handle.fetch_history_events(wait_new_event=True):
        if event.HasField("workflow_task_failed_event_attributes"):
            return


async def _terminate(client: Client, workflow_id: str) -> None:
    newest = client.get_workflow_handle(workflow_id)
    found = await newest.describe()
    if found.status is not None and found.status.name == "RUNNING":
        await newest.terminate()


async def main(address: str, queue: str) -> None:
    shorten_timeouts()
    logging.disable(logging.WARNING)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    client = await Client.connect(address, data_converter=DATA)
    async with worker(client, queue, doomed=True):
        await stopping.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
