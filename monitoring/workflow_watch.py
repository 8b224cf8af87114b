"""Every 15 s: starts what must always exist and is gone, and raises alerts for stuck runs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.service import RPCError

from models.errors import ConfigurationError, Unavailable, describe
from monitoring.measurement_store import OF_WORKFLOWS, log_alerts, open_alerts, settle_alerts
from monitoring.stuck_workflows import StuckWorkflow, end_failing, find_stuck
from storage.database import is_unreachable

log = structlog.get_logger(__name__)

LOOK_SECONDS = 15.0
KEPT_OPEN = timedelta(minutes=15)
"""An alert stays open for this long at least, since a failing run is terminated within a minute."""


class WorkflowWatch:
    """A background task of every worker; any number may run. A check that fails is made again the next time."""

    def __init__(
        self,
        client: Client,
        engine: AsyncEngine,
        bounds: Mapping[str, timedelta | None],
        keep_running: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """``bounds``: as in `find_stuck`. ``keep_running`` makes what must always exist, where it does not.

        Others may end it: an operator by mistake, or whoever reaches Temporal.
        """
        self._client = client
        self._engine = engine
        self._bounds = bounds
        self._keep_running = keep_running

    async def run(self) -> None:
        """Check the workflows for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._keep_running is not None:
                await self._attempt(self._keep_running)
            await self._attempt(self.look)

    async def _attempt(self, work: Callable[[], Awaitable[None]]) -> None:
        """One fails without the other: without its database a worker still makes what must exist."""
        try:
            await work()
        except (RPCError, Unavailable, ConfigurationError) as error:
            log.info("workflows.not_looked_at", reason=describe(error))
        except Exception as error:
            if not is_unreachable(error):
                raise
            log.info("workflows.not_looked_at", reason=type(error).__name__)

    async def look(self) -> None:
        """Raise an alert for each stuck run, and terminate those that keep failing.

        Raises `RPCError`, and the database's errors.
        """
        stuck = await find_stuck(self._client, self._bounds)
        await self._settle(stuck)
        for each in stuck:
            if await end_failing(self._client, each):
                log.error("workflow.ended", workflow=each.workflow, id=each.id, reason=each.reason)

    async def _settle(self, stuck: list[StuckWorkflow]) -> None:
        wanted = {OF_WORKFLOWS + each.id: message_of(each) for each in stuck}
        async with self._engine.begin() as connection:
            old = await open_alerts(connection, OF_WORKFLOWS, KEPT_OPEN)
            if not wanted and not old:
                return
            raised, cleared, _ = await settle_alerts(connection, wanted, wanted.keys() | {alert.name for alert in old})
        log_alerts(logging.ERROR, wanted, raised, cleared)


def message_of(stuck: StuckWorkflow) -> str:
    """The alert's message: what happened, and what an operator does."""
    todo = (
        "nothing yet: Airlock terminates it, and another run does its work. If this comes again, the workers' version"
        " does not fit the running workflows: start the version before"
        if stuck.is_failing
        else f"look at it in the Temporal Web UI. To end it: temporal workflow terminate -w {stuck.id}"
    )
    return f"{stuck.workflow} {stuck.id}: {stuck.reason}. What to do: {todo}"
