"""The content of the settings snapshot: the only code that decides which settings, types and keys cross the link."""

import json

from sqlalchemy.ext.asyncio import AsyncConnection

from models.requests import Limits
from models.settings import ApiKeyRecord, RequestTypeRecord, SettingRecord
from storage.database import rows


async def public_records(connection: AsyncConnection) -> list[bytes]:
    """The records of the settings snapshot, in a fixed order.

    No other query feeds the settings stream. It selects public settings, active request types without their executor,
    and the hashes of active keys of active users. A column that is not selected here cannot cross.
    """
    found: list[SettingRecord | RequestTypeRecord | ApiKeyRecord] = []
    for name, content, version in await rows(
        connection, "SELECT name, value::text, version FROM settings WHERE visibility = 'public' ORDER BY name"
    ):
        found.append(SettingRecord(name=name, value=json.loads(content), version=version))
    for name, version, description, schema, limits in await rows(
        connection,
        "SELECT name, version, description, params_schema::text, limits::text FROM request_types"
        " WHERE retired_at IS NULL ORDER BY name",
    ):
        found.append(
            RequestTypeRecord(
                name=name,
                version=version,
                description=description,
                params_schema=json.loads(schema),
                limits=Limits.model_validate_json(limits),
            )
        )
    for sha256, user_id, user, role in await rows(
        connection,
        "SELECT sha256, user_id, name, role FROM api_keys JOIN users USING (user_id)"
        " WHERE api_keys.active AND users.active ORDER BY sha256",
    ):
        found.append(ApiKeyRecord(sha256=sha256.hex(), user_id=user_id, user=user, role=role))
    return [record.model_dump_json().encode() for record in found]
