"""Activities of the real names that only record and answer: here the workflows' decisions are tested, nothing else."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from temporalio import activity
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError

from models.outcomes import (
    ApplyOutcome,
    CallbackOutcome,
    DrainOutcome,
    ExecutionOutcome,
    GroupState,
    MaintenanceOutcome,
    MonitoringOutcome,
    PullProgress,
)
from models.streams import BatchRef, StreamName


@dataclass(frozen=True)
class Call:
    """An activity was called with this, at this attempt."""

    name: str
    argument: Any
    attempt: int


class StandIns:
    """The ten activities. Each gives the answers that a test lined up for it, the last one again and again."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._answers: defaultdict[str, list[Any]] = defaultdict(list)
        self._called = asyncio.Condition()

    def line_up(self, name: str, *answers: Any) -> None:
        """What the activity does, call after call: an exception is raised, an async function is called with the
        argument, anything else is returned.
        """
        self._answers[name] = list(answers)

    def names(self) -> list[str]:
        """What was called, in order."""
        return [call.name for call in self.calls]

    def arguments(self, name: str) -> list[Any]:
        """What an activity was called with, call after call."""
        return [call.argument for call in self.calls if call.name == name]

    async def called(self, name: str, times: int) -> None:
        """Return when the activity has been called so often."""
        async with asyncio.timeout(20), self._called:
            await self._called.wait_for(lambda: self.names().count(name) >= times)

    def activities(self) -> list[Callable[..., Any]]:
        """What a worker takes."""
        return [
            self.seal_settings,
            self.deliver,
            self.deliver_until_next_tick,
            self.measure,
            self.tend,
            self.pull_requests,
            self.execute_batches,
            self.apply_and_attend,
            self.settle_groups,
            self.make_callbacks,
        ]

    async def _answer(self, argument: Any, default: Any) -> Any:
        info = activity.info()
        async with self._called:
            self.calls.append(Call(info.activity_type, argument, info.attempt))
            self._called.notify_all()
        lined_up = self._answers[info.activity_type]
        answer = default if not lined_up else lined_up.pop(0) if len(lined_up) > 1 else lined_up[0]
        if isinstance(answer, BaseException):
            raise answer
        return await answer(argument) if callable(answer) else answer

    @activity.defn
    async def seal_settings(self) -> int:
        return int(await self._answer(None, 0))

    @activity.defn
    async def deliver(self, stream: StreamName) -> DrainOutcome:
        outcome: DrainOutcome = await self._answer(stream, DrainOutcome(heartbeat=True))
        return outcome

    @activity.defn
    async def deliver_until_next_tick(self, stream: StreamName) -> DrainOutcome:
        outcome: DrainOutcome = await self._answer(stream, DrainOutcome())
        return outcome

    @activity.defn
    async def measure(self) -> MonitoringOutcome:
        outcome: MonitoringOutcome = await self._answer(None, MEASURED)
        return outcome

    @activity.defn
    async def tend(self) -> MaintenanceOutcome:
        outcome: MaintenanceOutcome = await self._answer(None, MaintenanceOutcome())
        return outcome

    @activity.defn
    async def pull_requests(self, so_far: PullProgress) -> PullProgress:
        progress: PullProgress = await self._answer(so_far, so_far)
        return progress

    @activity.defn
    async def execute_batches(self, batches: BatchRef) -> ExecutionOutcome:
        outcome: ExecutionOutcome = await self._answer(batches, ExecutionOutcome(records=batches.records))
        return outcome

    @activity.defn
    async def apply_and_attend(self, batch: BatchRef) -> ApplyOutcome:
        outcome: ApplyOutcome = await self._answer(batch, ApplyOutcome(batches=1, records=batch.records))
        return outcome

    @activity.defn
    async def settle_groups(self, groups: BatchRef) -> GroupState:
        state: GroupState = await self._answer(groups, group_state())
        return state

    @activity.defn
    async def make_callbacks(self) -> CallbackOutcome:
        outcome: CallbackOutcome = await self._answer(None, CallbackOutcome())
        return outcome


def group_state(outstanding: int = 0, callbacks_wanted: int = 0, deadline_in: float | None = None) -> GroupState:
    """Groups of three requests."""
    return GroupState(size=3, outstanding=outstanding, next_deadline_in=deadline_in, callbacks_wanted=callbacks_wanted)


MEASURED = MonitoringOutcome(
    backlog={"results": 3},
    oldest_seconds=1.5,
    workers=1,
    cpu_percent=3.0,
    memory_percent=41.0,
    disk_free_bytes=12 * 1024**3,
    database_ms=0.9,
    database_bytes=9_000_000,
    redis_ms=0.3,
)


def error(kind: str, message: str = "as the test wants it") -> ApplicationError:
    """An error of this type, as Temporal sees it."""
    return ApplicationError(message, type=kind)


async def for_ever(_argument: Any) -> Any:
    """An activity that does not end before its worker does."""
    await asyncio.Event().wait()


async def timers(handle: WorkflowHandle[Any, Any]) -> list[float]:
    """The durations, in seconds, of all timers that the workflow started, in order."""
    return [
        event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta().total_seconds()
        async for event in handle.fetch_history_events()
        if event.HasField("timer_started_event_attributes")
    ]


async def details(handle: WorkflowHandle[Any, Any]) -> str:
    """What the Web UI shows as current details."""
    metadata: WorkflowMetadata = await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    return metadata.current_details


async def summaries(handle: WorkflowHandle[Any, Any]) -> list[str]:
    """The summaries of the activities that the workflow scheduled, in order."""
    return [
        pydantic_data_converter.payload_converter.from_payload(event.user_metadata.summary, str)
        async for event in handle.fetch_history_events()
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
