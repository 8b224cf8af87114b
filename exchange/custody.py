"""The trace of one request: the response network's part, and both networks' parts joined."""

import re
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.audit.row_checks import result_named
from exchange.audit.stored_rows import batch_row
from exchange.carriers.http import LinkClient
from exchange.custody_store import batches_sealed_from, quarantined_about, sealed_times, trace_in_response_network
from exchange.errors import Malformed
from exchange.wire.batch import unpack
from exchange.wire.manifest import Manifest
from models.errors import NotFound
from models.streams import BatchRef, Network, StreamName
from models.traces import Trace, TraceStep

HERE = Network.RESPONSE
BATCHES_SEARCHED = 50
"""Most batches of results that are searched for one result, if the request network does not name its batch."""
STEPS = (
    "submitted",
    "sealed",
    "voided",
    "handed-out",
    "pulled",
    "quarantined",
    "dropped",
    "opened",
    "executed",
    "result-sealed",
    "result-voided",
    "result-sent",
    "result-delivered",
    "result-receipt",
    "result-quarantined",
    "result-dropped",
    "result-applied",
    "read",
    "expired",
    "cancelled",
    "called-back",
)


async def remote_trace(link: LinkClient, request_id: UUID) -> Trace:
    """The request network's part of a trace. Raises `LinkError`, or `NotFound` if it has no such request."""
    try:
        found = Trace.model_validate_json(await link.trace(request_id))
    except ValidationError:
        raise Malformed("the request network's trace of the request does not parse") from None
    except Malformed as error:
        if "answered 404" in str(error):
            raise NotFound(f"the request network does not have request {request_id}, or no longer") from None
        raise
    if found.request_id != request_id:
        raise Malformed(f"asked for request {request_id}, the answer is about {found.request_id}")
    return found


async def local_trace(connection: AsyncConnection, request_id: UUID, result_batch: BatchRef | None) -> Trace | None:
    """This network's part of a trace; None if the request is unknown here. ``result_batch``: as the request network
    names it, if it does.
    """
    found = await trace_in_response_network(connection, request_id)
    if found is None:
        return await _quarantined(connection, request_id)
    group = BatchRef(stream=StreamName.REQUESTS, epoch=found.request_epoch, sequence=found.request_sequence)
    steps: list[TraceStep] = []

    def add(step: str, at: datetime | None, **more: Any) -> None:
        if at is not None:
            steps.append(TraceStep(step=step, at=at, network=HERE, **more))

    add("pulled", found.pulled_at, batch=str(group), workflow="PullRequests")
    add("opened", found.opened_at, batch=str(group), workflow="ExecuteRequests")
    if found.cancelled_at is not None:
        add("cancelled", found.cancelled_at, note="the cancellation came over the link")
    if found.status is None:
        return Trace(request_id=request_id, status="executing", steps=steps, waits_for="its execution to end")
    took = f"{found.status}" + (f", {found.reason}" if found.reason else "")
    add("executed", found.executed_at, batch=str(group), workflow="ExecuteRequests", note=took)
    batch = result_batch or await _result_batch(connection, request_id)
    if batch is None:
        waits = (
            f"an operator: the results stream is stopped: {found.sending_stopped}" if found.sending_stopped else None
        )
        waits = waits or "the next export to seal and send its result (schedule export-results)"
        return Trace(request_id=request_id, status="executing", steps=steps, waits_for=waits[:300])
    times = await sealed_times(connection, batch)
    delivered = times is not None and times.delivered_at is not None
    if times is not None:
        add("result-sealed", times.sealed_at, batch=str(batch), workflow="ExportResults")
        add("result-sent", times.sent_at, batch=str(batch), workflow="ExportResults")
        add("result-receipt", times.delivered_at, batch=str(batch))
        add("result-voided", times.voided_at, batch=str(batch), note="a new epoch began: sealed again in it")
    waits_for = None if delivered else f"the request network's receipt for {batch}"
    return Trace(request_id=request_id, status=found.status, steps=steps, waits_for=waits_for)


async def _quarantined(connection: AsyncConnection, request_id: UUID) -> Trace | None:
    """The trace of a request in quarantine: it waits for an operator, or was dropped."""
    aside = await quarantined_about(connection, StreamName.REQUESTS, request_id)
    if aside is None:
        return None
    batch = str(BatchRef(stream=StreamName(aside.stream), epoch=aside.epoch, sequence=aside.sequence))
    steps = [TraceStep(step="quarantined", at=aside.quarantined_at, network=HERE, batch=batch, note=aside.reason[:300])]
    if aside.dropped_at is not None:
        steps.append(TraceStep(step="dropped", at=aside.dropped_at, network=HERE, note=aside.drop_reason[:300]))
        waits_for = "nothing more: an operator dropped it, so no result will come"
    else:
        waits_for = f"an operator: it is quarantined as {aside.epoch}.{aside.record} of {aside.stream}"
    return Trace(request_id=request_id, status="sent", steps=steps, waits_for=waits_for)


async def _result_batch(connection: AsyncConnection, request_id: UUID) -> BatchRef | None:
    """The sealed batch that holds this request's result."""
    for ref in await batches_sealed_from(connection, request_id, BATCHES_SEARCHED):
        batch = await batch_row(connection, HERE, ref.stream, ref.epoch, ref.sequence)
        if batch is None or batch.payload is None:
            continue
        try:
            lines = unpack(Manifest.model_validate_json(batch.manifest), batch.payload)
        except (Malformed, ValidationError):
            continue
        if any((named := result_named(line)) and named[0] == request_id for line in lines):
            return ref
    return None


def result_batch_of(trace: Trace) -> BatchRef | None:
    """The batch that brought the result, as the request network's trace names it."""
    for step in trace.steps:
        if step.step == "result-applied" and step.batch:
            stream, _, place = step.batch.partition(" ")
            epoch, _, sequence = place.partition(".")
            if stream == StreamName.RESULTS and all(re.fullmatch("[0-9]{1,18}", part) for part in (epoch, sequence)):
                return BatchRef(stream=StreamName.RESULTS, epoch=int(epoch), sequence=int(sequence))
    return None


def joined(local: Trace | None, remote: Trace | None) -> Trace | None:
    """Both networks' parts as one trace, in the order of `STEPS`. A step of both is taken from the response network."""
    if local is None or remote is None:
        return local or remote
    here = {step.step for step in local.steps}
    steps = local.steps + [step for step in remote.steps if step.step not in here or step.step == "cancelled"]
    steps.sort(key=lambda step: STEPS.index(step.step) if step.step in STEPS else len(STEPS))
    is_over = remote.status in ("completed", "failed", "expired", "cancelled")
    waits_for = remote.waits_for if is_over else local.waits_for or remote.waits_for
    return Trace(request_id=remote.request_id, status=remote.status, steps=steps, waits_for=waits_for)
