"""One database and one role per network in the embedded PostgreSQL, and the role that reads the sample data."""

from dataclasses import dataclass

import asyncpg

from embedded.home import Home
from embedded.postgres import Postgres

REQUEST, RESPONSE, READER = "airlock_request", "airlock_response", "airlock_reader"


@dataclass(frozen=True)
class Databases:
    """Connection strings."""

    request: str
    response: str
    reader: str
    """The response network's database, read-only: the data source of the sample request types."""


async def create_databases(postgres: Postgres, home: Home) -> Databases:
    """Create missing databases and roles, with the passwords of the home's secrets. May be repeated."""
    passwords = {role: home.secret(f"{role}-password") for role in (REQUEST, RESPONSE, READER)}
    connection = await asyncpg.connect(postgres.superuser_url)
    try:
        roles = {row["rolname"] for row in await connection.fetch("select rolname from pg_roles")}
        for role, password in passwords.items():
            # Our names and URL-safe base64 need no escaping.
            verb = "alter" if role in roles else "create"
            await connection.execute(f"{verb} role {role} login password '{password}'")
        await connection.execute(f"alter role {READER} set default_transaction_read_only = on")
        present = {row["datname"] for row in await connection.fetch("select datname from pg_database")}
        for name in (REQUEST, RESPONSE):
            if name not in present:
                # file_copy does not log a copy of the template: 0.1 s for both instead of 0.3 s
                await connection.execute(f"create database {name} owner {name} strategy file_copy")
            await connection.execute(f"revoke all on database {name} from public")
        await connection.execute(f"grant connect on database {RESPONSE} to {READER}")
    finally:
        await connection.close()
    for name in {REQUEST, RESPONSE} - present:
        connection = await asyncpg.connect(postgres.url(name, passwords[name], name))
        try:
            await connection.execute("revoke all on schema public from public")
        finally:
            await connection.close()
    return Databases(
        request=postgres.url(REQUEST, passwords[REQUEST], REQUEST),
        response=postgres.url(RESPONSE, passwords[RESPONSE], RESPONSE),
        reader=postgres.url(READER, passwords[READER], RESPONSE),
    )
