"""Loads the sample into the response network's database, unless it is there already."""

import os
import secrets
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import asyncpg
import structlog
from uuid_utils.compat import uuid7

from execution.request_types import find_request_type, put_request_type
from models.requests import Limits
from people.users import put_api_key, put_user
from sample.request_types import REQUEST_TYPES, SOURCE
from settings.setting_store import put_setting
from storage.database import connect, lock_until_commit, value

log = structlog.get_logger(__name__)

_TABLE = """
CREATE SCHEMA IF NOT EXISTS sample;
DROP TABLE IF EXISTS sample.airports;
CREATE TABLE sample.airports (
    icao          text PRIMARY KEY,
    iata          text,
    name          text NOT NULL,
    city          text,
    subdivision   text,
    country       text NOT NULL,
    elevation_ft  double precision,
    latitude      double precision NOT NULL,
    longitude     double precision NOT NULL,
    time_zone     text
);
"""
_AFTERWARDS = """
CREATE INDEX ON sample.airports (iata);
CREATE INDEX ON sample.airports (country, name, icao);
CREATE INDEX ON sample.airports (latitude);
"""
_FIELDS = {
    "icao": "icao",
    "iata": "iata",
    "name": "name",
    "city": "city",
    "subdivision": "subd",
    "country": "country",
    "elevation_ft": "elevation",
    "latitude": "lat",
    "longitude": "lon",
    "time_zone": "tz",
}


@dataclass(frozen=True)
class SampleAccess:
    """The API keys of the sample user and operator."""

    api_key: str
    operator_key: str


async def install(response_database_url: str, reader_role: str, secrets_directory: Path) -> SampleAccess:
    """Install airports, request types, a user and an operator; keep their keys in ``secrets_directory``, mode 0600."""
    await load_airports(response_database_url, reader_role)
    access = SampleAccess(_key(secrets_directory / "api-key"), _key(secrets_directory / "operator-key"))
    engine = connect(response_database_url, 2, "airlock-sample")
    try:
        async with engine.begin() as connection:
            await lock_until_commit(connection, "sample")
            for name, role, key in (("sample", "user", access.api_key), ("operator", "operator", access.operator_key)):
                await put_api_key(connection, await put_user(connection, uuid7(), name, role), key, "made by up")
            for kind in REQUEST_TYPES:
                if await find_request_type(connection, kind["name"]) is None:
                    await put_request_type(
                        connection,
                        kind["name"],
                        kind["description"],
                        kind["params_schema"],
                        Limits.model_validate(kind["limits"]).model_dump(),
                        {"kind": "sql", "source": SOURCE, "query": kind["query"].strip()},
                        "sample",
                    )
            if not await value(connection, "SELECT count(*) FROM settings"):
                data = f"airportsdata {version('airportsdata')}"
                await put_setting(connection, "sample.data", data, "public", "sample")
    finally:
        await engine.dispose()
    return access


async def load_airports(url: str, reader_role: str) -> None:
    """Load the table by COPY in one transaction, unless it holds this version of the data."""
    edition = f"airportsdata {version('airportsdata')}"
    connection = await asyncpg.connect(url, timeout=10)
    try:
        found = await connection.fetchval("SELECT obj_description(to_regclass('sample.airports'), 'pg_class')")
        if found == edition:
            return
        import airportsdata  # slow: it holds 28,000 rows

        airports = airportsdata.load("ICAO").values()
        async with connection.transaction():
            await connection.execute(_TABLE)
            await connection.copy_records_to_table(
                "airports",
                schema_name="sample",
                columns=list(_FIELDS),
                records=[tuple(_or_null(dict(airport)[field]) for field in _FIELDS.values()) for airport in airports],
            )
            await connection.execute(_AFTERWARDS)
            role = '"' + reader_role.replace('"', '""') + '"'
            await connection.execute(
                f"GRANT USAGE ON SCHEMA sample TO {role}; GRANT SELECT ON sample.airports TO {role}"
            )
            await connection.execute(f"COMMENT ON TABLE sample.airports IS '{edition}'")
        await connection.execute("ANALYZE sample.airports")
        log.info("sample.loaded", airports=len(airports), edition=edition)
    finally:
        await connection.close()


def _or_null(item: object) -> object:
    """The package uses an empty string for an unknown value."""
    return None if item == "" else item


def _key(path: Path) -> str:
    """The API key in this file, made at the first call."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = "alk_" + secrets.token_urlsafe(32)
    draft = path.with_suffix(".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(key + "\n")
    draft.rename(path)
    return key
