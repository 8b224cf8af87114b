"""`airlock stream new-epoch`: an operator lets a stopped stream go on."""

import asyncio
import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import explained, fail
from cli.naming import stream_named
from cli.output import AsJson, print_json
from models.wording import counted

if TYPE_CHECKING:
    from models.outcomes import EpochOutcome
    from models.streams import StreamName

app = typer.Typer(help="Decide about one stream.", no_args_is_help=True)


@app.callback()
def _stream() -> None:
    """Decide about one stream."""


@app.command("new-epoch")
def new_epoch(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="settings, requests, results or health.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the epoch on both sides.")],
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on without records whose payload is past retention.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Let a stream whose two histories differ go on, after the last batch that both networks have.

    Run it in the response network. What one side lost and the other still has comes back, what was not received is
    sealed and sent again, and nothing is applied twice.
    """
    name = stream_named(stream)
    if not (reason := reason.strip()):
        raise fail('say why: --reason "…"; it is kept with the epoch', 2)
    with explained():
        try:
            outcome = asyncio.run(_order(name, reason[:400], accept_loss))
        except KeyboardInterrupt:
            raise fail("interrupted: the stream may rest until the new epoch is ordered again") from None
    if as_json:
        print_json(outcome.model_dump(mode="json"))
        return
    typer.echo(
        f"{stream}: epoch {outcome.epoch} follows batch {outcome.previous_epoch}.{outcome.previous_sequence};"
        f" {counted(outcome.resealed, 'record')} sealed again in {counted(outcome.resealed_batches, 'batch')},"
        f" {outcome.taken_back} taken back, {outcome.given_back} given back, {outcome.lost} lost"
    )


async def _order(stream: "StreamName", reason: str, accept_loss: bool) -> "EpochOutcome":
    from cli.both_sides import both_sides
    from exchange.recovery.epoch_ordering import EpochOrdering
    from exchange.transfer.sealing import Sealer

    async with both_sides() as (settings, near, far):
        ordering = EpochOrdering(
            near.engine, near, far, Sealer(near.keys, settings.link_id), lambda step: typer.echo(step, err=True)
        )
        outcome = await ordering.order(stream, reason, getpass.getuser(), accept_loss)
    await _deliver_now(stream)
    return outcome


async def _deliver_now(stream: "StreamName") -> None:
    """Trigger the stream's schedule, so that the batches that were sealed again do not wait for the next tick."""
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
                typer.echo(f"{schedule} is paused: nothing is delivered until it is resumed", err=True)
            else:
                await trigger(client, schedule, ResponseSettings.load().cadences)
    except AirlockError as error:
        typer.echo(f"it is delivered when {schedule} runs next: it could not be triggered ({error})", err=True)
