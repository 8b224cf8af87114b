"""The newest settings snapshot in memory: callers, request types and public settings."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from uuid import UUID

import orjson
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from fulfilment.result_store import find_snapshot
from models.errors import InvalidInput, Unauthenticated, describe
from models.parameters import ParameterCheck
from models.requests import PublicRequestType
from models.settings import ApiKeyRecord, PublicSetting, RequestTypeRecord, SettingRecord, SettingsRecord
from models.streams import StreamName
from storage.database import is_unreachable

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Caller:
    """The owner of an API key."""

    user_id: UUID
    name: str
    role: str


@dataclass(frozen=True)
class CheckedType:
    """A request type and its compiled schema."""

    type: PublicRequestType
    check: ParameterCheck


@dataclass(frozen=True)
class Catalog:
    """One parsed settings snapshot. ``sequence`` is 0 until the first one has crossed."""

    epoch: int = 0
    sequence: int = 0
    callers: Mapping[bytes, Caller] = field(default_factory=dict)
    types: Mapping[str, CheckedType] = field(default_factory=dict)
    settings: tuple[PublicSetting, ...] = ()

    @cached_property
    def settings_json(self) -> bytes:
        return orjson.dumps({"settings": [setting.model_dump() for setting in self.settings]})

    @cached_property
    def types_json(self) -> bytes:
        return orjson.dumps({"request_types": [item.type.model_dump(mode="json") for item in self.types.values()]})


def read_catalog(epoch: int, sequence: int, records: bytes) -> Catalog:
    """Parse a snapshot. Each of its records was checked when the snapshot was applied."""
    callers: dict[bytes, Caller] = {}
    types: dict[str, CheckedType] = {}
    settings: list[PublicSetting] = []
    for line in records.splitlines():
        match SettingsRecord.validate_json(line):
            case ApiKeyRecord() as key:
                callers[bytes.fromhex(key.sha256)] = Caller(key.user_id, key.user, key.role)
            case RequestTypeRecord() as kind:
                public = PublicRequestType.model_validate(kind.model_dump(exclude={"kind"}))
                try:
                    types[kind.name] = CheckedType(public, ParameterCheck(kind.params_schema))
                except InvalidInput as error:  # of a response network of another version: the other types still serve
                    log.error("catalog.type_unusable", type=kind.name, error=describe(error))
            case SettingRecord() as setting:
                settings.append(PublicSetting(name=setting.name, value=setting.value, version=setting.version))
    return Catalog(epoch, sequence, callers, types, tuple(settings))


class CurrentCatalog:
    """Keeps the newest catalog. It is read again after a notice, and at each use while no notices come."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._catalog = Catalog()
        self._changes = 1
        self._read = 0
        """The value of ``_changes`` before the last read, so that a change during the read is noticed."""
        self._reading = asyncio.Lock()
        self.listening = False

    def changed(self) -> None:
        """A newer snapshot was committed."""
        self._changes += 1

    @property
    def _is_current(self) -> bool:
        return self.listening and self._read == self._changes

    async def get(self) -> Catalog:
        """The newest catalog, or the last known one while the database is away."""
        if self._is_current:
            return self._catalog
        async with self._reading:
            if self._is_current:
                return self._catalog
            changes = self._changes
            try:
                async with self._engine.connect() as connection:
                    found = await find_snapshot(connection, StreamName.SETTINGS)
            except Exception as error:
                if not is_unreachable(error) or not self._catalog.sequence:
                    raise
                log.warning("catalog.database_away", error=describe(error))
                return self._catalog
            if found is not None and (found.epoch, found.sequence) != (self._catalog.epoch, self._catalog.sequence):
                self._catalog = read_catalog(found.epoch, found.sequence, found.records)
                log.info("catalog.read", epoch=found.epoch, sequence=found.sequence, types=len(self._catalog.types))
            self._read = changes
        return self._catalog

    async def caller(self, sha256: bytes) -> Caller:
        """The owner of the key with this hash; raises `Unauthenticated`. A lookup: its timing reveals no key."""
        catalog = await self.get()
        found = catalog.callers.get(sha256)
        if found is None:
            raise Unauthenticated(
                "This API key is unknown or no longer active"
                if catalog.sequence
                else "No API keys have arrived from the response network yet; try again in a minute"
            )
        return found
