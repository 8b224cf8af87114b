"""Running a command and reporting its errors: one or two sentences on standard error that say what to do."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import typer

from cli.output import say

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from temporalio.client import Client

    from configuration.settings import NetworkSettings

Answer = TypeVar("Answer")

FAILED, MISCONFIGURED = 1, 2
PATIENCE = 20.0
"""Most seconds for a command that only asks."""


def fail(message: str, code: int = FAILED) -> typer.Exit:
    """Print an error, in one line, in red on a terminal. Raise the returned exit."""
    _complain(f"airlock: {message}")
    return typer.Exit(code)


def _complain(line: str) -> None:
    say(line, err=True, colour=typer.colors.RED if sys.stderr.isatty() else None)


@contextmanager
def explained() -> Iterator[None]:
    """Turn an `AirlockError` into a message and an exit code: 2 for configuration, 1 for all others."""
    from models.errors import AirlockError, ConfigurationError

    try:
        yield
    except ConfigurationError as error:
        first, *others = str(error).split("\n")  # one line per variable
        exit_code = fail(first, MISCONFIGURED)
        for line in others:
            _complain(line)
        raise exit_code from None
    except AirlockError as error:
        raise fail(str(error)) from None


def answer(work: Callable[[], Awaitable[Answer]]) -> Answer:
    """Run a command that only asks. It fails after `PATIENCE`."""

    async def bounded() -> Answer:
        async with asyncio.timeout(PATIENCE):
            return await work()

    with explained():
        try:
            return asyncio.run(bounded())
        except TimeoutError:
            raise fail(f"no answer within {PATIENCE:g} s; try again, and look at the servers' logs") from None


@asynccontextmanager
async def response_database() -> AsyncIterator["AsyncConnection"]:
    """A transaction in the response network's database. Raises `Unavailable` or `ConfigurationError`."""
    from configuration.settings import ResponseSettings

    settings = ResponseSettings.load()
    async with database_of(settings) as engine, engine.begin() as connection:
        yield connection


@asynccontextmanager
async def database_of(settings: "NetworkSettings") -> AsyncIterator["AsyncEngine"]:
    """A network's database. Its errors in the block become `Unavailable` or `ConfigurationError`."""
    from sqlalchemy.exc import DBAPIError

    from models.errors import AirlockError
    from storage.database import connect, is_unreachable

    engine = connect(settings.database_url.get_secret_value(), 2, "airlock-command")
    try:
        yield engine
    except AirlockError:
        raise
    except Exception as error:
        if isinstance(error, DBAPIError | OSError) or is_unreachable(error):
            raise database_trouble(settings, error) from error
        raise
    finally:
        await engine.dispose()


def networks_here(network: str | None = None) -> "list[NetworkSettings]":
    """The configured networks, or the named one. In production it is one; on one machine both, the response network
    first. Raises `ConfigurationError` if there is none.
    """
    from configuration.settings import SETTINGS
    from models.errors import ConfigurationError
    from models.streams import Network

    if network is not None:
        return [SETTINGS[Network(network)].load()]
    found: list[NetworkSettings] = []
    trouble = None
    for kind in (Network.RESPONSE, Network.REQUEST):
        try:
            found.append(SETTINGS[kind].load())
        except ConfigurationError as error:
            trouble = trouble or error
    if not found and trouble is not None:
        raise trouble
    return found


def database_trouble(settings: "NetworkSettings", error: Exception) -> Exception:
    """Translate a database error for the user."""
    from models.errors import ConfigurationError, Unavailable, describe
    from storage.database import is_unreachable

    url = urlsplit(settings.database_url.get_secret_value())
    variable = f"AIRLOCK_{settings.network.upper()}_DATABASE_URL"
    where = f"PostgreSQL at {url.hostname}:{url.port or 5432}"
    cause = getattr(error, "orig", None) or error
    state = str(getattr(cause, "sqlstate", None) or "")
    if state.startswith("28"):
        return ConfigurationError(f"{where} refuses the login in {variable}: {describe(error)}")
    if state == "3D000":
        return ConfigurationError(f"{where} has no database {url.path.lstrip('/')!r}; create it or correct {variable}")
    if state in ("42P01", "3F000"):
        return ConfigurationError(f"{where} lacks Airlock's tables; run: airlock migrate {settings.network}")
    if isinstance(error, OSError) or is_unreachable(error):
        return Unavailable(f"{where} does not answer. Is it running (./airlock up), and is {variable} right?")
    return error


async def temporal_of(settings: "NetworkSettings") -> "Client":
    """A client of this network's Temporal. It connects at its first call, and logs nothing."""
    from orchestration.client import connect_temporal, sdk_runtime

    return await connect_temporal(settings, sdk_runtime("OFF"), lazy=True, identity="airlock-command")


@asynccontextmanager
async def response_temporal() -> AsyncIterator["Client"]:
    """The response network's Temporal. Raises `Unavailable` that says what to do."""
    from configuration.settings import ResponseSettings
    from models.errors import Unavailable

    client = await temporal_of(ResponseSettings.load())
    try:
        yield client
    except Unavailable as error:
        raise Unavailable(
            f"Temporal at {client.service_client.config.target_host} does not answer. Is it running (./airlock up), and"
            " is AIRLOCK_RESPONSE_TEMPORAL_ADDRESS right?"
        ) from error
