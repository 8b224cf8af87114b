"""Looking at requests, listing them by pages, cancelling them; and that each user sees only its own."""

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from storage.database import execute, rows, value
from tests.api_request.conftest import Api
from tests.api_request.serving import IST, User, answer


async def submit(http: httpx.AsyncClient, count: int = 1, **other: Any) -> list[str]:
    accepted = await http.post("/v1/requests", json=[{"type": "anything"} | other for _ in range(count)])
    ids: list[str] = accepted.json()["ids"]
    return ids


async def listed(http: httpx.AsyncClient, **query: Any) -> tuple[list[str], str | None]:
    found = await http.get("/v1/requests", params=query)
    assert found.status_code == 200, found.text
    page = found.json()
    return [item["request_id"] for item in page["items"]], page["next_cursor"]


async def test_pages_go_through_everything_once_newest_first(http: httpx.AsyncClient) -> None:
    ids = await submit(http, 25)
    found: list[str] = []
    cursor, pages = None, 0
    while pages == 0 or cursor:
        page, cursor = await listed(http, limit=10, **({"cursor": cursor} if cursor else {}))
        found += page
        pages += 1
    assert found == ids[::-1]
    assert pages == 3


async def test_a_full_last_page_has_no_next(http: httpx.AsyncClient) -> None:
    await submit(http, 4)
    first, cursor = await listed(http, limit=2)
    second, end = await listed(http, limit=2, cursor=cursor)
    assert (len(first), len(second), end) == (2, 2, None)


async def test_pages_stay_right_while_requests_come_in(http: httpx.AsyncClient) -> None:
    ids = await submit(http, 9)
    found: list[str] = []
    cursor = None
    for _ in range(3):
        page, cursor = await listed(http, limit=3, **({"cursor": cursor} if cursor else {}))
        found += page
        await submit(http, 5)
    assert found == ids[::-1]


async def test_filters_hold_on_every_page(http: httpx.AsyncClient, api: Api) -> None:
    mixed = [await submit(http, 1, **(IST if n % 2 else {})) for n in range(8)]
    ids = [pair[0] for pair in mixed]
    assert (await listed(http, type="airport"))[0] == ids[::-1][::2]
    for request_id in ids[:3]:
        await answer(api.networks, request_id)
    assert (await listed(http, status="completed"))[0] == ids[:3][::-1]
    assert (await listed(http, status="queued", type="airport"))[0] == ids[:2:-2]
    page, cursor = await listed(http, status="completed", limit=2)
    assert (page, await listed(http, status="completed", limit=2, cursor=cursor)) == (ids[2:0:-1], ([ids[0]], None))
    assert await listed(http, status="expired") == ([], None)
    assert await listed(http, type="no-such-type") == ([], None)


async def test_other_users_requests_are_invisible(http: httpx.AsyncClient, api: Api) -> None:
    (mine,) = await submit(http)
    for other in (api.user(), api.operator):
        async with other.calls(api.url) as caller:
            page, _ = await listed(caller, limit=500)
            assert mine not in page
            _, cursor = await listed(http, limit=1)
            assert cursor is None
            for method in ("GET", "DELETE"):
                denied = await caller.request(method, f"/v1/requests/{mine}")
                unknown = await caller.request(method, f"/v1/requests/{uuid4()}")
                assert denied.status_code == unknown.status_code == 404
                assert denied.json().keys() == unknown.json().keys()
    assert (await http.get(f"/v1/requests/{mine}")).json()["status"] == "queued"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=" + "A" * 65, "cursor"),
        ("cursor=%C3%A9", "cursor"),
        ("cursor=", "cursor"),
        ("cursor=%00", "cursor"),
        ("status=done", "status"),
        ("type=" + "a" * 65, "type"),
        ("type=%00", "type"),
        ("type=%ED%A0%80", "type"),
    ],
)
async def test_a_query_that_does_not_fit_is_refused_by_name(http: httpx.AsyncClient, query: str, field: str) -> None:
    refused = await http.get(f"/v1/requests?{query}")
    assert refused.status_code == 422, refused.text
    assert [error["field"] for error in refused.json()["errors"]] == [field]


@pytest.mark.parametrize("request_id", ["1", "x", "%00", "%2e%2e", "01900000-0000-7000-8000-00000000000g"])
async def test_an_id_that_is_none_is_refused_by_name(http: httpx.AsyncClient, request_id: str) -> None:
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/result")):
        refused = await http.request(method, f"/v1/requests/{request_id}{rest}")
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"] == "request_id"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ("", "queued"),
        ("sent_at = now()", "sent"),
        ("sent_at = now(), delivered_at = now()", "executing"),
    ],
)
async def test_the_status_tells_how_far_the_request_is(
    http: httpx.AsyncClient, api: Api, change: str, status: str
) -> None:
    (request_id,) = await submit(http)
    async with api.networks.request.engine.begin() as connection:
        if change:
            await execute(
                connection,
                f"UPDATE sealed_batches SET {change} WHERE sequence = (SELECT sequence FROM requests WHERE request_id ="
                " CAST(:request_id AS uuid))",
                request_id=request_id,
            )
    assert (await http.get(f"/v1/requests/{request_id}")).json()["status"] == status
    assert request_id in (await listed(http, status=status))[0]
    assert (await http.get(f"/v1/requests/{request_id}/result")).json()["status"] == status


async def cancellations(api: Api, request_id: str) -> int:
    """Batches that tell the response network of it: all of one record, sealed after the request's own."""
    async with api.networks.request.engine.connect() as connection:
        found: int = await value(
            connection,
            "SELECT count(*) FROM sealed_batches WHERE stream = 'requests' AND sequence > (SELECT sequence"
            " FROM requests WHERE request_id = CAST(:request_id AS uuid))",
            request_id=request_id,
        )
    return found


async def test_a_cancelled_request_is_closed_and_the_other_network_is_told_once(
    http: httpx.AsyncClient, api: Api
) -> None:
    (request_id,) = await submit(http)
    first = await http.delete(f"/v1/requests/{request_id}")
    assert (first.status_code, first.json()["status"]) == (200, "cancelled")
    assert first.json()["finished_at"]
    assert await cancellations(api, request_id) == 1
    second = await http.delete(f"/v1/requests/{request_id}")
    assert (second.status_code, second.json()) == (200, first.json())
    assert await cancellations(api, request_id) == 1


async def test_cancelling_at_the_same_time_tells_the_other_network_once(http: httpx.AsyncClient, api: Api) -> None:
    (request_id,) = await submit(http)
    answers = await asyncio.gather(*(http.delete(f"/v1/requests/{request_id}") for _ in range(6)))
    assert [(found.status_code, found.json()["status"]) for found in answers] == [(200, "cancelled")] * 6
    assert await cancellations(api, request_id) == 1


async def test_a_request_with_a_result_cannot_be_cancelled(http: httpx.AsyncClient, api: Api) -> None:
    (request_id,) = await submit(http)
    await answer(api.networks, request_id)
    refused = await http.delete(f"/v1/requests/{request_id}")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:airlock:problem:conflict")
    assert (await http.get(f"/v1/requests/{request_id}")).json()["status"] == "completed"
    assert await cancellations(api, request_id) == 0


async def test_of_a_result_and_a_cancellation_at_the_same_time_one_holds(http: httpx.AsyncClient, api: Api) -> None:
    for request_id in await submit(http, 6):
        cancelled, _ = await asyncio.gather(http.delete(f"/v1/requests/{request_id}"), answer(api.networks, request_id))
        status = (await http.get(f"/v1/requests/{request_id}")).json()["status"]
        assert status == ("cancelled" if cancelled.status_code == 200 else "completed")
        assert (await http.get(f"/v1/requests/{request_id}/result")).json()["status"] == status


async def test_someone_elses_request_is_not_cancelled(http: httpx.AsyncClient, api: Api) -> None:
    (request_id,) = await submit(http)
    async with api.user().calls(api.url) as other:
        assert (await other.delete(f"/v1/requests/{request_id}")).status_code == 404
    assert (await http.get(f"/v1/requests/{request_id}")).json()["status"] == "queued"
    assert await cancellations(api, request_id) == 0


async def test_many_calls_at_once_store_every_request_once(http: httpx.AsyncClient, api: Api, user: User) -> None:
    answers = await asyncio.gather(
        *(http.post("/v1/requests", content=json.dumps({"type": "anything", "params": {"n": n}})) for n in range(200))
    )
    given = {UUID(found.json()["id"]): n for n, found in enumerate(answers)}
    async with api.networks.request.engine.connect() as connection:
        kept = await rows(
            connection, "SELECT request_id, params, sequence FROM requests WHERE user_id = :id", id=user.user_id
        )
    assert {request_id: json.loads(params)["n"] for request_id, params, _ in kept} == given
    assert len({sequence for _, _, sequence in kept}) < 100
