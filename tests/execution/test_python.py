"""The python executor: whatever a function does or returns, its request gets a result and the worker lives on."""

import asyncio
import threading

import pytest

from execution.registry import Executors
from models.requests import Limits
from tests.execution import functions
from tests.execution.asking import ask, failure, kind, python


@pytest.mark.parametrize("name", ["rows", "rows_later"])
async def test_plain_and_async_functions_get_the_parameters_and_give_rows(executors: Executors, name: str) -> None:
    _, body = await ask(executors, kind(python(name)), {"count": 3})
    assert (body.data, body.total, body.truncated) == ([{"n": 0}, {"n": 1}, {"n": 2}], 3, False)


async def test_rows_beyond_the_limit_are_cut_off_and_counted(executors: Executors) -> None:
    _, body = await ask(executors, kind(python("rows"), Limits(rows=2)), {"count": 5})
    assert (body.returned, body.total, body.truncated) == (2, 5, True)


async def test_an_endless_iterator_is_read_as_far_as_it_is_wanted_and_its_total_is_not_known(
    executors: Executors,
) -> None:
    _, body = await ask(executors, kind(python("forever"), Limits(rows=3)))
    assert (body.data, body.total, body.truncated) == ([0, 1, 2], None, True)


async def test_a_plain_function_runs_in_a_thread_of_its_own_kind(executors: Executors) -> None:
    _, body = await ask(executors, kind(python("where_it_ran")))
    assert body.data[0].startswith("python-executor")
    assert body.data[0] != threading.main_thread().name


async def test_functions_that_hang_time_out_and_take_no_thread_from_the_rest_of_the_worker(
    executors: Executors,
) -> None:
    functions.release.clear()
    try:
        asked = kind(python("hangs"), Limits(timeout=0.01))
        outcomes = await asyncio.gather(*(failure(executors, asked) for _ in range(12)))
        assert {reason for reason, _ in outcomes} == {"timeout"}
        async with asyncio.timeout(5):
            assert await asyncio.to_thread(lambda: "free") == "free"
    finally:
        functions.release.set()


async def test_an_async_function_that_takes_too_long_fails_as_timeout(executors: Executors) -> None:
    assert (await failure(executors, kind(python("hangs_later"), Limits(timeout=0.01))))[0] == "timeout"


@pytest.mark.parametrize("params", [{"wrong": 1}, {"count": 1, "more": 2}])
async def test_parameters_that_the_function_does_not_take_fail_and_it_is_not_called(
    executors: Executors, params: dict[str, int]
) -> None:
    functions.calls.clear()
    assert (await failure(executors, kind(python("rows")), params))[0] == "invalid-params"
    assert functions.calls == []


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("raises", "ValueError"),
        ("raises_later", "ValueError"),
        ("wrong_inside", "TypeError"),
        ("exits", "SystemExit"),
        ("exits_later", "SystemExit"),
        ("ends_an_iteration", "StopIteration"),
        ("circular", "Recursion"),
    ],
)
async def test_whatever_a_function_raises_fails_its_request_and_shows_only_its_kind(
    executors: Executors, name: str, error: str
) -> None:
    reason, message = await failure(executors, kind(python(name)))
    assert reason == "function-failed"
    assert error in message
    assert "hunter2" not in message


async def test_a_function_that_cancels_itself_fails_its_request_only(executors: Executors) -> None:
    assert (await failure(executors, kind(python("cancels_itself"))))[0] == "function-failed"


async def test_a_cancelled_execution_stays_cancelled(executors: Executors) -> None:
    running = asyncio.create_task(ask(executors, kind(python("hangs_later"))))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_function_may_tell_the_owner_why_there_is_no_answer(executors: Executors) -> None:
    assert await failure(executors, kind(python("refuses"))) == (
        "no-such-account",
        "there is no account of this number",
    )


async def test_a_reason_that_is_no_word_and_a_message_that_is_no_text_are_replaced(executors: Executors) -> None:
    assert (await failure(executors, kind(python("refuses_with_a_strange_reason"))))[0] == "function-failed"
    assert await failure(executors, kind(python("raises_lone_surrogate"))) == ("odd-text", "name ? is odd")


@pytest.mark.parametrize("name", ["no_rows", "text"])
async def test_an_answer_that_is_not_rows_fails(executors: Executors, name: str) -> None:
    assert (await failure(executors, kind(python(name))))[0] == "answer-not-rows"


async def test_values_that_json_cannot_say_become_their_text_and_numbers_that_are_none_become_null(
    executors: Executors,
) -> None:
    _, body = await ask(executors, kind(python("strange_values")))
    assert body.data == [{"nan": None, "lone": "?", "big": 2**70, "set": "frozenset({1})", "5": "five", "inf": None}]
    _, body = await ask(executors, kind(python("only_nan")))
    assert body.data == [{"nan": None}]


@pytest.mark.parametrize("name", ["too_big_a_number", "broken_answer"])
async def test_an_answer_that_the_other_side_could_not_read_fails_here(executors: Executors, name: str) -> None:
    assert (await failure(executors, kind(python(name))))[0] == "answer-unreadable"


async def test_rows_that_a_function_wrote_itself_pass_through_as_one_line_each(executors: Executors) -> None:
    finished, body = await ask(executors, kind(python("own_answer")))
    assert b'"data":[{ "a": 1}]' in finished.body
    assert (body.total, body.truncated) == (7, True)


async def test_a_total_that_is_no_count_fails(executors: Executors) -> None:
    assert (await failure(executors, kind(python("answer_with_strange_total"))))[0] == "answer-not-rows"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("os:getcwd", "module-not-allowed"),
        ("tests.execution.functions.sub:x", "module-not-allowed"),
        ("tests.execution.functions:missing", "function-missing"),
        ("tests.execution.functions:not_callable", "function-missing"),
    ],
)
async def test_only_functions_of_allowed_modules_are_called(executors: Executors, function: str, reason: str) -> None:
    spec = python("rows").model_copy(update={"function": function})
    found, message = await failure(executors, kind(spec))
    assert found == reason
    assert function.partition(":")[0] not in message
