"""What Temporal keeps of an error: one sentence that fits."""

import httpx
import pytest
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ActivityError, ApplicationError, RetryState

from exchange.errors import LinkUnavailable, StreamStopped
from orchestration.client import DATA, TRACE_CHARACTERS
from orchestration.link_failures import for_temporal
from storage.database import connect, value
from tests.conftest import Servers

KEPT_BY_TEMPORAL = 2048
"""Bytes of a failure above which the server warns; above twice as many it keeps nothing but "exceeds size limit"."""


def nested(depth: int) -> Exception:
    """An error with so many causes."""
    try:
        raise nested(depth - 1) if depth else httpx.ReadTimeout("")
    except Exception as error:
        raised = ValueError("a link error " * 20)
        raised.__cause__ = error
        return raised


def kept(error: BaseException) -> Failure:
    failure = Failure()
    DATA.failure_converter.to_failure(error, DATA.payload_converter, failure)
    return failure


def raised(error: Exception) -> BaseException:
    """The error as it is after it was raised: with a traceback."""
    with pytest.raises(type(error)) as caught:
        raise error from nested(3)
    return caught.value


def test_an_error_that_was_raised_on_purpose_is_one_sentence_without_a_trace() -> None:
    for error in (for_temporal(LinkUnavailable("the other side sleeps"), 1), StreamStopped("the other side sleeps")):
        failure = kept(raised(error))
        assert (failure.message, failure.stack_trace) == ("the other side sleeps", "")
        assert not failure.HasField("cause")
        assert failure.application_failure_info.type in ("LinkUnavailable", "StreamStopped")


def test_a_time_out_without_words_has_its_name() -> None:
    assert kept(raised(httpx.ReadTimeout(""))).message == "ReadTimeout"
    assert kept(raised(TimeoutError())).application_failure_info.type == "TimeoutError"


async def test_a_database_error_fits_and_says_nothing_of_its_statement(servers: Servers) -> None:
    engine = connect(servers.databases.request, 1)
    try:
        async with engine.connect() as connection:
            with pytest.raises(Exception, match="no_such_column") as broken:
                await value(connection, f"SELECT no_such_column, '{'secret' * 500}'")
    finally:
        await engine.dispose()
    failure = kept(broken.value)
    assert failure.message == 'column "no_such_column" does not exist'
    assert 0 < len(failure.stack_trace) <= TRACE_CHARACTERS
    assert failure.ByteSize() < KEPT_BY_TEMPORAL
    assert "secret" not in str(failure)


def test_a_workflow_that_failed_by_its_activity_still_says_by_which_error() -> None:
    failed = ActivityError(
        "Activity task failed",
        scheduled_event_id=5,
        started_event_id=6,
        identity="worker",
        activity_type="drain",
        activity_id="1",
        retry_state=RetryState.NON_RETRYABLE_FAILURE,
    )
    failed.__cause__ = ApplicationError("the two histories differ", type="Fork")
    failure = kept(failed)
    assert failure.cause.message == "the two histories differ"
    assert failure.cause.application_failure_info.type == "Fork"
