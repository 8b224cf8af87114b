"""Nobody sees, changes or guesses what is another's: every operation that names a request, tried by somebody else.

Single cases: tests/api_request/test_requests.py, test_results.py, test_idempotency.py.
"""

import pytest

from tests.api_request.serving import IST, User, answer
from tests.security.conftest import Airlock
from tests.security.documents import OPERATIONS, SOME_ID, Operation

NAMES_A_REQUEST = [
    item
    for item in OPERATIONS
    if "{request_id}" in item.template and item.network == "request" and not item.template.startswith("/link/")
]


def test_there_are_operations_to_try() -> None:
    assert {item.template.rpartition("/")[2] for item in NAMES_A_REQUEST} >= {"{request_id}", "result", "trace"}


@pytest.mark.parametrize("operation", NAMES_A_REQUEST, ids=str)
@pytest.mark.parametrize("by", ["another user", "an operator"])
async def test_another_ones_request_is_as_unknown_as_one_that_never_was(
    airlock: Airlock, user: User, operation: Operation, by: str
) -> None:
    stranger = next(airlock.users) if by == "another user" else airlock.operator
    async with user.calls(airlock.request.url) as owner, stranger.calls(airlock.request.url) as other:
        request_id = (await owner.post("/v1/requests", json=IST)).json()["id"]
        await answer(airlock.networks, request_id)
        assert (await owner.get(f"/v1/requests/{request_id}/result")).status_code == 200  # and it is cached now
        theirs = await other.request(operation.method, operation.path(request_id=request_id))
        nobodys = await other.request(operation.method, operation.path())
        assert theirs.status_code == nobodys.status_code == 404
        assert theirs.text.replace(request_id, SOME_ID) == nobodys.text
        assert request_id not in (await other.get("/v1/requests?limit=500")).text
        seen = (await owner.get(f"/v1/requests/{request_id}")).json()
        assert seen["status"] == "completed", "the stranger changed it"


async def test_a_cursor_opens_nobodys_list_but_ones_own(airlock: Airlock, user: User) -> None:
    async with user.calls(airlock.request.url) as owner, next(airlock.users).calls(airlock.request.url) as other:
        ids = (await owner.post("/v1/requests", json=[IST] * 3)).json()["ids"]
        mine = (await other.post("/v1/requests", json=[IST] * 2)).json()["ids"]
        cursor = (await owner.get("/v1/requests?limit=1")).json()["next_cursor"]
        listed = [item["request_id"] for item in (await other.get(f"/v1/requests?cursor={cursor}")).json()["items"]]
        assert not set(listed) & set(ids)
        assert set(listed) <= set(mine)


async def test_an_idempotency_key_finds_only_ones_own(airlock: Airlock, user: User) -> None:
    headers = {"Idempotency-Key": "the-same"}
    async with user.calls(airlock.request.url) as owner, next(airlock.users).calls(airlock.request.url) as other:
        first = (await owner.post("/v1/requests", json=IST, headers=headers)).json()["id"]
        second = (await other.post("/v1/requests", json=IST, headers=headers)).json()["id"]
    assert first != second


async def test_a_users_key_opens_nothing_of_the_response_network(airlock: Airlock, user: User) -> None:
    async with user.calls(airlock.response.url) as http:
        for operation in OPERATIONS:
            if operation.network == "response" and operation.template not in ("/healthz", "/readyz"):
                refused = await http.request(operation.method, operation.path())
                assert refused.status_code == 403, str(operation)
