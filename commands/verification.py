"""`airlock verify`: do both sides agree, to the last record?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from commands.answering import MISCONFIGURED, database_trouble, fail
from commands.showing import AsJson, print_json
from commands.verification_showing import show_progress, show_reports, to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from configuration.settings import NetworkSettings
    from exchange.auditing import Auditor
    from exchange.far_side import FarSide
    from exchange.healing import Healer
    from exchange.summaries import Mendable, Side
    from exchange.verification import Mended, StreamReport
    from models.streams import StreamName

DIFFERS, UNCHECKED = 1, MISCONFIGURED


def verify(
    stream: Annotated[
        list[str] | None, typer.Option("--stream", help="settings, requests, results or health; all by default.")
    ] = None,
    as_json: AsJson = False,
    repair: Annotated[bool, typer.Option("--repair", help="Rebuild or resend what differs, then look again.")] = False,
    delete_extra: Annotated[
        bool, typer.Option("--delete-extra", help="With --repair: delete rows that no batch explains.")
    ] = False,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write this side's summary to a file; works in either network.")
    ] = None,
    offline: Annotated[
        tuple[Path, Path] | None, typer.Option("--offline", metavar="A B", help="Compare two exported summaries.")
    ] = None,
) -> None:
    """Compare both networks to the last record. Exits with 0 when all agree, 1 if not, 2 when it cannot be checked."""
    if sum(map(bool, (repair, export, offline))) > 1 or (delete_extra and not repair):
        raise fail("--repair, --export and --offline exclude each other, and --delete-extra needs --repair", UNCHECKED)
    streams = _streams(stream)
    with show_progress(quiet=as_json) as progress:
        if export is not None:
            good = _checked(lambda: _export(export, streams, progress))
        elif offline is not None:
            reports = _checked(lambda: _offline(offline, streams, progress))
        else:
            reports, mended = _checked(lambda: _online(streams, progress, repair, delete_extra))
    if export is not None:
        typer.echo(f"summary written to {export}", err=True)
        if not good:
            raise fail("rows of this side are not what its batches say; the summary names them", DIFFERS)
        return
    if offline is not None:
        mended = None
    if as_json:
        print_json(to_json(reports, mended))
    else:
        show_reports(reports, mended)
    if not all(report.agrees for report in reports):
        raise typer.Exit(DIFFERS)


def _streams(named: list[str] | None) -> "list[StreamName]":
    from models.streams import StreamName

    unknown = [name for name in named or [] if name not in set(StreamName)]
    if unknown:
        raise fail(f"there is no stream {unknown[0]!r}; there are {', '.join(StreamName)}", UNCHECKED)
    return [each for each in StreamName if not named or each.value in named]


def _checked(work: "Callable[[], Any]") -> Any:
    """Run; whatever keeps it from being checked is a sentence and exit code 2."""
    from models.errors import AirlockError

    try:
        return asyncio.run(work())
    except AirlockError as error:
        raise fail(f"cannot be checked: {error}", UNCHECKED) from None
    except KeyboardInterrupt:
        raise fail("stopped before the end: nothing is known", UNCHECKED) from None


@asynccontextmanager
async def _own_side(settings: "NetworkSettings") -> "AsyncIterator[tuple[Auditor, Healer]]":
    from sqlalchemy.exc import DBAPIError

    from exchange.auditing import Auditor
    from exchange.healing import Healer
    from exchange.keys import load_link_keys
    from storage.database import connect, is_unreachable

    keys = load_link_keys(settings.keys)
    engine = connect(settings.database_url.get_secret_value(), 2, "airlock-verify")
    try:
        auditor = Auditor(engine, settings.network, settings.retention)
        yield auditor, Healer(engine, auditor, keys)
    except (DBAPIError, OSError) as error:
        raise database_trouble(settings, error) from error
    except Exception as error:
        if is_unreachable(error):
            raise database_trouble(settings, error) from error
        raise
    finally:
        await engine.dispose()


@asynccontextmanager
async def _both_sides() -> "AsyncIterator[tuple[Auditor, Healer, FarSide]]":
    from configuration.settings import ResponseSettings
    from exchange.far_side import FarSide
    from exchange.http_signature import HttpSigner
    from exchange.keys import load_link_keys
    from exchange.link import LinkClient

    settings = ResponseSettings.load()
    async with AsyncExitStack() as stack:
        auditor, healer = await stack.enter_async_context(_own_side(settings))
        signer = HttpSigner(load_link_keys(settings.keys), settings.link_id, settings.clock_skew)
        link = LinkClient(settings.link_url, signer, max(settings.link_timeout, 60.0))
        stack.push_async_callback(link.aclose)
        yield auditor, healer, FarSide(link)


async def _online(
    streams: "list[StreamName]", progress: Any, repair: bool, delete_extra: bool
) -> "tuple[list[StreamReport], Mended | None]":
    from exchange.verification import Mender, Verifier
    from models.streams import Network

    async with _both_sides() as (auditor, healer, far):
        sides: dict[Network, Side] = {Network.RESPONSE: auditor, Network.REQUEST: far}
        ends: dict[Network, Mendable] = {Network.RESPONSE: healer, Network.REQUEST: far}
        verifier = Verifier(sides, progress)
        reports = await verifier.verify(streams)
        if not repair:
            return reports, None
        return await Mender(verifier, ends, delete_extra).mend(reports)


async def _offline(files: tuple[Path, Path], streams: "list[StreamName]", progress: Any) -> "list[StreamReport]":
    from exchange.errors import Malformed
    from exchange.summary_file import SummaryFile
    from exchange.verification import Verifier

    first, second = (SummaryFile.open(path) for path in files)
    if first.network is second.network:
        raise Malformed(f"both summaries are the {first.network} network's")
    if first.link != second.link:
        raise Malformed(f"the summaries are of two links, {first.link} and {second.link}")
    for side in (first, second):
        if absent := [stream.value for stream in streams if stream not in side.heads]:
            raise Malformed(f"{side.path} holds nothing of: {', '.join(absent)}")
    return await Verifier({first.network: first, second.network: second}, progress).verify(streams)


async def _export(path: Path, streams: "list[StreamName]", progress: Any) -> bool:
    from exchange.summary_file import write_summary
    from models.errors import ConfigurationError

    settings = _either_network()
    draft = path.with_name(path.name + ".part")
    try:
        async with _own_side(settings) as (auditor, _):
            with draft.open("w", encoding="utf-8") as file:
                good = await write_summary(auditor, settings.link_id, streams, file.write, progress)
        draft.rename(path)
    except PermissionError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)
    return good


def _either_network() -> "NetworkSettings":
    """The response network's settings where they are set, otherwise the request network's."""
    from configuration.settings import RequestSettings, ResponseSettings
    from models.errors import ConfigurationError

    try:
        return ResponseSettings.load()
    except ConfigurationError:
        return RequestSettings.load()
