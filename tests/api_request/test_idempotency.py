"""The same Idempotency-Key with the same body gives the same ids and stores nothing again."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from storage.database import value
from tests.api_request.conftest import Api
from tests.api_request.serving import IST, User, serving, settings_for

BODY = json.dumps([IST, IST]).encode()


async def submit(http: httpx.AsyncClient, key: str, body: bytes = BODY) -> httpx.Response:
    return await http.post("/v1/requests", content=body, headers={"Idempotency-Key": key})


async def count(api: Api, user: User) -> Any:
    async with api.networks.request.engine.connect() as connection:
        return await value(connection, "SELECT count(*) FROM requests WHERE user_id = :user_id", user_id=user.user_id)


async def test_the_same_key_and_body_give_the_same_answer_and_store_nothing(
    http: httpx.AsyncClient, api: Api, user: User
) -> None:
    first, second = await submit(http, "k1"), await submit(http, "k1")
    assert (second.status_code, second.json()) == (202, first.json())
    assert await count(api, user) == 2


async def test_the_same_key_with_another_body_is_refused(http: httpx.AsyncClient, api: Api, user: User) -> None:
    await submit(http, "k1")
    answer = await submit(http, "k1", BODY + b" ")
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:airlock:problem:idempotency-key-reused")
    assert await count(api, user) == 2


async def test_another_key_or_none_stores_again(http: httpx.AsyncClient, api: Api, user: User) -> None:
    ids = [(await submit(http, key)).json()["ids"] for key in ("k1", "k2")]
    ids += [(await http.post("/v1/requests", content=BODY)).json()["ids"] for _ in range(2)]
    assert len({id for pair in ids for id in pair}) == 8
    assert await count(api, user) == 8


async def test_calls_at_the_same_time_with_one_key_store_one_set(http: httpx.AsyncClient, api: Api, user: User) -> None:
    answers = await asyncio.gather(*(submit(http, "k1", BODY if n % 4 else BODY + b" ") for n in range(16)))
    accepted = [answer.json()["ids"] for answer in answers if answer.status_code == 202]
    refused = [answer.json()["type"] for answer in answers if answer.status_code == 422]
    assert len(accepted) + len(refused) == 16
    assert accepted
    assert accepted == [accepted[0]] * len(accepted)
    assert set(refused) == {"urn:airlock:problem:idempotency-key-reused"}
    assert await count(api, user) == 2


async def test_two_servers_take_one_key_once(api: Api, user: User) -> None:
    async with serving(settings_for(api.networks)) as url, user.calls(url) as other, user.calls(api.url) as one:
        answers = await asyncio.gather(*(submit(server, "k1") for server in (one, other) for _ in range(4)))
    assert [answer.json() for answer in answers] == [answers[0].json()] * 8
    assert await count(api, user) == 2


async def test_the_same_key_of_another_user_is_another_key(http: httpx.AsyncClient, api: Api, user: User) -> None:
    mine = (await submit(http, "k1")).json()["ids"]
    async with api.user().calls(api.url) as other:
        theirs = await submit(other, "k1", json.dumps(IST).encode())
    assert theirs.status_code == 202
    assert not set(mine) & set(theirs.json()["ids"])
    assert (await submit(http, "k1")).json()["ids"] == mine


async def test_a_refused_submission_does_not_use_its_key_up(http: httpx.AsyncClient) -> None:
    assert (await submit(http, "k1", b'[{"type": "nothing"}]')).status_code == 422
    assert (await submit(http, "k1")).status_code == 202


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é"])
async def test_a_key_that_is_none_is_refused_by_name(http: httpx.AsyncClient, key: str) -> None:
    answer = await http.post("/v1/requests", content=BODY, headers=[(b"Idempotency-Key", key.encode())])
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"].lower() == "idempotency-key"
