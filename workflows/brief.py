"""Work that is mostly short: done within the workflow's own task, and by an activity of its own where it lasts.

A local activity costs Temporal nothing by itself, where another one is scheduled, begun, completed and followed by one
more workflow task. What it does not have is heartbeats, retries that last, and an entry in the Web UI that says why
something takes its time. So it gets `BRIEF_SECONDS`, and everything else is left to the activity that follows it.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from models.outcomes import BRIEF, ApplyOutcome, DrainOutcome, ExecutionOutcome
    from workflows.timing import BRIEF_AT_MOST, UNTIL_AN_OPERATOR_DECIDES

Result = TypeVar("Result")
Outcome = TypeVar("Outcome", ApplyOutcome, DrainOutcome, ExecutionOutcome)


def asks_for_brief() -> bool:
    """Whether this run may do so: those that began before there was this go on as they began."""
    return workflow.memo_value(BRIEF, False, type_hint=bool)


async def briefly_or_wholly(
    method: Callable[[Any, Any], Awaitable[Outcome]],
    argument: object,
    summary: str,
    wholly: Callable[[], Coroutine[Any, Any, Outcome]],
) -> Outcome:
    """What ``method`` did as a local activity; where that failed, or left ``more`` to do, ``wholly`` does the rest."""
    done = await briefly(method, argument, summary)
    if done is not None and not done.more:
        return done
    rest = await wholly()
    return rest if done is None else done.plus(rest)


async def briefly(method: Callable[[Any, Any], Awaitable[Result]], argument: object, summary: str) -> Result | None:
    """What ``method`` did as a local activity; None where it failed in a way that the retries of another activity may
    mend, which is to follow: the pause that the error asks for is over.
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
