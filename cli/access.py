"""Users and their API keys."""

import secrets
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import typer

from cli.errors import answer, fail, response_database
from cli.output import AsJson, print_json, print_table, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from storage.database import AnyRow

users = typer.Typer(help="Users and their API keys.", no_args_is_help=True)

UserName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the user.")]
MAX_NAME = 100


def new_api_key() -> str:
    """256 random bits, with a prefix by which scanners find a key that leaked."""
    return "alk_" + secrets.token_urlsafe(32)


@users.command("create")
def create_user(
    name: UserName,
    role: Annotated[
        Literal["user", "operator"],
        typer.Option(help="A user submits requests; an operator runs the response network."),
    ],
    as_json: AsJson = False,
) -> None:
    """Create a user and print a new key once. Only its SHA-256 is stored."""
    from uuid_utils.compat import uuid7

    from people.users import put_user

    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise fail(f"a name has 1 to {MAX_NAME} printable characters")

    async def work() -> tuple[UUID, str]:
        async with response_database() as connection:
            if await _user_id(connection, name) is not None:
                raise fail(f"user {name!r} exists already; make another key with: airlock users add-key {name}")
            user_id = await put_user(connection, uuid7(), name, role)
            return user_id, await _give_key(connection, user_id, "made at creation")

    user_id, key = answer(work)
    _show_key(user_id, name, key, as_json)


@users.command("add-key")
def add_key(
    name: UserName,
    label: Annotated[str, typer.Option(help="The purpose of the key.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make another key for a user and print it once."""

    async def work() -> tuple[UUID, str]:
        async with response_database() as connection:
            user_id = await _user_id(connection, name)
            if user_id is None:
                raise fail(f"there is no user {name!r}; see: airlock users list")
            return user_id, await _give_key(connection, user_id, label)

    user_id, key = answer(work)
    _show_key(user_id, name, key, as_json)


@users.command("list")
def list_users(as_json: AsJson = False) -> None:
    """All users."""
    from people.users import list_users as find_users

    async def work() -> "Sequence[AnyRow]":
        async with response_database() as connection:
            return await find_users(connection)

    found = answer(work)
    if as_json:
        print_json([dict(user._mapping) for user in found])
        return
    print_table(
        "Users",
        ("name", "role", "active", "keys", "since"),
        [(user.name, user.role, "yes" if user.active else "no", user.keys, user.created_at) for user in found],
    )


async def _user_id(connection: "AsyncConnection", name: str) -> UUID | None:
    from people.users import find_user_id

    return await find_user_id(connection, name)


async def _give_key(connection: "AsyncConnection", user_id: UUID, label: str) -> str:
    from people.users import put_api_key

    key = new_api_key()
    await put_api_key(connection, user_id, key, label)
    return key


def _show_key(user_id: UUID, name: str, key: str, as_json: bool) -> None:
    if as_json:
        print_json({"user_id": str(user_id), "name": name, "key": key})
        return
    say(key)
    say("This key is not shown again. The request network accepts it after the next settings export.", err=True)
