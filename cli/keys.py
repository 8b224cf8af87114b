"""Keys of the link: create, rotate, list, retire and trust."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cli.both_sides import link_client
from cli.epochs import moment
from cli.errors import MISCONFIGURED, database_of, explained, fail, networks_here
from cli.naming import NetworkName
from cli.output import AsJson, print_json, print_table, say
from models.wording import counted

if TYPE_CHECKING:
    from configuration.settings import NetworkSettings
    from exchange.link_keys.introduction import KeyExchange
    from exchange.link_keys.live_keys import LiveKeys

Answer = TypeVar("Answer")

keys = typer.Typer(help="Keys of the link between the networks.", no_args_is_help=True)

Side = Annotated[
    NetworkName | None,
    typer.Option("--network", help="Whose keys; by default the configured network's, response if both are."),
]


@keys.command("create")
def create_keys(
    directory: Annotated[Path, typer.Argument(help="Gets one subdirectory per network; existing keys are kept.")],
    as_json: AsJson = False,
) -> None:
    """Make both networks' signing keys, so that each trusts the other's."""
    from exchange.wire.keys import ensure_link_keys

    with explained():
        try:
            made = ensure_link_keys(directory)
        except (OSError, ValueError) as error:
            raise fail(f"the keys in {directory} cannot be made: {error}") from None
    if as_json:
        print_json(
            {network.value: {"key_id": key, "directory": str(directory / network)} for network, key in made.items()}
        )
        return
    for network, key in made.items():
        say(f"{network}: key {key} in {directory / network}")
    say("Give each network only its own directory: the other one must not see signing.pem.", err=True)


@keys.command("rotate")
def rotate(
    network: Side = None,
    overlap: Annotated[
        float, typer.Option(min=10, max=90 * 86400, help="Seconds for which the previous key stays trusted.")
    ] = 86400,
    wait: Annotated[
        float, typer.Option(min=0, max=86400, help="Seconds to wait for the other network's confirmation.")
    ] = 120,
    as_json: AsJson = False,
) -> None:
    """Replace the signing key; the previous one retires. Nothing stops. After an interruption, run it again."""
    from dataclasses import asdict

    from exchange.link_keys.rotation import Rotated, Rotation

    steps: list[dict[str, str]] = []

    def tell(step: str, text: str) -> None:
        steps.append({"step": step, "text": text})
        if not as_json:
            say(f"{step}: {text}")

    async def work(settings: "NetworkSettings", live: "LiveKeys") -> Rotated:
        async with _exchange(settings, live) as exchange:
            return await Rotation(live, exchange, overlap, wait, tell).run()

    done = _run(network, work)
    if as_json:
        print_json(asdict(done) | {"steps": steps})
    else:
        say(f"done: {done.now} signs, {done.before} retires at {done.retires_at:%Y-%m-%d %H:%M:%S}Z")


@keys.command("list")
def list_keys(network: Side = None, as_json: AsJson = False) -> None:
    """Both networks' keys as this network knows them."""
    from exchange.link_keys.states import KeyState, key_states

    async def work(_settings: "NetworkSettings", live: "LiveKeys") -> list[KeyState]:
        return await key_states(live)

    found = _run(network, work)
    if as_json:
        print_json([state.model_dump(mode="json") for state in found])
        return
    print_table(
        "Keys of the link",
        ("key", "of", "state", "until", "vouched for by", "since"),
        [(key.key_id, key.owner.value, key.state, key.ends_at, key.introduced_by, key.since) for key in found],
    )


@keys.command("retire")
def retire(
    key_id: Annotated[str | None, typer.Argument(metavar="[KEY_ID]", help="16 hexadecimal digits, as listed.")] = None,
    introduced_since: Annotated[
        str | None,
        typer.Option(
            "--introduced-since",
            metavar="TIME",
            help="Instead: all keys that the other network introduced over the link at this time or later.",
        ),
    ] = None,
    network: Side = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key that others may have, at once and for good. Nothing that it signed is accepted any more."""
    from exchange.link_keys.states import revoke, revoke_introduced

    if (key_id is None) is (introduced_since is None):
        raise fail("name one key, or use --introduced-since", MISCONFIGURED)
    since = moment(introduced_since) if introduced_since else None

    async def work(settings: "NetworkSettings", live: "LiveKeys") -> tuple[list[str], str]:
        if since is None:
            assert key_id is not None
            revoked, text = [key_id], await revoke(live, key_id)
        else:
            revoked = await revoke_introduced(live, since)
            text = f"{counted(len(revoked), 'key')} revoked{''.join(f' {each}' for each in revoked)}."
            if not live.trusted:
                text += " No key of the other network is trusted now: the link pauses until airlock keys trust FILE."
        async with _exchange(settings, live) as exchange:
            return revoked, f"{text} {await _tell(exchange)}".strip()

    revoked, text = _run(network, work)
    if not as_json:
        say(text)
    else:
        print_json({"text": text} | ({"key_id": key_id} if key_id else {"key_ids": revoked}))


@keys.command("trust")
def trust(
    file: Annotated[Path, typer.Argument(help="PEM with a public key of the other network.")],
    network: Side = None,
    as_json: AsJson = False,
) -> None:
    """Trust a key of the other network, whose previous key was lost. Compare its id first."""
    from exchange.link_keys.states import trust_file

    async def work(_settings: "NetworkSettings", live: "LiveKeys") -> str:
        return await trust_file(live, file)

    key_id = _run(network, work)
    if as_json:
        print_json({"key_id": key_id})
    else:
        say(f"key {key_id} is trusted from now on; running processes accept it within a second")


def _run(network: NetworkName | None, work: "Callable[[NetworkSettings, LiveKeys], Awaitable[Answer]]") -> Answer:
    """Run with this network's settings, database and keys."""
    with explained():
        settings = networks_here(network)[0]
        try:
            return asyncio.run(_with_keys(settings, work))
        except KeyboardInterrupt:
            raise fail("interrupted; run the same command again to complete it") from None


async def _with_keys(settings: "NetworkSettings", work: "Callable[[Any, LiveKeys], Awaitable[Answer]]") -> Answer:
    from exchange.link_keys.live_keys import LiveKeys

    async with database_of(settings) as engine:
        live = LiveKeys(engine, settings.network, settings.keys)
        await live.refresh()
        return await work(settings, live)


@asynccontextmanager
async def _exchange(settings: "NetworkSettings", live: "LiveKeys") -> "AsyncIterator[KeyExchange | None]":
    """Exchanges key lists with the other network; None in the request network, which opens no connections."""
    from configuration.settings import ResponseSettings
    from exchange.link_keys.introduction import KeyExchange

    if not isinstance(settings, ResponseSettings):
        yield None
        return
    async with link_client(settings, live, settings.link_timeout) as link:
        yield KeyExchange(live, link, settings.link_id)


async def _tell(exchange: "KeyExchange | None") -> str:
    """Tell the other network now, if this one opens connections. Returns the result as a sentence."""
    from exchange.errors import LinkError

    if exchange is None:
        return "The response network learns of it when it asks next."
    try:
        await exchange.once()
    except LinkError as error:
        return f"The other network does not know it yet ({error}); the worker tells it when it can."
    return "The other network knows it."
