"""Settings. Public ones cross to the request network. Secret ones never leave and cannot be read."""

from datetime import datetime
from typing import Annotated, Literal

import orjson
from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from api.problems import invalid_fields, problem_responses
from api.response.callers import App, OperatorOf
from api.response.operator_routes import operator_router
from api.response.storable import storable
from models.errors import Conflict, NotFound, TooLarge
from models.settings import SettingName
from settings.setting_store import StoredSetting, delete_setting, find_setting, list_settings, put_setting
from storage.database import lock_until_commit

MAX_VALUE_BYTES = 64 * 1024

router = operator_router("/v1/settings", "settings")

Visibility = Literal["public", "secret"]
Name = Annotated[SettingName, Path(examples=["banner.text"])]


class SettingView(BaseModel):
    """A setting. The value of a secret setting can be written but not read."""

    name: str
    value: JsonValue = Field(description="Null for a secret setting")
    visibility: Visibility
    version: int = Field(description="Increases with each change")
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
        description="Optional if the setting exists, and then unchanged. Required for a new setting",
    )


class NewSetting(BaseModel):
    """A new setting."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "banner.text", "value": "Welcome", "visibility": "public"}]},
    )

    name: SettingName
    value: JsonValue = Field(description="Any JSON, 64 KiB at most")
    visibility: Visibility


@router.get("", summary="List settings", operation_id="list_settings")
async def list_all(services: App, _operator: OperatorOf) -> SettingsList:
    """All settings. Secret ones have no value."""
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
    """Create a setting. Fails if one with this name exists."""
    _check_size(new.value)
    async with services.engine.begin() as connection:
        await lock_until_commit(connection, f"setting {new.name}")
        if await find_setting(connection, new.name) is not None:
            raise Conflict(f"The setting {new.name!r} already exists; change it with PUT")
        with storable("value"):
            return _view(await put_setting(connection, new.name, new.value, new.visibility, operator.name))


@router.get("/{name}", summary="Read a setting", operation_id="get_setting", responses=problem_responses(404))
async def get(services: App, _operator: OperatorOf, name: Name) -> SettingView:
    """One setting. A secret one has no value."""
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
    """Create or change a setting. Without ``visibility`` in the body, an existing setting keeps its own."""
    _check_size(change.value)
    async with services.engine.begin() as connection:
        await lock_until_commit(connection, f"setting {name}")
        before = await find_setting(connection, name)
        visibility = change.visibility or (before.visibility if before else None)
        if visibility is None:
            message = f"must be public or secret, since the setting {name!r} does not exist yet; public ones cross"
            raise invalid_fields([("visibility", message)])
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
    """Delete a setting. A public one is removed from the request network with the next export."""
    async with services.engine.begin() as connection:
        if not await delete_setting(connection, name):
            raise _missing(name)


def _check_size(value: JsonValue) -> None:
    try:
        size = len(orjson.dumps(value))
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise invalid_fields([("value", f"cannot be stored: {error}")]) from None
    if size > MAX_VALUE_BYTES:
        raise TooLarge(f"value: {size} bytes of JSON; a setting may have {MAX_VALUE_BYTES} at most")


def _missing(name: str) -> NotFound:
    return NotFound(f"There is no setting {name!r}")


def _view(setting: StoredSetting) -> SettingView:
    return SettingView.model_validate(setting, from_attributes=True)
