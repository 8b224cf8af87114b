"""`airlock quarantine`: records that crossed and could not be applied; an operator retries or drops them."""

import base64
import getpass
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.errors import FAILED, MISCONFIGURED, answer, database_of, fail, networks_here
from cli.naming import stream_named
from cli.output import AsJson, print_json, print_table

if TYPE_CHECKING:
    from configuration.settings import NetworkSettings
    from exchange.recovery.quarantine import Quarantine, Retried
    from exchange.transfer.quarantine_store import QuarantinedRecord
    from models.streams import StreamName

app = typer.Typer(name="quarantine", help="Records that were set aside: list, show, retry, drop.", no_args_is_help=True)

StreamArgument = Annotated[str, typer.Argument(metavar="STREAM", help="The stream that it came in.")]
RecordArgument = Annotated[str, typer.Argument(metavar="EPOCH.RECORD", help="As the list shows it.")]
MOST = 10_000


@app.command("list")
def list_records(
    network: Annotated[
        Literal["request", "response"] | None, typer.Option(help="Only this network's; both that are known here.")
    ] = None,
    stream: Annotated[
        str | None, typer.Option("--stream", help="Only this stream's: settings, requests, results or health.")
    ] = None,
    dropped: Annotated[bool, typer.Option("--dropped", help="Those that were dropped, by whom and why.")] = False,
    as_json: AsJson = False,
) -> None:
    """Records that wait for a decision, oldest first."""
    from models.streams import StreamName

    only = stream_named(stream) if stream else None
    wanted = [each for each in StreamName if only in (None, each) and network in (None, each.receiver.value)]

    async def work() -> "list[QuarantinedRecord]":
        from exchange.transfer.quarantine_store import list_quarantined

        found: list[QuarantinedRecord] = []
        named = network or (only.receiver.value if only else None)
        for settings in reversed(networks_here(named)):
            here = [each for each in wanted if each.receiver is settings.network]
            async with _quarantine(settings) as kept, kept.engine.connect() as connection:
                found += await list_quarantined(connection, here, dropped, limit=MOST)
        return found

    found = answer(work)
    if as_json:
        print_json([_plain(item) for item in found])
        return
    columns: tuple[str, ...] = ("stream", "record", "batch", "set aside", "bytes", "retries", "reason")
    rows: list[tuple[object, ...]] = [
        (
            item.stream.value,
            item.name,
            f"{item.epoch}.{item.sequence}",
            item.quarantined_at,
            item.size,
            item.retries,
            escaped(item.reason),
        )
        for item in found
    ]
    if dropped:
        columns += ("dropped", "by", "because")
        rows = [
            (*row, item.dropped_at, escaped(item.dropped_by or ""), escaped(item.drop_reason or ""))
            for row, item in zip(rows, found, strict=True)
        ]
    print_table("Dropped" if dropped else "Quarantine", columns, rows)


@app.command()
def show(stream: StreamArgument, record: RecordArgument, as_json: AsJson = False) -> None:
    """Print a record's body: escaped on a terminal, its exact bytes into a pipe or a file."""
    epoch, number = _place(record)

    async def work(kept: "Quarantine", stream: "StreamName") -> "tuple[QuarantinedRecord, bytes]":
        from exchange.transfer.quarantine_store import find_set_aside
        from models.errors import NotFound

        async with kept.engine.connect() as connection:
            found = await find_set_aside(connection, stream, epoch, number)
        if found is None:
            raise NotFound(f"record {record} of {stream} is not in quarantine; see: airlock quarantine list")
        return found

    found, body = _in_its_network(stream, work)
    if as_json:
        print_json(_plain(found) | _body(body))
    elif sys.stdout.isatty():
        typer.echo(f"{stream} {found.name}, batch {found.epoch}.{found.sequence}: {escaped(found.reason)}", err=True)
        typer.echo(escaped(body.decode("utf-8", "backslashreplace")))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()


@app.command()
def retry(
    stream: StreamArgument,
    records: Annotated[list[str] | None, typer.Argument(metavar="[EPOCH.RECORD]...", help="As the list shows.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every open record of the stream.")] = False,
    as_json: AsJson = False,
) -> None:
    """Apply records again, as their batch would be applied now. Exits with 1 when one is still refused."""
    if bool(records) is every:
        raise fail("name the records to retry, or say --all", MISCONFIGURED)
    places = [_place(record) for record in records or []]

    async def work(kept: "Quarantine", stream: "StreamName") -> "list[Retried]":
        if every:
            return await kept.retry_all(stream)
        outcome: dict[tuple[int, int], Retried] = {}
        for epoch, number in places:
            if (epoch, number) not in outcome:
                outcome |= {(each.epoch, each.record): each for each in await kept.retry(stream, epoch, number)}
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
            (f"{item.epoch}.{item.record}", "applied" if item.refused is None else "stays", escaped(item.refused or ""))
            for item in outcome
        ]
        print_table(f"Retried in {stream}", ("record", "outcome", "reason"), rows, "nothing was open")
    if any(item.refused is not None for item in outcome):
        raise typer.Exit(FAILED)


@app.command()
def drop(
    stream: StreamArgument,
    record: RecordArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the record.")],
    by: Annotated[str | None, typer.Option("--by", help="Who decided; who is logged in, by default.")] = None,
) -> None:
    """Give a record up. Its row is kept, with who and why; see: airlock quarantine list --dropped."""
    epoch, number = _place(record)

    async def work(kept: "Quarantine", stream: "StreamName") -> "QuarantinedRecord":
        return await kept.drop(stream, epoch, number, by or _who(), reason)

    dropped = _in_its_network(stream, work)
    typer.echo(f"{stream} {dropped.name} dropped by {escaped(dropped.dropped_by or '')}")


def escaped(text: str) -> str:
    """The same in one line, with what a terminal could obey (controls, marks of direction) as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _place(record: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,9})\.([0-9]{1,18})", record)
    if found is None:
        raise fail(f"{escaped(record)!r} is no record: write epoch.record, such as 1.17", MISCONFIGURED)
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


def _in_its_network(stream: str, work: "Callable[[Quarantine, StreamName], Awaitable[Any]]") -> Any:
    """Run against the network that receives the stream: there its records are set aside."""
    name = stream_named(stream)

    async def run() -> Any:
        (settings,) = networks_here(name.receiver.value)
        async with _quarantine(settings) as kept:
            return await work(kept, name)

    return answer(run)


@asynccontextmanager
async def _quarantine(settings: "NetworkSettings") -> "AsyncIterator[Quarantine]":
    from exchange.recovery.quarantine import Quarantine

    async with database_of(settings) as engine:
        yield Quarantine(engine, settings.network)
