"""An operator of the request network cancels requests in bulk, and makes lost callbacks again."""

from uuid import UUID, uuid4

import orjson
import pytest

from fulfilment import cancelling
from tests.activities.calling import finish
from tests.activities.crossing import LINK, USER, change, new_id, one, submit, table
from tests.cli.conftest import Airlock
from tests.cli.test_on_real_servers import call, from_json
from tests.conftest import Networks

CLOSED = "SELECT request_id FROM requests WHERE closed = 'cancelled' ORDER BY request_id"


@pytest.fixture
def operator(networks: Networks, no_home: None, monkeypatch: pytest.MonkeyPatch) -> Networks:
    """The request network's variables point to real servers."""
    monkeypatch.setenv("AIRLOCK_REQUEST_DATABASE_URL", networks.request.url)
    monkeypatch.setenv("AIRLOCK_REQUEST_KEYS", str(networks.request.keys_directory))
    monkeypatch.setenv("AIRLOCK_REQUEST_LINK_ID", LINK)
    return networks


async def submit_for(networks: Networks, user: UUID, count: int, type_name: str = "rows") -> list[UUID]:
    ids = [new_id() for _ in range(count)]
    await submit(networks, *ids, callback="http://hooks.example/a")
    await change(
        networks.request,
        "UPDATE requests SET user_id = :user, type = :type WHERE request_id = ANY (CAST(:ids AS uuid[]))",
        user=user,
        type=type_name,
        ids=ids,
    )
    return ids


async def know(networks: Networks, user: UUID, name: str) -> None:
    """The newest settings have this user."""
    key = {"kind": "api-key", "sha256": "00" * 32, "user_id": str(user), "user": name, "role": "user"}
    await change(
        networks.request,
        "INSERT INTO snapshots (stream, epoch, sequence, sealed_at, records)"
        " VALUES ('settings', 1, 1, now(), :records)",
        records=orjson.dumps(key) + b"\n",
    )


async def test_the_open_requests_of_a_user_are_cancelled_in_few_batches(
    airlock: Airlock, operator: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "AT_A_TIME", 4)
    flooding, other = uuid4(), uuid4()
    await know(operator, flooding, "flo")
    ids = await submit_for(operator, flooding, 9)
    await submit_for(operator, other, 2)
    await finish(operator, ids[0])
    sealed = "SELECT count(*) FROM sealed_batches WHERE stream = 'requests'"
    before = await one(operator.request, sealed)
    assert await from_json(airlock, "requests", "cancel", "--user", "flo") == {"cancelled": 8}
    assert [key for (key,) in await table(operator.request, CLOSED)] == sorted(ids[1:])
    assert await one(operator.request, sealed) == before + 2
    again = await call(airlock, "requests", "cancel", "--user", str(flooding))
    assert (again.exit_code, again.stdout) == (0, "0 requests cancelled\n")


async def test_conditions_of_a_bulk_cancellation_hold_together(airlock: Airlock, operator: Networks) -> None:
    one_user, two_user = uuid4(), uuid4()
    rows = await submit_for(operator, one_user, 2, "rows")
    counts = await submit_for(operator, one_user, 2, "counts")
    await submit_for(operator, two_user, 2, "rows")
    done = await from_json(airlock, "requests", "cancel", "--user", str(one_user), "--type", "rows")
    assert done == {"cancelled": 2}
    assert [key for (key,) in await table(operator.request, CLOSED)] == rows
    assert await from_json(airlock, "requests", "cancel", str(counts[1])) == {"cancelled": 1}
    assert await from_json(airlock, "requests", "cancel", "--type", "rows") == {"cancelled": 2}


async def test_a_bulk_cancellation_needs_a_condition_and_a_known_user(airlock: Airlock, operator: Networks) -> None:
    await submit_for(operator, USER, 1)
    nothing = await call(airlock, "requests", "cancel")
    assert nothing.exit_code == 2
    assert "--user" in nothing.stderr
    unknown = await call(airlock, "requests", "cancel", "--user", "nobody\x1b[2J")
    assert unknown.exit_code == 1
    assert "no user 'nobody\\x1b[2J'" in unknown.stderr
    assert await table(operator.request, CLOSED) == []


async def test_lost_callbacks_are_listed_and_made_due_again(airlock: Airlock, operator: Networks) -> None:
    ids = await submit_for(operator, USER, 3)
    await finish(operator, *ids)
    lost = "UPDATE requests SET callback_at = now(), callback_lost = 'status 500' WHERE request_id = :key"
    await change(operator.request, lost, key=ids[0])
    [listed] = await from_json(airlock, "callbacks", "list", "--lost")
    assert (listed["request_id"], listed["host"], listed["reason"]) == (str(ids[0]), "hooks.example", "status 500")
    assert "status 500" in (await call(airlock, "callbacks", "list", "--host", "hooks.example")).stdout
    assert (await call(airlock, "callbacks", "resend")).exit_code == 2
    assert await from_json(airlock, "callbacks", "resend", "--user", str(uuid4())) == {"due_again": 0}
    told = await call(airlock, "callbacks", "resend", "--host", "hooks.example")
    assert (told.exit_code, told.stdout) == (0, "1 callback due again\n")
    assert await from_json(airlock, "callbacks", "list") == []
