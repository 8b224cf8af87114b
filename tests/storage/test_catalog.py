"""The catalogue: what is public crosses and nothing else does; versions grow when something changed."""

import hashlib
from uuid import UUID

import orjson
import pytest
from uuid_utils.compat import uuid7

from execution.request_types import find_request_type, put_request_type, retire_request_type
from models.settings import SettingsRecord
from people.users import find_caller, put_api_key, put_user
from settings.setting_store import delete_setting, find_setting, list_settings, put_setting, secret_settings
from settings.snapshot import public_records
from storage.database import execute
from tests.conftest import Networks

PLANTED = "pl4nted-s3cret"
KEY = f"alk_{PLANTED}"


async def fill(networks: Networks) -> UUID:
    """A catalogue with a secret in every place that a secret may be in."""
    async with networks.response.engine.begin() as connection:
        await put_setting(connection, "greeting", "hello", "public", f"updater-{PLANTED}")
        await put_setting(connection, "ledger.token", PLANTED, "secret", "test")
        await put_setting(connection, "was.secret", PLANTED, "secret", "test")
        await put_setting(connection, "was.secret", "now public", "public", "test")
        await put_setting(connection, "was.public", {"deep": [PLANTED]}, "public", "test")
        await put_setting(connection, "was.public", {"deep": [PLANTED]}, "secret", "test")
        executor = {
            "kind": "sql",
            "source": f"source-{PLANTED}",
            "query": f"SELECT '{PLANTED}'",
            "url": f"https://user:{PLANTED}@host",
        }
        await put_request_type(connection, "rows", "Rows", {"type": "object"}, {"rows": 5}, executor, PLANTED)
        await put_request_type(connection, "retired", PLANTED, {"title": PLANTED}, {}, executor, "test")
        await retire_request_type(connection, "retired")
        user = await put_user(connection, uuid7(), "ada", "user")
        await put_api_key(connection, user, KEY, f"label-{PLANTED}")
        gone = await put_user(connection, uuid7(), f"gone-{PLANTED}", "user")
        await put_api_key(connection, gone, "alk_gone", "")
        await execute(connection, "UPDATE users SET active = false WHERE user_id = :user", user=gone)
        await put_api_key(connection, user, "alk_revoked", "")
        revoked = hashlib.sha256(b"alk_revoked").digest()
        await execute(connection, "UPDATE api_keys SET active = false WHERE sha256 = :sha256", sha256=revoked)
    return user


async def records(networks: Networks) -> list[bytes]:
    async with networks.response.engine.connect() as connection:
        return await public_records(connection)


async def test_no_secret_executor_or_key_is_in_any_byte_that_crosses(networks: Networks) -> None:
    await fill(networks)
    crossing = b"\n".join(await records(networks))
    for hidden in (
        PLANTED,
        "executor",
        "SELECT",
        "ledger",
        "was.public",
        "retired",
        "gone",
        "updater",
        "label",
        "alk_",
    ):
        assert hidden.encode() not in crossing, hidden
    for key in ("alk_gone", "alk_revoked"):
        assert hashlib.sha256(key.encode()).hexdigest().encode() not in crossing


async def test_what_is_public_crosses_whole_and_as_the_other_side_reads_it(networks: Networks) -> None:
    user = await fill(networks)
    crossing = await records(networks)
    for record in crossing:
        SettingsRecord.validate_json(record)
    loaded = [orjson.loads(record) for record in crossing]
    assert [(r["kind"], r.get("name")) for r in loaded] == [
        ("setting", "greeting"),
        ("setting", "was.secret"),
        ("request-type", "rows"),
        ("api-key", None),
    ]
    assert loaded[2]["limits"]["rows"] == 5
    sha256 = hashlib.sha256(KEY.encode()).hexdigest()
    assert loaded[3] == {"kind": "api-key", "sha256": sha256, "user_id": str(user), "user": "ada", "role": "user"}


async def test_the_same_content_gives_the_same_bytes(networks: Networks) -> None:
    await fill(networks)
    assert await records(networks) == await records(networks)


async def test_a_settings_version_grows_only_when_value_or_visibility_changed(networks: Networks) -> None:
    async with networks.response.engine.begin() as connection:
        versions = [
            (await put_setting(connection, "a", value, visibility, by)).version
            for value, visibility, by in [
                ({"x": 1, "y": 2}, "public", "ada"),
                ({"y": 2, "x": 1}, "public", "bob"),
                ({"x": 2}, "public", "ada"),
                ({"x": 2}, "secret", "ada"),
                ({"x": 2}, "secret", "ada"),
                (None, "secret", "ada"),
            ]
        ]
    assert versions == [1, 1, 2, 3, 3, 4]


async def test_a_request_types_version_grows_only_when_what_it_does_changed(networks: Networks) -> None:
    async with networks.response.engine.begin() as connection:

        async def put(description: str = "", executor: str = "a", rows: int = 1) -> int:
            kind = await put_request_type(connection, "t", description, {}, {"rows": rows}, {"q": executor}, "test")
            return kind.version

        versions = [await put(), await put(), await put("d"), await put("d", "b"), await put("d", "b", 2)]
        assert await retire_request_type(connection, "t")
        assert not await retire_request_type(connection, "t")
        versions.append(await put("d", "b", 2))
        found = await find_request_type(connection, "t")
    assert versions == [1, 1, 2, 3, 4, 4]
    assert found is not None
    assert found.retired_at is None


async def test_a_secret_setting_is_listed_without_its_value_and_given_to_executors_as_text(
    networks: Networks,
) -> None:
    await fill(networks)
    async with networks.response.engine.connect() as connection:
        listed = await list_settings(connection)
        assert PLANTED not in repr([setting for setting in listed if setting.name != "greeting"])
        found = await find_setting(connection, "ledger.token")
        assert found is not None
        assert (found.value, found.visibility) == (None, "secret")
        given = await secret_settings(connection)
    assert given == {"ledger.token": PLANTED, "was.public": f'{{"deep": ["{PLANTED}"]}}'}


async def test_a_deleted_setting_crosses_no_more(networks: Networks) -> None:
    await fill(networks)
    async with networks.response.engine.begin() as connection:
        assert await delete_setting(connection, "greeting")
        assert not await delete_setting(connection, "greeting")
    assert b"greeting" not in b"".join(await records(networks))


@pytest.mark.parametrize(("key", "known"), [(KEY, True), ("alk_gone", False), ("alk_revoked", False), ("x", False)])
async def test_only_an_active_key_of_an_active_user_is_a_callers(networks: Networks, key: str, known: bool) -> None:
    user = await fill(networks)
    async with networks.response.engine.connect() as connection:
        found = await find_caller(connection, hashlib.sha256(key.encode()).digest())
    assert (found is not None) is known
    if found is not None:
        assert (found.user_id, found.name, found.role) == (user, "ada", "user")


async def test_only_the_hash_of_a_key_is_stored(networks: Networks) -> None:
    await fill(networks)
    async with networks.response.engine.connect() as connection:
        assert not await execute(connection, "SELECT FROM api_keys WHERE api_keys::text LIKE '%alk\\_%'")
