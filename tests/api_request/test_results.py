"""Results: exactly the bytes that crossed, to their owner only, at once when they are there."""

import asyncio
from itertools import product
from uuid import uuid4

import httpx
import pytest

from fulfilment.request_store import close_requests
from storage.database import execute, value
from tests.api_request.conftest import Api
from tests.api_request.serving import IST, answer, eventually, result_body, serving, settings_for


async def submit(http: httpx.AsyncClient) -> str:
    found: str = (await http.post("/v1/requests", json=IST)).json()["id"]
    return found


async def result(http: httpx.AsyncClient, request_id: str, **headers: str) -> httpx.Response:
    return await http.get(f"/v1/requests/{request_id}/result", headers=headers)


def with_source(request_id: str, source: str) -> bytes:
    return result_body(request_id)[:-1] + b',"source":"%s"}' % source.encode()


async def test_the_bytes_are_those_that_crossed_from_the_database_first_and_the_cache_then(
    http: httpx.AsyncClient, api: Api
) -> None:
    request_id = await submit(http)
    await answer(api.networks, request_id)
    first, second = await result(http, request_id), await result(http, request_id)
    assert (first.status_code, first.content) == (200, with_source(request_id, "database"))
    assert (second.status_code, second.content) == (200, with_source(request_id, "cache"))
    assert first.headers["content-type"] == "application/json"
    assert first.headers["etag"] == second.headers["etag"]
    assert first.headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize("waits", list(product((0, 30), repeat=3)), ids=str)
async def test_every_reading_after_the_first_comes_from_the_cache(
    http: httpx.AsyncClient, api: Api, waits: tuple[int, ...]
) -> None:
    """At once, with and without waiting, also of a request that was submitted a moment ago."""
    request_id = await submit(http)
    await answer(api.networks, request_id)
    sources = [
        (await http.get(f"/v1/requests/{request_id}/result", params={"wait": wait})).json()["source"] for wait in waits
    ]
    assert sources == ["database", "cache", "cache"]


@pytest.mark.parametrize("wait", [0, 30])
async def test_a_result_that_somebody_waited_for_comes_from_the_cache_the_second_time(
    http: httpx.AsyncClient, api: Api, wait: int
) -> None:
    request_id = await submit(http)
    waiting = asyncio.create_task(http.get(f"/v1/requests/{request_id}/result?wait=60"))
    await looked_for(api, request_id)
    await answer(api.networks, request_id)
    async with asyncio.timeout(20):
        assert (await waiting).json()["source"] == "database"
    async with serving(settings_for(api.networks)) as url, httpx.AsyncClient(headers=http.headers) as elsewhere:
        again = await elsewhere.get(f"{url}/v1/requests/{request_id}/result?wait={wait}")
    assert again.content == with_source(request_id, "cache")


async def test_another_users_result_is_not_found_whether_it_is_cached_or_not(http: httpx.AsyncClient, api: Api) -> None:
    request_id = await submit(http)
    await answer(api.networks, request_id)
    async with api.user().calls(api.url) as other, api.operator.calls(api.url) as operator:
        for caller in (other, operator):
            assert (await result(caller, request_id)).status_code == 404
        assert (await result(http, request_id)).json()["source"] == "database"
        assert (await result(http, request_id)).json()["source"] == "cache"
        for caller in (other, operator):
            denied = await result(caller, request_id)
            assert (denied.status_code, denied.json()["type"]) == (404, "urn:airlock:problem:not-found")
            assert b"Istanbul" not in denied.content
            assert (await caller.get(f"/v1/requests/{request_id}/result?wait=30")).status_code == 404


async def test_without_a_result_the_answer_is_202_and_says_when_to_ask_again(http: httpx.AsyncClient) -> None:
    request_id = await submit(http)
    pending = await result(http, request_id)
    assert pending.status_code == 202
    assert pending.headers["retry-after"] == "1"
    assert "etag" not in pending.headers
    said = pending.json()
    assert (said["request_id"], said["status"], said["data"], said["error"]) == (request_id, "queued", [], None)


async def test_who_waits_is_woken_by_the_notice_of_the_commit(http: httpx.AsyncClient, api: Api) -> None:
    ids = [await submit(http) for _ in range(3)]
    waiting = [asyncio.create_task(http.get(f"/v1/requests/{id}/result?wait=60")) for id in ids for _ in range(3)]
    for request_id in reversed(ids):
        await answer(api.networks, request_id)
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*waiting)
    assert [(found.status_code, found.json()["request_id"]) for found in answers] == [
        (200, request_id) for request_id in ids for _ in range(3)
    ]


async def test_after_the_wait_the_status_is_that_of_the_moment(http: httpx.AsyncClient, api: Api) -> None:
    request_id = await submit(http)
    waiting = asyncio.create_task(http.get(f"/v1/requests/{request_id}/result?wait=1"))
    await looked_for(api, request_id)
    async with api.networks.request.engine.begin() as connection:
        await execute(connection, "UPDATE sealed_batches SET sent_at = now()")
    found = await waiting
    assert (found.status_code, found.json()["status"]) == (202, "sent")


async def test_a_result_whose_notice_was_lost_is_found_when_the_wait_ends(http: httpx.AsyncClient, api: Api) -> None:
    request_id = await submit(http)
    waiting = asyncio.create_task(http.get(f"/v1/requests/{request_id}/result?wait=1"))
    await looked_for(api, request_id)
    async with api.networks.request.engine.begin() as connection:
        await execute(
            connection,
            "INSERT INTO results SELECT request_id, user_id, 'completed', :body, 1, 1 FROM requests"
            " WHERE request_id = CAST(:request_id AS uuid)",
            request_id=request_id,
            body=result_body(request_id),
        )
    found = await waiting
    assert (found.status_code, found.json()["status"]) == (200, "completed")


async def looked_for(api: Api, request_id: str) -> None:
    """The server has had time for the first look: it has answered another call that came after."""
    async with api.user().calls(api.url) as other:
        for _ in range(5):
            assert (await result(other, request_id)).status_code == 404


async def test_who_waits_hears_of_it_although_the_listening_connection_is_lost(
    http: httpx.AsyncClient, api: Api
) -> None:
    request_id = await submit(http)
    waiting = asyncio.create_task(http.get(f"/v1/requests/{request_id}/result?wait=60"))
    await looked_for(api, request_id)
    await end_listening(api)
    await answer(api.networks, request_id)
    async with asyncio.timeout(20):
        assert (await waiting).status_code == 200


async def end_listening(api: Api) -> None:
    """Terminate the connection that the notices come by, and return when it is gone."""
    listening = "FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%-listen'"
    async with api.networks.request.engine.begin() as connection:
        pid = await value(connection, f"SELECT pid {listening}")
        assert await value(connection, "SELECT pg_terminate_backend(:pid)", pid=pid)

    async def gone() -> bool:
        async with api.networks.request.engine.begin() as connection:
            return await value(connection, "SELECT 1 FROM pg_stat_activity WHERE pid = :pid", pid=pid) is None

    await eventually(gone, "the listening connection is gone")


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("{etag}", 304),
        ('"other", {etag}', 304),
        ("*", 304),
        ("{strong}", 304),
        ('W/"other"', 200),
        ("", 200),
        ('"' + "x" * 400 + '", {etag}', 304),
    ],
)
async def test_a_result_that_the_caller_has_is_not_sent_again(
    http: httpx.AsyncClient, api: Api, given: str, status: int
) -> None:
    request_id = await submit(http)
    assert (await result(http, request_id, **{"If-None-Match": "*"})).status_code == 202
    await answer(api.networks, request_id)
    etag = (await result(http, request_id)).headers["etag"]
    found = await result(http, request_id, **{"If-None-Match": given.format(etag=etag, strong=etag.removeprefix("W/"))})
    assert found.status_code == status
    assert found.headers["etag"] == etag
    assert bool(found.content) == (status == 200)


@pytest.mark.parametrize("outcome", ["cancelled", "expired"])
async def test_a_request_that_ended_without_a_result_says_why(http: httpx.AsyncClient, api: Api, outcome: str) -> None:
    request_id = await submit(http)
    waiting = asyncio.create_task(http.get(f"/v1/requests/{request_id}/result?wait=60"))
    async with api.networks.request.engine.begin() as connection:
        condition = "request_id = CAST(:request_id AS uuid)"
        await close_requests(connection, outcome, condition, request_id=request_id)
    async with asyncio.timeout(20):
        found = await waiting
    said = found.json()
    assert (found.status_code, said["status"], said["error"]["reason"], said["data"]) == (200, outcome, outcome, [])
    late = result_body(request_id)
    await answer(api.networks, request_id, late)
    again = (await result(http, request_id)).json()
    assert (again["status"], said["source"], again["source"]) == (outcome, "database", "cache")


async def test_a_large_result_passes_whole(http: httpx.AsyncClient, api: Api) -> None:
    request_id = await submit(http)
    rows = [{"n": n, "text": "x" * 1000} for n in range(4000)]
    await answer(api.networks, request_id, result_body(request_id, rows))
    for source in ("database", "cache"):
        found = await result(http, request_id)
        assert (found.json()["data"], found.json()["source"]) == (rows, source)


@pytest.mark.parametrize("wait", ["-1", "61", "nan", "inf", "x", "1e400"])
async def test_a_wait_out_of_bounds_is_refused(http: httpx.AsyncClient, wait: str) -> None:
    answered = await http.get(f"/v1/requests/{uuid4()}/result?wait={wait}")
    assert (answered.status_code, answered.json()["errors"][0]["field"]) == (422, "wait")


async def test_two_servers_wake_each_others_callers(http: httpx.AsyncClient, api: Api) -> None:
    async with (
        serving(settings_for(api.networks)) as url,
        httpx.AsyncClient(base_url=url, headers=http.headers, timeout=90, trust_env=False) as other,
    ):
        request_id = await submit(http)
        waiting = asyncio.create_task(other.get(f"/v1/requests/{request_id}/result?wait=60"))
        cancelled = await http.delete(f"/v1/requests/{request_id}")
        async with asyncio.timeout(20):
            assert (await waiting).json()["status"] == cancelled.json()["status"] == "cancelled"
