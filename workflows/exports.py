"""The scheduled workflows of the response network."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, RetryState

with workflow.unsafe.imports_passed_through():
    from activities.maintaining import MaintenanceActivities
    from activities.monitoring import MonitoringActivities
    from activities.streams import StreamActivities
    from models.outcomes import DrainOutcome, MaintenanceOutcome, MonitoringOutcome
    from models.streams import StreamName
    from orchestration.search_attributes import RECORDS
    from workflows.timing import HEALTH_WAITS, OVER_THE_LINK, QUICK, RESIDENT


@workflow.defn
class ExportSettings:
    """Seal a snapshot if the public settings changed, and deliver it; otherwise send a heartbeat."""

    @workflow.run
    async def run(self) -> DrainOutcome:
        await workflow.execute_activity_method(
            StreamActivities.seal_settings, summary="seal a snapshot if the content changed", **QUICK
        )
        outcome = await workflow.execute_activity_method(
            StreamActivities.deliver, StreamName.SETTINGS, summary="deliver what is sealed", **OVER_THE_LINK
        )
        _record_delivery(StreamName.SETTINGS, outcome)
        return outcome


@workflow.defn
class ExportResults:
    """Deliver every result that is ready, and what becomes ready until the next run of the schedule takes over."""

    @workflow.run
    async def run(self, so_far: DrainOutcome | None = None) -> DrainOutcome:
        """``so_far``: what the run delivered before its history became too long; an interval may last for a month."""
        total = so_far or DrainOutcome(unfinished=True)
        while total.unfinished:
            outcome = await workflow.execute_activity_method(
                StreamActivities.deliver_until_next_tick,
                StreamName.RESULTS,
                summary="seal and deliver what is ready, and what becomes ready",
                **RESIDENT,
            )
            total = total.plus(outcome)
            _record_delivery(StreamName.RESULTS, total)
            if total.unfinished and workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(total)
        return total


@workflow.defn
class SystemMonitoring:
    """Measure this side, raise and clear alerts, and send a health report.

    A run waits for the link for `HEALTH_WAITS` at most, so measurements continue while the link is dead.
    """

    @workflow.run
    async def run(self) -> MonitoringOutcome:
        outcome = await workflow.execute_activity_method(
            MonitoringActivities.measure, summary="measure, store, judge", **QUICK
        )
        workflow.set_current_details(str(outcome))
        try:
            delivered = await workflow.execute_activity_method(
                StreamActivities.deliver,
                StreamName.HEALTH,
                summary="deliver this side's health",
                schedule_to_close_timeout=HEALTH_WAITS,
                **OVER_THE_LINK,
            )
        except ActivityError as error:
            if error.retry_state != RetryState.TIMEOUT:
                raise
            workflow.set_current_details(f"{outcome}; health goes with the next run: {error.cause}")
        else:
            workflow.set_current_details(f"{outcome}; {StreamName.HEALTH}: {delivered}")
            workflow.upsert_search_attributes([RECORDS.value_set(delivered.records)])
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


def _record_delivery(stream: StreamName, outcome: DrainOutcome) -> None:
    """Show the delivery in the Web UI, and make the run searchable by its number of records."""
    workflow.set_current_details(f"{stream}: {outcome}")
    workflow.upsert_search_attributes([RECORDS.value_set(outcome.records)])
