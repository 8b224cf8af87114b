"""`airlock quarantine`: records that crossed and cannot be applied. An operator retries or drops them."""

import base64
import getpass
import re
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import FAILED, MISCONFIGURED, answer, database_of, fail, networks_here
from cli.naming import NetworkName, StreamText
from cli.output import AsJson, print_bytes, print_json, print_table, say
from models.wording import counted

if TYPE_CHECKING:
    from exchange.recovery.quarantine import Quarantine, Retried
    from exchange.transfer.quarantine_store import QuarantinedRecord
    from models.streams import StreamName

app = typer.Typer(name="quarantine", help="Records in quarantine: list, show, retry, drop.", no_args_is_help=True)

StreamArgument = Annotated[StreamText, typer.Argument(metavar="STREAM", help="The stream of the record.")]
RecordArgument = Annotated[str, typer.Argument(metavar="EPOCH.RECORD", help="As the list shows it.")]
MOST = 10_000


@app.command("list")
def list_records(
    network: Annotated[
        NetworkName | None, typer.Option(help="Only this network's; by default those of all configured networks.")
    ] = None,
    stream: Annotated[
        StreamText | None, typer.Option("--stream", help="Only this stream's: settings, requests, results or health.")
    ] = None,
    dropped: Annotated[bool, typer.Option("--dropped", help="Dropped records, with who and why.")] = False,
    as_json: AsJson = False,
) -> None:
    """Records that wait for a decision, oldest first."""
    from models.streams import StreamName

    only = StreamName(stream) if stream else None
    wanted = [each for each in StreamName if only in (None, each) and network in (None, each.receiver.value)]

    async def work() -> "list[QuarantinedRecord]":
        from exchange.transfer.quarantine_store import list_quarantined

        found: list[QuarantinedRecord] = []
        named = network or (only.receiver.value if only else None)
        for settings in reversed(networks_here(named)):
            here = [each for each in wanted if each.receiver is settings.network]
            async with database_of(settings) as engine, engine.connect() as connection:
                found += await list_quarantined(connection, here, dropped, limit=MOST)
        return found

    found = answer(work)
    if as_json:
        print_json([_plain(item) for item in found])
        return
    columns: tuple[str, ...] = ("stream", "record", "batch", "since", "bytes", "retries", "reason")
    rows: list[tuple[object, ...]] = [
        (
            item.stream.value,
            item.name,
            f"{item.epoch}.{item.sequence}",
            item.quarantined_at,
            item.size,
            item.retries,
            item.reason,
        )
        for item in found
    ]
    if dropped:
        columns += ("dropped", "by", "because")
        rows = [
            (*row, item.dropped_at, item.dropped_by or "", item.drop_reason or "")
            for row, item in zip(rows, found, strict=True)
        ]
    print_table("Dropped" if dropped else "Quarantine", columns, rows)


@app.command()
def show(stream: StreamArgument, record: RecordArgument, as_json: AsJson = False) -> None:
    """Print a record's body: escaped on a terminal, as exact bytes into a pipe or a file."""
    epoch, number = _place(record)

    async def work(quarantine: "Quarantine", stream: "StreamName") -> "tuple[QuarantinedRecord, bytes]":
        from exchange.transfer.quarantine_store import find_quarantined
        from models.errors import NotFound

        async with quarantine.engine.connect() as connection:
            found = await find_quarantined(connection, stream, epoch, number)
        if found is None:
            raise NotFound(f"record {record} of {stream} is not in quarantine; see: airlock quarantine list")
        return found

    found, body = _in_its_network(stream, work)
    if as_json:
        print_json(_plain(found) | _body(body))
        return
    if sys.stdout.isatty():
        say(f"{stream} {found.name}, batch {found.epoch}.{found.sequence}: {found.reason}", err=True)
        say(body.decode("utf-8", "backslashreplace"))  # one line, whatever it holds
        return
    print_bytes(body)


@app.command()
def retry(
    stream: StreamArgument,
    records: Annotated[list[str] | None, typer.Argument(metavar="[EPOCH.RECORD]...", help="As the list shows.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every open record of the stream.")] = False,
    as_json: AsJson = False,
) -> None:
    """Apply records again, as their batch would be applied now. Exits with 1 if one is still refused."""
    if bool(records) is every:
        raise fail("name the records to retry, or use --all", MISCONFIGURED)
    places = [_place(record) for record in records or []]

    async def work(quarantine: "Quarantine", stream: "StreamName") -> "list[Retried]":
        if every:
            return await quarantine.retry_all(stream)
        outcome: dict[tuple[int, int], Retried] = {}
        for epoch, number in places:
            if (epoch, number) not in outcome:
                outcome |= {(each.epoch, each.record): each for each in await quarantine.retry(stream, epoch, number)}
        return list(outcome.values())

    outcome = _in_its_network(stream, work)
    if as_json:
        print_json(
            [
                {"stream": item.stream, "record": f"{item.epoch}.{item.record}", "refused": item.refused}
                for item in outcome
            ]
        )
    else:
        rows = [
            (f"{item.epoch}.{item.record}", "applied" if item.refused is None else "stays", item.refused or "")
            for item in outcome
        ]
        print_table(f"Retried in {stream}", ("record", "outcome", "reason"), rows, "nothing was open")
    if any(item.refused is not None for item in outcome):
        raise typer.Exit(FAILED)


@app.command()
def drop(
    stream: StreamArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; stored with the record.")],
    record: Annotated[
        str | None, typer.Argument(metavar="[EPOCH.RECORD[-RECORD]]", help="One record, or a range: 1.17, 1.17-5000.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every open record of the stream.")] = False,
    epoch: Annotated[int | None, typer.Option("--epoch", min=1, max=2**31 - 1, help="Only of this epoch.")] = None,
    by: Annotated[str | None, typer.Option("--by", help="Who decided; by default the login name.")] = None,
) -> None:
    """Give up a record, a range, or all. Rows stay, with who and why; see: airlock quarantine list --dropped."""
    if (record is None) is not every or (epoch is not None and not every):
        raise fail("name a record or a range to drop, or use --all, with --epoch or without", MISCONFIGURED)
    one, _, last = (record or "1.1-").partition("-")
    place = _place(one)
    if "-" in (record or "") and re.fullmatch(r"[0-9]{1,18}", last) is None:
        raise fail(f"{record!r} is no range: write epoch.first-last, such as 1.17-5000", MISCONFIGURED)

    async def work(quarantine: "Quarantine", stream: "StreamName") -> str:
        who = by or _who()
        if every:
            return f"{counted(await quarantine.drop_all(stream, who, reason, epoch), 'record')} of {stream} dropped"
        if last:
            dropped = await quarantine.drop_all(stream, who, reason, place[0], place[1], int(last))
            return f"{counted(dropped, 'record')} of {stream} dropped"
        found = await quarantine.drop(stream, *place, who, reason)
        return f"{stream} {found.name} dropped by {found.dropped_by}"

    say(_in_its_network(stream, work))


def _place(record: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,9})\.([0-9]{1,18})", record)
    if found is None:
        raise fail(f"{record!r} is not a record: write epoch.record, such as 1.17", MISCONFIGURED)
    return int(found[1]), int(found[2])


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _plain(item: "QuarantinedRecord") -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(item) | {"stream": item.stream.value, "network": item.stream.receiver.value}


def _body(body: bytes) -> dict[str, str]:
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


def _in_its_network(stream: StreamText, work: "Callable[[Quarantine, StreamName], Awaitable[Any]]") -> Any:
    """Run ``work`` on the quarantine of the network that receives the stream."""
    from exchange.recovery.quarantine import Quarantine
    from models.streams import StreamName

    name = StreamName(stream)

    async def run() -> Any:
        (settings,) = networks_here(name.receiver.value)
        async with database_of(settings) as engine:
            return await work(Quarantine(engine, settings.network), name)

    return answer(run)
