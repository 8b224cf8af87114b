"""Commands that run servers: everything, a worker or an API. And `migrate`, which prepares a database for them."""

from typing import Annotated

import typer

from cli.errors import MISCONFIGURED, database_trouble, explained, fail
from cli.naming import NetworkName
from cli.output import say

NETWORK = typer.Argument(help="Which network.")


def up(
    free_ports: Annotated[
        bool, typer.Option("--free-ports", help="Use free ports, so that several can run on one machine.")
    ] = False,
    redis_tcp: Annotated[
        bool, typer.Option("--redis-tcp", help="Open a TCP port of Redis too, with a password: 6380 by default.")
    ] = False,
    samples: Annotated[bool, typer.Option(help="Submit the sample requests once everything runs.")] = True,
) -> None:
    """Start everything on this machine: both networks, their servers, sample data. Ctrl-C stops all of it."""
    import asyncio

    from configuration.logs import configure_logs
    from embedded.up import UpOptions
    from embedded.up import up as start

    configure_logs()
    raise typer.Exit(asyncio.run(start(UpOptions(free_ports=free_ports, redis_tcp=redis_tcp, samples=samples))))


def worker(
    network: Annotated[NetworkName | None, typer.Argument(help="Which network; both by default.")] = None,
) -> None:
    """Run a Temporal worker. Any number may run. SIGTERM lets running work finish."""
    import worker as workers

    raise typer.Exit(workers.main([network] if network else []))


def api(network: Annotated[NetworkName, NETWORK]) -> None:
    """Serve a network's HTTP API."""
    import asyncio

    from api.listening import listeners
    from api.serving import serve
    from configuration.logs import configure_logs
    from configuration.settings import RequestSettings, ResponseSettings

    configure_logs()
    with explained():
        settings: RequestSettings | ResponseSettings
        if network == "request":
            from api.request import create_app as create_request_app

            settings = RequestSettings.load()
            app = create_request_app(settings)
        else:
            from api.response import create_app as create_response_app

            settings = ResponseSettings.load()
            app = create_response_app(settings)
        asyncio.run(serve(app, listeners(settings)))


def migrate(network: Annotated[NetworkName, NETWORK]) -> None:
    """Migrate a network's database to the newest schema."""
    import asyncio

    from sqlalchemy.exc import DBAPIError

    from configuration.settings import SETTINGS
    from models.errors import AirlockError, describe
    from models.streams import Network
    from storage.migrate import upgrade

    with explained():
        settings = SETTINGS[Network(network)].load()
        try:
            asyncio.run(upgrade(settings.database_url.get_secret_value(), network))
        except TimeoutError:
            raise fail("the migration did not end in time; is another one running?", MISCONFIGURED) from None
        except (DBAPIError, OSError) as error:
            trouble = database_trouble(settings, error)
            if isinstance(trouble, AirlockError):
                raise trouble from error
            raise fail(f"the database refused the migration: {describe(error)}") from error
    say(f"The {network} network's database is up to date.")
