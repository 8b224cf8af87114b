"""Settings: public ones cross to the request network, secret ones never leave and are never shown again."""

from datetime import datetime
from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from sqlalchemy.ext.asyncio import AsyncConnection

from api.bearer import needs_key
from api.problems import problem_responses
from api.response.callers import App, OperatorOf
from api.response.storable import invalid, storable
from models.errors import Conflict, NotFound, TooLarge
from models.settings import SettingName
from settings.setting_store import StoredSetting, delete_setting, find_setting, list_settings, put_setting
from storage.database import lock_until_commit

MAX_VALUE_BYTES = 64 * 1024

router = APIRouter(
    prefix="/v1/settings", tags=["settings"], dependencies=[needs_key], responses=problem_responses(401, 403, 503)
)

Visibility = Literal["public", "secret"]
Name = Annotated[SettingName, Path(examples=["banner.text"])]


class SettingView(BaseModel):
    """A setting. The value of a secret one can be written, but not read."""

    name: str
    value: JsonValue = Field(description="Null for a secret one")
    visibility: Visibility
    version: int = Field(description="Grows with each change")
    updated_at: datetime
    updated_by: str


class SettingsList(BaseModel):
    """All settings, by name."""

    settings: list[SettingView]


class SettingChange(BaseModel):
    """A new value."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"value": "Closed on Sunday", "visibility": "public"}]}
    )

    value: JsonValue = Field(description="Any JSON, 64 KiB at most")
    visibility: Visibility | None = Field(
        None,
        description="Left out, it stays as it is. A new setting must say it, so that no secret crosses by omission",
    )


class NewSetting(BaseModel):
    """A setting that is not there yet."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "banner.text", "value": "Welcome", "visibility": "public"}]},
    )

    name: SettingName
    value: JsonValue = Field(description="Any JSON, 64 KiB at most")
    visibility: Visibility


@router.get("", summary="List settings", operation_id="list_settings")
async def list_all(services: App, _operator: OperatorOf) -> SettingsList:
    """All settings; secret ones without their value."""
    async with services.engine.connect() as connection:
        return SettingsList(settings=[_view(setting) for setting in await list_settings(connection)])


@router.post(
    "",
    status_code=201,
    summary="Create a setting",
    operation_id="create_setting",
    responses=problem_responses(409, 413, 422),
)
async def create(services: App, operator: OperatorOf, new: NewSetting) -> SettingView:
    """Fails where there is one of that name."""
    _check_size(new.value)
    async with services.engine.begin() as connection:
        await _one_change_at_a_time(connection, new.name)
        if await find_setting(connection, new.name) is not None:
            raise Conflict(f"There is a setting {new.name!r} already; change it with PUT")
        with storable("value"):
            return _view(await put_setting(connection, new.name, new.value, new.visibility, operator.name))


@router.get("/{name}", summary="Read a setting", operation_id="get_setting", responses=problem_responses(404))
async def get(services: App, _operator: OperatorOf, name: Name) -> SettingView:
    """A secret one without its value."""
    async with services.engine.connect() as connection:
        found = await find_setting(connection, name)
    if found is None:
        raise _missing(name)
    return _view(found)


@router.put(
    "/{name}",
    summary="Create or change a setting",
    operation_id="put_setting",
    responses=problem_responses(413, 422),
)
async def put(services: App, operator: OperatorOf, name: Name, change: SettingChange) -> SettingView:
    """Its visibility stays unless the change says otherwise: a secret never becomes public by omission."""
    _check_size(change.value)
    async with services.engine.begin() as connection:
        await _one_change_at_a_time(connection, name)
        before = await find_setting(connection, name)
        visibility = change.visibility or (before.visibility if before else None)
        if visibility is None:
            raise invalid(
                "visibility", f"say public or secret: there is no setting {name!r} yet, and public ones cross"
            )
        with storable("value"):
            return _view(await put_setting(connection, name, change.value, visibility, operator.name))


@router.delete(
    "/{name}",
    status_code=204,
    summary="Delete a setting",
    operation_id="delete_setting",
    responses=problem_responses(404),
)
async def delete(services: App, _operator: OperatorOf, name: Name) -> None:
    """A public one is gone from the request network with the next export."""
    async with services.engine.begin() as connection:
        if not await delete_setting(connection, name):
            raise _missing(name)


async def _one_change_at_a_time(connection: AsyncConnection, name: str) -> None:
    """What was read of a setting stays true until its change is committed."""
    await lock_until_commit(connection, f"setting {name}")


def _check_size(value: JsonValue) -> None:
    try:
        size = len(orjson.dumps(value))
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise invalid("value", f"cannot be stored: {error}") from None
    if size > MAX_VALUE_BYTES:
        raise TooLarge(f"value: {size} bytes of JSON, a setting has {MAX_VALUE_BYTES} at most")


def _missing(name: str) -> NotFound:
    return NotFound(f"There is no setting {name!r}")


def _view(setting: StoredSetting) -> SettingView:
    return SettingView.model_validate(setting, from_attributes=True)
