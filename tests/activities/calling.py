"""Callbacks by hand: requests that ask for one, what finishes them, and whoever makes the calls."""

from typing import Any
from uuid import UUID

import httpx

from activities.fulfilling import FulfilmentActivities
from fulfilment.callbacks import CallbackSender
from models.outcomes import CallbackOutcome
from storage.database import execute, notify
from storage.notices import FINISHED, NotificationListener
from tests.activities.crossing import USER, change, new_id, one, result_record, submit, table
from tests.activities.residents import run_of
from tests.conftest import Networks
from tests.execution.service import Service


def calling(
    networks: Networks,
    http: httpx.AsyncClient,
    *,
    private: bool = True,
    give_up: float = 3600,
    listener: NotificationListener | None = None,
) -> FulfilmentActivities:
    side = networks.request
    sender = CallbackSender(side.engine, side.keys, private, give_up, http)
    return FulfilmentActivities(side.engine, sender, listener or NotificationListener())


async def call_back(work: FulfilmentActivities, workflow_id: str = "fulfil-requests-1.1") -> CallbackOutcome:
    outcome: CallbackOutcome = await run_of(workflow_id).run(work.make_callbacks)
    return outcome


async def finish(networks: Networks, *ids: UUID, body: bytes | None = None) -> None:
    """Store results, and say so, as applying does."""
    async with networks.request.engine.begin() as connection:
        for key in ids:
            await execute(
                connection,
                "INSERT INTO results (request_id, user_id, status, body, epoch, sequence)"
                " VALUES (:key, :user, 'completed', :body, 1, 1)",
                key=key,
                user=USER,
                body=body or result_record(key),
            )
        await notify(connection, FINISHED)


async def submitted(networks: Networks, service: Service, count: int = 1) -> list[UUID]:
    ids = [new_id() for _ in range(count)]
    await submit(networks, *ids, callback=service.url + "/hook")
    return ids


async def finished(networks: Networks, service: Service, count: int = 1) -> list[UUID]:
    """Requests whose callbacks are due."""
    ids = await submitted(networks, service, count)
    await finish(networks, *ids)
    return ids


async def make_due(networks: Networks) -> None:
    """Let the time until the next attempt pass."""
    await change(networks.request, "UPDATE requests SET callback_after = now() WHERE callback_after IS NOT NULL")


async def lost(networks: Networks) -> list[Any]:
    return [reason for (reason,) in await table(networks.request, "SELECT callback_lost FROM requests")]


async def not_made(networks: Networks) -> int:
    found: int = await one(networks.request, "SELECT count(*) FROM requests WHERE callback_at IS NULL")
    return found


async def has_been_asked(receiver: Service, times: int) -> bool:
    return len(receiver.asked) == times
