"""Work that is mostly short: done within the workflow's own task, and by an activity of its own where it lasts.

A local activity costs Temporal nothing by itself, where another one is scheduled, begun, completed and followed by one
more workflow task. What it does not have is heartbeats, retries that last, and an entry in the Web UI that says why
something takes its time. So it gets `BRIEF_SECONDS`, and everything else is left to the activity that follows it.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from models.outcomes import BRIEF, STANDS_BY, Outcome
    from workflows.timing import BRIEF_AT_MOST, STANDS_BY_AT_MOST, UNTIL_AN_OPERATOR_DECIDES, Timing

Result = TypeVar("Result", bound=Outcome)
Method = Callable[[Any, Any], Awaitable[Result]]


def asks_for_brief() -> bool:
    """Whether this run may do so: those that began before there was this go on as they began."""
    return workflow.memo_value(BRIEF, False, type_hint=bool)


def stands_by() -> bool:
    """Whether this run stays to stand by for more: those that began before there was this end as they would have."""
    return workflow.memo_value(STANDS_BY, False, type_hint=bool) and (
        workflow.now() - workflow.info().start_time < STANDS_BY_AT_MOST
    )


async def done(
    method: Method[Result], argument: object, summary: str, timing: Timing, within: timedelta | None = None
) -> Result:
    """What an activity's method came to: as a local activity where this run's memo says so; where that failed, or left
    ``more`` to do, an activity of its own does the rest, tried for ever or, where ``within`` is given, for so long.
    """
    begun = await _briefly(method, argument, summary) if asks_for_brief() else None
    if begun is not None and not begun.more:
        return begun
    rest = await workflow.execute_activity_method(
        method, argument, summary=summary, schedule_to_close_timeout=within, **timing
    )
    return rest if begun is None else begun.plus(rest)


async def _briefly(method: Method[Result], argument: object, summary: str) -> Result | None:
    """None where it failed in a way that the retries of another activity may mend, which is to follow: the pause that
    the error asks for is over.
    """
    try:
        return await workflow.execute_local_activity_method(
            method,
            argument,
            start_to_close_timeout=BRIEF_AT_MOST,
            retry_policy=RetryPolicy(maximum_attempts=1),
            summary=summary,
        )
    except ApplicationError as error:  # unlike another activity's, what a local one raises comes in no `ActivityError`
        if error.type in UNTIL_AN_OPERATOR_DECIDES:
            raise
        if error.next_retry_delay:
            await workflow.sleep(error.next_retry_delay)
    except ActivityError as error:
        if is_cancelled_exception(error):
            raise
    return None
