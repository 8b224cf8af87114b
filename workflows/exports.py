"""What the response network sends on a schedule."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, FailureError, RetryState

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
        self._partitions: Partitions | None = None

    @workflow.signal
    def results_are_ready(self) -> None:
        """There may be more than this run has seen."""
        self._more = True
        if self._partitions is not None:
            self._partitions.more()

    @workflow.run
    async def run(self, partitions: int = 1) -> DrainOutcome:
        """``partitions``: into so many the results are spread. Each is drained by an activity of its own, so that any
        number of workers share them, and none waits for another one.
        """
        brief = asks_for_brief()
        ends_at = workflow.now() + SHORTEST_RUN
        if partitions > 1:
            self._partitions = Partitions(StreamName.RESULTS.partitions(partitions))
            total = await self._partitions.drain(ends_at - workflow.now())
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(partitions)
            return total
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


class Partitions:
    """The partitions of a stream, drained at the same time and again whenever there may be more, until all are at rest.

    What is wrong with one, a fork say, ends that one alone: the others go on, and it is raised when they are at rest.
    """

    def __init__(self, streams: Sequence[StreamName]) -> None:
        self._said = 0
        self._seen = dict.fromkeys(streams, -1)
        """For each that still goes on, how much had been said when it was last begun with."""
        self._busy: set[StreamName] = set()
        self._has_lasted = self._is_full = False
        self._total = DrainOutcome()

    def more(self) -> None:
        """There may be more than they have seen."""
        self._said += 1

    async def drain(self, at_least: timedelta) -> DrainOutcome:
        """Gives what all of them delivered, after so much time at least; sooner only when the history is full."""
        each = [self._keep_drained(stream) for stream in self._seen]
        going_on = asyncio.gather(self._last(at_least), *each, return_exceptions=True)
        try:
            await workflow.wait_condition(lambda: going_on.done() or self._is_full)
        finally:
            going_on.cancel()  # if need be: the next run goes on with whatever is under way
        try:
            ended = await going_on
        except asyncio.CancelledError:
            return self._total
        for error in ended:
            if isinstance(error, BaseException):
                raise error
        workflow.upsert_search_attributes([RECORDS.value_set(self._total.records)])
        return self._total

    async def _last(self, at_least: timedelta) -> None:
        await workflow.sleep(at_least)
        self._has_lasted = True

    async def _keep_drained(self, stream: StreamName) -> None:
        while True:
            self._seen[stream] = self._said
            self._busy.add(stream)
            try:
                outcome = await _deliver(stream)
            except FailureError:
                del self._seen[stream]
                raise
            finally:
                self._busy.discard(stream)
            self._total = self._total.plus(outcome)
            workflow.set_current_details(f"{stream.kind}: {self._total}")
            await workflow.wait_condition(lambda: self._said > self._seen[stream] or self._are_at_rest)
            if self._are_at_rest:
                return
            if workflow.info().is_continue_as_new_suggested():
                self._is_full = True

    @property
    def _are_at_rest(self) -> bool:
        return self._has_lasted and not self._busy and all(seen == self._said for seen in self._seen.values())


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
