"""`airlock stream new-epoch`: an operator lets a stopped stream continue."""

import asyncio
import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import MISCONFIGURED, explained, fail
from cli.naming import StreamText
from cli.output import AsJson, print_json, say
from models.wording import counted

if TYPE_CHECKING:
    from models.outcomes import EpochOutcome
    from models.streams import StreamName

app = typer.Typer(help="Operate on one stream.", no_args_is_help=True)


@app.callback()
def _stream() -> None:
    """Operate on one stream."""


@app.command("new-epoch")
def new_epoch(
    stream: Annotated[StreamText, typer.Argument(metavar="STREAM", help="settings, requests, results or health.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; stored with the epoch on both sides.")],
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Continue without records whose payload is past retention.")
    ] = False,
    discard_since: Annotated[
        str | None,
        typer.Option(
            "--discard-since",
            metavar="TIME",
            help="Do not give back requests that arrived since: they were invented while that network was captured.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let a stream whose two histories differ continue after the last batch that both networks have.

    Run it in the response network. Each side gets back what it lost and the other still has. Batches that were not
    received are sealed and sent again. Nothing is applied twice.
    """
    from models.streams import StreamName

    if not (reason := reason.strip()):
        raise fail('say why: --reason "…"; it is stored with the epoch', MISCONFIGURED)
    since = moment(discard_since) if discard_since else None
    with explained():
        try:
            outcome = asyncio.run(_order(StreamName(stream), reason[:400], accept_loss, since))
        except KeyboardInterrupt:
            raise fail("interrupted: the stream may stay stopped until the new epoch is ordered again") from None
    if as_json:
        print_json(outcome.model_dump(mode="json"))
        return
    say(
        f"{stream}: epoch {outcome.epoch} follows batch {outcome.previous_epoch}.{outcome.previous_sequence};"
        f" {counted(outcome.resealed, 'record')} sealed again in {counted(outcome.resealed_batches, 'batch')},"
        f" {outcome.taken_back} taken back, {outcome.given_back} given back, {outcome.lost} lost"
    )


@app.command("discard")
def discard(
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="Requests that arrived at this time or later.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is logged.")],
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="… and at this time or earlier.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fail the requests of a period that are not answered yet: they were invented while that network was captured.

    Run it in the response network. They are not executed. Those in quarantine are dropped by: airlock quarantine drop.
    """
    from cli.errors import answer, database_of, networks_here
    from models.streams import Network

    first, last = moment(since), moment(until) if until else None

    async def work() -> int:
        from exchange.recovery.discarding import discard_waiting

        (settings,) = networks_here(Network.RESPONSE.value)
        async with database_of(settings) as engine:
            return await discard_waiting(engine, first, last, getpass.getuser(), reason)

    discarded = answer(work)
    print_json({"discarded": discarded}) if as_json else say(f"{counted(discarded, 'request')} discarded")


def moment(text: str) -> datetime:
    """A time as an operator writes it, in RFC 3339 or with the date alone; UTC unless it says otherwise."""
    try:
        found = datetime.fromisoformat(text)
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        return found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise fail(f"{text!r} is no time: write it as 2026-01-31T12:00:00Z", MISCONFIGURED) from None


async def _order(
    stream: "StreamName", reason: str, accept_loss: bool, discard_since: datetime | None
) -> "EpochOutcome":
    from cli.both_sides import both_sides
    from exchange.recovery.epoch_ordering import EpochOrdering
    from exchange.transfer.sealing import Sealer

    async with both_sides() as (settings, local, remote):
        sealer = Sealer(local.keys, settings.link_id)
        ordering = EpochOrdering(local, remote, sealer, lambda step: say(step, err=True))
        outcome = await ordering.order(stream, reason, getpass.getuser(), accept_loss, discard_since)
    await _deliver_now(stream)
    return outcome


async def _deliver_now(stream: "StreamName") -> None:
    """Trigger the stream's schedule, so that batches sealed again are sent at once. Without Temporal they wait."""
    from cli.errors import response_temporal
    from configuration.cadences import SCHEDULE_OF
    from configuration.settings import ResponseSettings
    from models.errors import AirlockError
    from schedules.operating import trigger
    from schedules.views import describe

    schedule = SCHEDULE_OF.get(stream)
    if schedule is None:
        return
    try:
        async with response_temporal() as client:
            if (await describe(client, schedule)).paused:
                say(f"{schedule} is paused: nothing is delivered until it is resumed", err=True)
            else:
                await trigger(client, schedule, ResponseSettings.load().cadences)
    except AirlockError as error:
        say(f"{schedule} could not be triggered ({error}); its next run delivers the stream", err=True)
