"""What the response network sends on a schedule."""

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, RetryState

with workflow.unsafe.imports_passed_through():
    from activities.maintaining import MaintenanceActivities
    from activities.monitoring import MonitoringActivities
    from activities.streams import StreamActivities
    from models.outcomes import DrainOutcome, MaintenanceOutcome, MonitoringOutcome
    from models.streams import StreamName
    from workflows.brief import asks_for_brief, done, stands_by
    from workflows.search_attributes import RECORDS, STREAM
    from workflows.timing import HEALTH_WAITS, OVER_THE_LINK, QUICK, SHORTEST_RUN, STAYS_READY


@workflow.defn
class ExportSettings:
    """Seal a settings snapshot if what is public changed, and deliver it; otherwise say that nothing did."""

    @workflow.run
    async def run(self) -> DrainOutcome:
        await workflow.execute_activity_method(
            StreamActivities.seal_settings, summary="seal a snapshot if the content changed", **QUICK
        )
        return await _drain(StreamName.SETTINGS)


@workflow.defn
class ExportResults:
    """Seal and deliver every result that the request network does not have yet, and those that get ready meanwhile.

    Results that get ready tell the run that is under way, so that never two go at a time and none waits for the next. A
    run lasts for at least `SHORTEST_RUN`: runs of a schedule are named after the second, and the server mistakes two of
    the same name for one. After results that got ready it stays for `STAYS_READY`.
    """

    def __init__(self) -> None:
        self._more = False

    @workflow.signal
    def results_are_ready(self) -> None:
        """There may be more than this run has seen."""
        self._more = True

    @workflow.run
    async def run(self) -> DrainOutcome:
        brief = asks_for_brief()
        ends_at = workflow.now() + SHORTEST_RUN
        total = DrainOutcome()
        while True:
            self._more = False
            total = total.plus(await _deliver(StreamName.RESULTS))
            if brief:
                workflow.set_current_details(f"{StreamName.RESULTS}: {total}")
            else:
                _tell(StreamName.RESULTS, total)
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new()
            while total.batches and stands_by():
                summary = "deliver at once what gets ready in the next seconds"
                ready = await done(StreamActivities.drain_when_ready, StreamName.RESULTS, summary, OVER_THE_LINK)
                if not ready.batches:
                    break
                total = total.plus(ready)
                workflow.set_current_details(f"{StreamName.RESULTS}: {total}")
                if workflow.info().is_continue_as_new_suggested():
                    workflow.continue_as_new()
            if not await self._gets_more(ends_at - workflow.now()):
                if brief:
                    _tell(StreamName.RESULTS, total)
                return total
            if brief:
                ends_at = workflow.now() + STAYS_READY

    async def _gets_more(self, within: timedelta) -> bool:
        """Whether there is more to send, now or within this time."""
        if not self._more and within > timedelta():
            try:
                await workflow.wait_condition(lambda: self._more, timeout=within)
            except TimeoutError:
                pass
        return self._more


@workflow.defn
class SystemMonitoring:
    """Measure this side, raise and clear alerts, and send what the request network may know of it.

    Measuring goes on while the link is dead: a run waits no longer than `HEALTH_WAITS` for it.
    """

    @workflow.run
    async def run(self) -> MonitoringOutcome:
        outcome = await workflow.execute_activity_method(
            MonitoringActivities.measure, summary="measure, store, judge", **QUICK
        )
        workflow.set_current_details(str(outcome))
        try:
            await _drain(StreamName.HEALTH, before=str(outcome), within=HEALTH_WAITS)
        except ActivityError as error:
            if error.retry_state != RetryState.TIMEOUT:
                raise
            workflow.set_current_details(f"{outcome}; health goes with the next run: {error.cause}")
        return outcome


@workflow.defn
class CacheMaintenance:
    """Drop stale cache keys and apply retention."""

    @workflow.run
    async def run(self) -> MaintenanceOutcome:
        outcome = await workflow.execute_activity_method(
            MaintenanceActivities.tend, summary="stale cache keys, delivered batches, old records", **OVER_THE_LINK
        )
        workflow.set_current_details(str(outcome))
        return outcome


async def _drain(stream: StreamName, before: str = "", within: timedelta | None = None) -> DrainOutcome:
    """Deliver a stream, and tell the Web UI what was delivered, together with what the run had done before.

    Tried again for ever or, where ``within`` is given, for so long.
    """
    delivered = await _deliver(stream, within)
    _tell(stream, delivered, before)
    return delivered


async def _deliver(stream: StreamName, within: timedelta | None = None) -> DrainOutcome:
    summary = f"{stream}: seal and deliver until caught up"
    return await done(StreamActivities.drain, stream, summary, OVER_THE_LINK, within)


def _tell(stream: StreamName, total: DrainOutcome, before: str = "") -> None:
    workflow.set_current_details("; ".join(filter(None, (before, f"{stream}: {total}"))))
    workflow.upsert_search_attributes([STREAM.value_set(stream.value), RECORDS.value_set(total.records)])
