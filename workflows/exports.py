"""What the response network sends on a schedule."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.maintaining import MaintenanceActivities
    from activities.monitoring import MonitoringActivities
    from activities.streams import StreamActivities
    from models.outcomes import DrainOutcome, MaintenanceOutcome, MonitoringOutcome
    from models.streams import StreamName
    from workflows.timing import OVER_THE_LINK, QUICK


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
    """Seal and deliver every result that the request network does not have yet."""

    @workflow.run
    async def run(self) -> DrainOutcome:
        return await _drain(StreamName.RESULTS)


@workflow.defn
class SystemMonitoring:
    """Measure this side, raise and clear alerts, and send what the request network may know of it."""

    @workflow.run
    async def run(self) -> MonitoringOutcome:
        outcome = await workflow.execute_activity_method(
            MonitoringActivities.measure, summary="measure, store, judge", **QUICK
        )
        workflow.set_current_details(str(outcome))
        await _drain(StreamName.HEALTH, str(outcome))
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


async def _drain(stream: StreamName, before: str = "") -> DrainOutcome:
    outcome = await workflow.execute_activity_method(
        StreamActivities.drain, stream, summary=f"{stream}: seal and deliver until caught up", **OVER_THE_LINK
    )
    workflow.set_current_details("; ".join(filter(None, (before, f"{stream}: {outcome}"))))
    return outcome
