"""`airlock trace`: the way of one request through both networks, and what it waits for."""

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from cli.both_sides import link_client
from cli.errors import FAILED, answer, fail, response_database, temporal_of
from cli.output import AsJson, print_json, print_table, say

if TYPE_CHECKING:
    from models.traces import Trace


def trace(
    request_id: Annotated[UUID, typer.Argument(metavar="REQUEST_ID", help="As the request network's API returned it.")],
    as_json: AsJson = False,
) -> None:
    """Follow one request: submitted, pulled, executed, delivered, applied. Exits with 1 if a part is unknown."""
    found, trouble = answer(lambda: _trace(request_id))
    if found is None:
        raise fail(f"this network does not know request {request_id}{f'; {trouble}' if trouble else ''}")
    if as_json:
        print_json(found.model_dump(mode="json") | {"trouble": trouble})
    else:
        _show(found)
    if trouble is not None:
        raise fail(trouble, FAILED)


async def _trace(request_id: UUID) -> "tuple[Trace | None, str | None]":
    from configuration.settings import ResponseSettings
    from exchange.custody import joined, local_trace, remote_trace, result_batch_of
    from exchange.link_keys.live_keys import current_keys
    from models.errors import AirlockError
    from schedules.runs import with_runs

    settings = ResponseSettings.load()
    async with response_database() as connection:
        keys = await current_keys(connection, settings.network, settings.keys)
    remote, trouble = None, None
    async with link_client(settings, keys, min(settings.link_timeout, 10.0)) as link:
        try:
            remote = await remote_trace(link, request_id)
        except AirlockError as error:
            trouble = str(error)
    async with response_database() as connection:
        local = await local_trace(connection, request_id, result_batch_of(remote) if remote else None)
    if local is not None:
        local = await with_runs(await temporal_of(settings), settings.network, local)
    return joined(local, remote), trouble


def _show(found: "Trace") -> None:
    print_table(
        f"Request {found.request_id}: {found.status}",
        ("step", "network", "at", "batch", "workflow", "run", "note"),
        [
            (
                step.step,
                step.network.value,
                f"{step.at:%Y-%m-%d %H:%M:%S.%f}"[:-3] + "Z" if step.at else None,
                step.batch,
                step.workflow_id or step.workflow,
                step.run_id or ("unknown" if step.workflow else None),
                step.note,
            )
            for step in found.steps
        ],
    )
    say(f"Waits for: {found.waits_for}" if found.waits_for else "Waits for nothing.")
