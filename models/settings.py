"""The records of the ``settings`` snapshot."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from models.requests import PublicRequestType

SettingName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]*$", max_length=100)]


class SettingRecord(BaseModel):
    """A public setting. There is no record for a secret one."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["setting"] = "setting"
    name: SettingName
    value: JsonValue
    version: int


class RequestTypeRecord(PublicRequestType):
    """An active request type, without its executor."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["request-type"] = "request-type"


class ApiKeyRecord(BaseModel):
    """The hash of an active user's API key."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["api-key"] = "api-key"
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    user_id: UUID
    user: str
    role: Literal["user", "operator"]


type_of_record = Annotated[SettingRecord | RequestTypeRecord | ApiKeyRecord, Field(discriminator="kind")]
SettingsRecord: TypeAdapter[SettingRecord | RequestTypeRecord | ApiKeyRecord] = TypeAdapter(type_of_record)


class PublicSetting(BaseModel):
    """A setting as callers of the request network read it."""

    name: str
    value: Any
    version: int
