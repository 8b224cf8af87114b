"""`airlock requests` and `airlock callbacks`: what an operator of the request network does with requests of users."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from cli.errors import MISCONFIGURED, answer, database_of, fail
from cli.output import AsJson, print_json, print_table, say

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from configuration.settings import RequestSettings

app = typer.Typer(name="requests", help="Requests of all users, in the request network.", no_args_is_help=True)
callbacks = typer.Typer(
    name="callbacks", help="Callbacks that were not delivered, in the request network.", no_args_is_help=True
)

Ids = Annotated[list[UUID] | None, typer.Argument(metavar="[ID]...", help="Ids of requests.")]
User = Annotated[str | None, typer.Option("--user", metavar="NAME", help="All of this user: the name, or the id.")]
Host = Annotated[str | None, typer.Option("--host", help="All to this host, with its port if the URL has one.")]
MOST = 10_000


@app.command()
def cancel(
    ids: Ids = None,
    user: User = None,
    type_name: Annotated[str | None, typer.Option("--type", help="All of this request type.")] = None,
    as_json: AsJson = False,
) -> None:
    """Cancel open requests and say how many. With several conditions, those that meet all of them."""
    if not (ids or user or type_name):
        raise fail("name the requests to cancel: by id, --user or --type", MISCONFIGURED)

    async def work(engine: "AsyncEngine", settings: "RequestSettings") -> int:
        from exchange.errors import StreamStopped
        from exchange.link_keys.live_keys import current_keys
        from exchange.transfer.sealing import Sealer
        from fulfilment.cancelling import cancel_requests
        from fulfilment.group_commit import refused_while_stopped

        async with engine.connect() as connection:
            user_id = await _user_id(connection, user)
            keys = await current_keys(connection, settings.network, settings.keys)
        try:
            return await cancel_requests(engine, Sealer(keys, settings.link_id), user_id, type_name, ids or None)
        except StreamStopped as error:
            raise refused_while_stopped(error) from error

    cancelled = _in_the_request_network(work)
    _tell_count("cancelled", cancelled, "request", as_json)


@callbacks.command("list")
def list_callbacks(
    user: User = None,
    host: Host = None,
    lost: Annotated[bool, typer.Option("--lost", help="Only those that were given up.")] = False,
    as_json: AsJson = False,
) -> None:
    """Callbacks that failed and will be tried again, and those that were given up. Newest request first."""

    async def work(engine: "AsyncEngine", _settings: "RequestSettings") -> Any:
        from fulfilment.callback_store import undelivered_callbacks

        async with engine.connect() as connection:
            return await undelivered_callbacks(connection, await _user_id(connection, user), host, lost, MOST)

    found = _in_the_request_network(work)
    if as_json:
        print_json([dict(item._mapping) for item in found])
        return
    print_table(
        "Callbacks not delivered",
        ("request", "user", "host", "attempts", "next attempt", "given up", "reason"),
        [
            (
                item.request_id,
                item.user_id,
                item.host or "",
                item.attempts,
                item.next_at if item.given_up_at is None else "",
                item.given_up_at or "",
                item.reason or "",
            )
            for item in found
        ],
    )


@callbacks.command()
def resend(
    ids: Ids = None,
    user: User = None,
    host: Host = None,
    every: Annotated[bool, typer.Option("--all", help="Every callback that was given up.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make given-up callbacks again, with the same webhook-id. One more failure gives an old one up again."""
    if not (ids or user or host or every):
        raise fail("name the callbacks to make again: by id, --user, --host or --all", MISCONFIGURED)

    async def work(engine: "AsyncEngine", _settings: "RequestSettings") -> int:
        from fulfilment.callback_store import send_callbacks_again

        async with engine.begin() as connection:
            return await send_callbacks_again(connection, ids or None, await _user_id(connection, user), host)

    _tell_count("due again", _in_the_request_network(work), "callback", as_json)


def _tell_count(what: str, count: int, noun: str, as_json: bool) -> None:
    if as_json:
        print_json({what.replace(" ", "_"): count})
        return
    from models.wording import counted

    say(f"{counted(count, noun)} {what}")


def _in_the_request_network(work: "Callable[[AsyncEngine, RequestSettings], Awaitable[Any]]") -> Any:
    async def run() -> Any:
        from configuration.settings import RequestSettings

        settings = RequestSettings.load()
        opened: AbstractAsyncContextManager[AsyncEngine] = database_of(settings)
        async with opened as engine:
            return await work(engine, settings)

    return answer(run)


async def _user_id(connection: "AsyncConnection", user: str | None) -> UUID | None:
    """The id of a user. Names are those of the newest settings; an id also serves for a user who is not in them."""
    from fulfilment.catalog import read_catalog
    from fulfilment.result_store import find_snapshot
    from models.errors import NotFound
    from models.streams import StreamName

    if user is None:
        return None
    try:
        return UUID(user)
    except ValueError:
        pass
    found = await find_snapshot(connection, StreamName.SETTINGS)
    known = read_catalog(found.epoch, found.sequence, found.records).callers.values() if found else ()
    for caller in known:
        if caller.name == user:
            return caller.user_id
    raise NotFound(f"The newest settings have no user {user!r}; a user without a key is named by id")
