"""`airlock verify`: compares both networks, down to the last record."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.both_sides import both_sides, own_side
from cli.errors import MISCONFIGURED, answer, fail, networks_here
from cli.output import AsJson, print_json, say
from cli.verification_output import show_progress, show_reports, show_set_aside, to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from exchange.audit.summaries import RepairableSide
    from exchange.audit.verifier import StreamReport
    from exchange.recovery.orphans import OrphanedRow
    from exchange.recovery.repair import RepairOutcome
    from models.streams import StreamName

DIFFERS, UNCHECKED = 1, MISCONFIGURED
LISTED = 1000
"""Most rows that `--set-aside` lists."""


def verify(
    stream: Annotated[
        list[str] | None,
        typer.Option("--stream", help="settings, requests, results or health; all by default."),
    ] = None,
    as_json: AsJson = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Rebuild, resend or set aside what differs, then compare again.")
    ] = False,
    export: Annotated[
        Path | None, typer.Option("--export", help="Write this network's signed summary to a file.")
    ] = None,
    offline: Annotated[
        tuple[Path, Path] | None, typer.Option("--offline", metavar="A B", help="Compare two exported summaries.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", metavar="DIR", help="With --offline: public keys of both networks.")
    ] = None,
    set_aside: Annotated[
        bool, typer.Option("--set-aside", help="List the rows of this network that repairs have set aside.")
    ] = False,
    put_back: Annotated[
        str | None, typer.Option("--put-back", metavar="ROW", help="Put one of them back, such as request:7.")
    ] = None,
) -> None:
    """Compare both networks, record by record. Exits with 0 if all agree, 1 if not, 2 if it cannot be checked."""
    from models.streams import StreamName

    if sum(map(bool, (repair, export, offline, set_aside, put_back))) > 1:
        raise fail("--repair, --export, --offline, --set-aside and --put-back exclude each other", UNCHECKED)
    if keys is not None and offline is None:
        raise fail("--keys goes with --offline", UNCHECKED)
    if set_aside:
        return show_set_aside(answer(_list_set_aside), as_json)
    if put_back is not None:
        return say(answer(lambda: _put_back(put_back)))
    if unknown := set(stream or ()) - set(StreamName):
        raise fail(f"there is no stream {unknown.pop()!r}; there are {', '.join(StreamName)}", UNCHECKED)
    streams = list(dict.fromkeys(StreamName(name) for name in stream or StreamName))
    outcome: RepairOutcome | None = None
    with show_progress(quiet=as_json) as progress:
        if export is not None:
            good = _checked(lambda: _export(export, streams, progress))
        elif offline is not None:
            reports, doubt = _checked(lambda: _offline(offline, keys, streams, progress))
        else:
            reports, outcome = _checked(lambda: _online(streams, progress, repair))
    if export is not None:
        say(f"summary written to {export}", err=True)
        if not good:
            raise fail("rows of this side differ from its batches; the summary names them", DIFFERS)
        return None
    if offline is not None and doubt:
        say(doubt, err=True)
    if as_json:
        print_json(to_json(reports, outcome))
    else:
        show_reports(reports, outcome)
    if not all(report.agrees for report in reports):
        raise typer.Exit(DIFFERS)
    return None


def _checked(work: "Callable[[], Any]") -> Any:
    """Run ``work``. An error means that nothing can be checked: exit code 2."""
    from models.errors import AirlockError

    try:
        return asyncio.run(work())
    except AirlockError as error:
        raise fail(f"cannot be checked: {error}", UNCHECKED) from None
    except KeyboardInterrupt:
        raise fail("interrupted: nothing is known", UNCHECKED) from None


async def _online(
    streams: "list[StreamName]", progress: Any, repair: bool
) -> "tuple[list[StreamReport], RepairOutcome | None]":
    from exchange.audit.verifier import Verifier
    from exchange.recovery.repair import repair_differences
    from models.streams import Network

    async with both_sides() as (_, local, remote):
        sides: dict[Network, RepairableSide] = {Network.RESPONSE: local, Network.REQUEST: remote}
        verifier = Verifier(sides, progress)
        reports = await verifier.verify(streams)
        if not repair:
            return reports, None
        return await repair_differences(verifier, sides, reports)


async def _offline(
    files: tuple[Path, Path], keys: Path | None, streams: "list[StreamName]", progress: Any
) -> "tuple[list[StreamReport], str | None]":
    """Compare two files. Returns also a sentence if their signatures were not checked."""
    from exchange.audit.summary_file import SummaryFile, public_keys
    from exchange.audit.verifier import Verifier
    from exchange.errors import Malformed

    directory = keys or _configured_keys()
    trusted = public_keys(directory) if directory else None
    first, second = (SummaryFile.open(path, trusted) for path in files)
    if first.network is second.network:
        raise Malformed(f"both summaries are the {first.network} network's")
    if first.link != second.link:
        raise Malformed(f"the summaries are of different links, {first.link} and {second.link}")
    if first.key_id == second.key_id:
        raise Malformed(f"both summaries are signed by the same key, {first.key_id}: one of them is not its network's")
    for side in (first, second):
        if absent := [stream.value for stream in streams if stream not in side.heads]:
            raise Malformed(f"{side.path} does not contain: {', '.join(absent)}")
    doubt = None if trusted else "signatures not checked: no keys here; name a directory of keys with --keys"
    return await Verifier({first.network: first, second.network: second}, progress).verify(streams), doubt


def _configured_keys() -> Path | None:
    """The key directory of the configured network."""
    from models.errors import ConfigurationError

    try:
        directory = networks_here()[0].keys
    except ConfigurationError:
        return None
    return directory if directory.is_dir() else None


async def _export(path: Path, streams: "list[StreamName]", progress: Any) -> bool:
    from exchange.audit.summary_file import write_summary
    from models.errors import ConfigurationError

    settings = networks_here()[0]
    draft = path.with_name(path.name + ".part")
    try:
        async with own_side(settings) as side:
            with draft.open("w", encoding="utf-8") as file:
                good = await write_summary(side, side.keys, settings.link_id, streams, file.write, progress)
        draft.rename(path)
    except PermissionError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)
    return good


async def _list_set_aside() -> "dict[str, list[OrphanedRow]]":
    from exchange.recovery.orphans import rows_set_aside

    found = {}
    for settings in networks_here():
        async with own_side(settings) as side, side.engine.connect() as connection:
            found[settings.network.value] = await rows_set_aside(connection, 0, LISTED)
    return found


async def _put_back(row: str) -> str:
    from sqlalchemy.exc import IntegrityError

    from exchange.recovery.orphans import put_row_back
    from models.errors import Conflict, InvalidInput, NotFound

    network, _, number = row.partition(":")
    here = {settings.network.value: settings for settings in networks_here()}
    if network not in here or not number.isdecimal():
        raise InvalidInput(f"{row!r} is not the name of a row; `airlock verify --set-aside` lists them")
    async with own_side(here[network]) as side:
        try:
            async with side.engine.begin() as connection:
                found = await put_row_back(connection, int(number))
        except IntegrityError:
            raise Conflict(f"another row has taken the place of {row}: it stays set aside") from None
    if found is None:
        raise NotFound(f"no row is set aside as {row}; `airlock verify --set-aside` lists them")
    return f"{found[0]} {found[1]} is back in the {network} network: `airlock verify` reports it again"
