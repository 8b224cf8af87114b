"""The sql executor on a real source: it reads, within bounds, and says nothing that must not cross."""

import asyncio

import asyncpg
import pytest
from pydantic import SecretStr

from execution.answer import ExecutionFailed
from execution.registry import Executors
from execution.sql import SqlSources
from models.requests import Limits
from tests.execution.asking import ask, failure, kind, sql
from tests.execution.conftest import Source


async def count(source: Source) -> object:
    return await source.run("SELECT count(*) FROM data.items")


@pytest.mark.parametrize(
    ("query", "reasons"),
    [
        ("DELETE FROM data.items RETURNING id", {"not-allowed"}),
        ("WITH gone AS (DELETE FROM data.items RETURNING id) SELECT * FROM gone", {"not-allowed", "query-failed"}),
        ("SELECT 1), gone AS (DELETE FROM data.items RETURNING id", {"not-allowed"}),
        ("SELECT data.add_item()", {"not-allowed"}),
        ("SELECT nextval('data.counter')", {"not-allowed"}),
        ("SELECT set_config('transaction_read_only', 'off', true), data.add_item()", {"not-allowed", "query-failed"}),
        ("SELECT 1) SELECT 1; DELETE FROM data.items; SELECT (1", {"query-failed"}),
    ],
)
async def test_a_query_that_writes_fails_and_changes_nothing(
    executors: Executors, source: Source, query: str, reasons: set[str]
) -> None:
    before = await count(source)
    reason, message = await failure(executors, kind(sql(query)))
    assert reason in reasons
    assert "items" not in message
    assert await count(source) == before


@pytest.mark.parametrize("text", ["'; DROP TABLE data.items; --", "item 1' OR '1'='1", "$1", ":name", "%s", "\\"])
async def test_a_parameter_is_a_value_whatever_it_looks_like(executors: Executors, source: Source, text: str) -> None:
    asked = kind(sql("SELECT id FROM data.items WHERE name = :name"))
    _, body = await ask(executors, asked, {"name": text})
    assert (body.status, body.data) == ("completed", [])
    assert await count(source) == 20


async def test_a_statement_that_takes_too_long_fails_as_timeout(executors: Executors) -> None:
    query = "SELECT pg_sleep(30)"
    reason, message = await failure(executors, kind(sql(query), Limits(timeout=0.05)))
    assert (reason, message) == ("timeout", "the query took longer than 0.05 s")


async def test_a_timeout_below_a_millisecond_is_still_a_timeout(executors: Executors) -> None:
    reason, message = await failure(executors, kind(sql("SELECT pg_sleep(30)"), Limits(timeout=0.0001)))
    assert (reason, message) == ("timeout", "the query took longer than 0.0001 s")


async def test_rows_beyond_the_limit_are_counted_and_not_returned(executors: Executors) -> None:
    finished, body = await ask(executors, kind(sql("SELECT id FROM data.items ORDER BY id"), Limits(rows=3)))
    assert body.data == [{"id": 1}, {"id": 2}, {"id": 3}]
    assert (body.returned, body.total, body.truncated) == (3, 20, True)
    assert (finished.returned, finished.total) == (3, 20)


async def test_an_answer_that_fits_is_not_truncated(executors: Executors) -> None:
    _, body = await ask(executors, kind(sql("SELECT id FROM data.items"), Limits(rows=20)))
    assert (body.returned, body.total, body.truncated) == (20, 20, False)


@pytest.mark.parametrize(("asked_for", "returned"), [(2, 2), (2.0, 2), (0, 0), (50, 5), (True, 5), ("2", 5), (-1, 0)])
async def test_a_caller_may_ask_for_fewer_rows_and_never_for_more(
    executors: Executors, asked_for: object, returned: int
) -> None:
    asked = kind(sql("SELECT id FROM data.items ORDER BY id"), Limits(rows=5, rows_param="limit"))
    _, body = await ask(executors, asked, {"limit": asked_for})
    assert (body.returned, body.total, body.truncated) == (returned, 20, True)


async def test_bytes_beyond_the_limit_are_cut_off_at_a_whole_row(executors: Executors) -> None:
    query = "SELECT repeat('x', 500) AS text FROM generate_series(1, 10)"
    _, body = await ask(executors, kind(sql(query), Limits(bytes=1200)))
    assert (body.returned, body.total, body.truncated) == (2, 10, True)


async def test_a_first_row_above_the_limit_leaves_no_row_and_says_so(executors: Executors) -> None:
    _, body = await ask(executors, kind(sql("SELECT repeat('x', 5000) AS text"), Limits(bytes=1024)))
    assert (body.returned, body.total, body.truncated) == (0, 1, True)


async def test_an_optional_parameter_that_is_not_given_is_null(executors: Executors) -> None:
    query = "SELECT id FROM data.items WHERE CAST(:low AS integer) IS NULL OR id >= CAST(:low AS integer)"
    _, without = await ask(executors, kind(sql(query)))
    _, given = await ask(executors, kind(sql(query)), {"low": 19})
    assert (without.returned, given.returned) == (20, 2)


@pytest.mark.parametrize("value", ["many", {"a": 1}, [1], 2**40])
async def test_a_parameter_of_the_wrong_type_fails_as_invalid_and_is_not_tried_again(
    executors: Executors, value: object
) -> None:
    reason, message = await failure(executors, kind(sql("SELECT id FROM data.items WHERE id = :id")), {"id": value})
    assert (reason, message) == ("invalid-params", "the database does not take these parameters")


async def test_json_passes_through_byte_for_byte_as_the_database_wrote_it(executors: Executors) -> None:
    query = (
        """SELECT '{"b" : 1.50,  "a":"é\\u00e9", "b": 2}'::json AS document, 1e20::float8 AS f, 1.10::numeric AS n"""
    )
    finished, _ = await ask(executors, kind(sql(query)))
    assert '"data":[{"document":{"b" : 1.50,  "a":"é\\u00e9", "b": 2},"f":1e+20,"n":1.10}],'.encode() in finished.body


async def test_a_document_over_several_lines_becomes_one_line_with_the_same_content(executors: Executors) -> None:
    query = """SELECT E'{\\n  "a": "x\\\\ny",\\r\\n  "b": 2\\n}'::json AS document"""
    _, body = await ask(executors, kind(sql(query)))
    assert body.data == [{"document": {"a": "x\ny", "b": 2}}]


@pytest.mark.parametrize("value", ["1e400::numeric", """'"\\ud800"'::json"""])
async def test_what_the_other_side_could_not_read_fails_here_and_does_not_cross(
    executors: Executors, value: str
) -> None:
    reason, _ = await failure(executors, kind(sql(f"SELECT {value} AS v")))
    assert reason == "answer-unreadable"


async def test_a_column_may_have_any_name(executors: Executors) -> None:
    _, body = await ask(executors, kind(sql('SELECT 1 AS answer, 2 AS "select", \'50%\' AS "%"')))
    assert body.data == [{"answer": 1, "select": 2, "%": "50%"}]


async def test_a_query_may_end_with_a_semicolon_or_a_comment(executors: Executors) -> None:
    for query in ("SELECT 1 AS n;", "SELECT 1 AS n -- the number", "SELECT 1 AS n;\n"):
        _, body = await ask(executors, kind(sql(query)))
        assert body.data == [{"n": 1}], query


async def test_a_source_that_is_not_configured_fails_without_naming_it(executors: Executors) -> None:
    reason, message = await failure(executors, kind(sql("SELECT 1", "secret-ledger")))
    assert reason == "source-missing"
    assert "secret-ledger" not in message


@pytest.mark.parametrize(
    "query",
    [
        "SELECT secret_column FROM data.items",
        "SELEC secret_column",
        "SELECT 1/0 AS secret_column",
        "SELECT :",
        "SELECT $1",
    ],
)
async def test_a_failed_query_does_not_show_itself(executors: Executors, query: str) -> None:
    _, message = await failure(executors, kind(sql(query)))
    assert "secret_column" not in message
    assert "SELEC" not in message


async def test_a_source_that_is_away_is_tried_again_and_then_fails_without_its_address(
    executors: Executors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execution.registry.PAUSE_SECONDS", 0.0)
    tries = 0

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        away = SqlSources({"data": SecretStr(f"postgresql://reader:hunter2@127.0.0.1:{port}/ledger?ssl=disable")}, 1)
        moved = Executors(away, executors.http, executors.python, executors.cache)
        reason, message = await failure(moved, kind(sql("SELECT 1")))
    assert reason == "source-unavailable"
    assert tries >= 3
    assert not any(word in message for word in ("hunter2", "127.0.0.1", "ledger", "reader"))


async def test_a_name_that_does_not_resolve_and_a_refused_password_are_an_unavailable_source(
    executors: Executors, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execution.registry.PAUSE_SECONDS", 0.0)
    head, _, tail = source.url.partition("@")
    wrong = head.rsplit(":", 1)[0] + ":wrong@" + tail
    for url in ("postgresql://reader@no-such-host.invalid/ledger", wrong):
        moved = Executors(SqlSources({"data": SecretStr(url)}, 1), executors.http, executors.python, executors.cache)
        assert (await failure(moved, kind(sql("SELECT 1"))))[0] == "source-unavailable"


async def test_a_source_that_comes_back_in_time_gives_the_answer(executors: Executors, source: Source) -> None:
    """Its connections are ended while they lie in the pool: the next request does not notice."""
    asked = kind(sql("SELECT count(*) AS n FROM data.items"))
    await ask(executors, asked)
    await source.run(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'airlock-source-data'"
    )
    _, body = await ask(executors, asked)
    assert body.data == [{"n": 20}]


async def test_a_connection_that_breaks_during_the_query_is_replaced_and_the_query_run_again(
    executors: Executors, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execution.registry.PAUSE_SECONDS", 0.0)
    lock = await asyncpg.connect(source.owner_url)
    transaction = lock.transaction()
    await transaction.start()
    await lock.execute("LOCK TABLE data.items IN ACCESS EXCLUSIVE MODE")
    asking = asyncio.create_task(ask(executors, kind(sql("SELECT count(*) AS n FROM data.items"))))
    waiting = "FROM pg_stat_activity WHERE application_name = 'airlock-source-data' AND wait_event_type = 'Lock'"
    async with asyncio.timeout(10):
        while not await source.run(f"SELECT count(*) {waiting}"):
            pass
    await source.run(f"SELECT pg_terminate_backend(pid) {waiting}")
    await transaction.rollback()
    await lock.close()
    _, body = await asking
    assert body.data == [{"n": 20}]


async def test_a_table_that_changed_under_a_prepared_query_does_not_fail_the_next_request(
    executors: Executors, source: Source
) -> None:
    await source.run("CREATE TABLE data.changing AS SELECT 1 AS a")
    asked = kind(sql("SELECT * FROM data.changing"))
    await ask(executors, asked)
    await source.run("ALTER TABLE data.changing ADD COLUMN b integer DEFAULT 2")
    _, body = await ask(executors, asked)
    await source.run("DROP TABLE data.changing")
    assert body.data == [{"a": 1, "b": 2}]


async def test_a_long_timeout_is_not_cut_short_by_the_driver(source: Source) -> None:
    sources = SqlSources({"data": SecretStr(source.url)}, 1)
    async with sources._engines["data"].connect() as connection:
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
        assert driver is not None
        assert driver._config.command_timeout > Limits.model_fields["timeout"].metadata[1].le
    await sources.aclose()


async def test_nothing_is_left_behind_in_a_connection_for_the_next_query(sources: SqlSources) -> None:
    limits = Limits(timeout=5)
    await sources.execute(sql("SELECT set_config('search_path', 'data', false)"), {}, limits)
    answer = await sources.execute(sql("SELECT current_setting('search_path') AS p"), {}, limits)
    assert b"data" not in answer.rows[0]
    with pytest.raises(ExecutionFailed):
        await sources.execute(sql("SELECT 1/0"), {}, limits)
    assert (await sources.execute(sql("SELECT 1 AS n"), {}, limits)).rows == [b'{"n":1}']
