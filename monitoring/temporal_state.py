"""Reads this network's schedules and polling workers from Temporal."""

from collections.abc import Mapping
from typing import Any

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from configuration.cadences import Cadence
from schedules.definitions import same_schedule, schedule_for


class TemporalState:
    """Reads schedules and workers; called as a function, returns ``{"schedules": …, "workers": …}``."""

    def __init__(self, client: Client, queue: str, cadences: Mapping[str, Cadence]) -> None:
        self._client = client
        self._queue = queue
        self._cadences = cadences

    async def __call__(self) -> dict[str, Any]:
        return {
            "schedules": {name: await self._schedule(name, cadence) for name, cadence in self._cadences.items()},
            "workers": await self._workers(),
        }

    async def _schedule(self, name: str, cadence: Cadence) -> dict[str, Any] | None:
        """None if the schedule does not exist."""
        try:
            found = await self._client.get_schedule_handle(name).describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise
        info, state = found.info, found.schedule.state
        is_ours = same_schedule(found.schedule, schedule_for(name, cadence), self._client.data_converter)
        return {
            # Somebody changed its times or its action, or limited its runs.
            "changed": not is_ours or state.limited_actions,
            "paused": state.paused,
            "note": state.note,
            "actions": info.num_actions,
            "skipped_overlap": info.num_actions_skipped_overlap,
            "missed_catch_up": info.num_actions_missed_catchup_window,
            "running": len(info.running_actions),
            "next": info.next_action_times[0].isoformat() if info.next_action_times else None,
        }

    async def _workers(self) -> dict[str, Any]:
        answer = await self._client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=self._client.namespace,
                task_queue=TaskQueue(name=self._queue),
                task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            )
        )
        identities = sorted({poller.identity for poller in answer.pollers})
        return {"polling": len(identities), "identities": identities}
