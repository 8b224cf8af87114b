"""The response network's account of one request's way, and both networks' accounts as one."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.audit.kept_rows import kept_batches
from exchange.audit.row_checks import result_named
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
"""Batches of results that are opened to find the one, where the request network does not say which it is."""
WAY = (
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
    """The request network's account. Raises `LinkError`, or `NotFound` where that network has no such request."""
    try:
        found = Trace.model_validate_json(await link.trace(request_id))
    except ValidationError:
        raise Malformed("the request network's account of the request does not parse") from None
    except Malformed as error:
        if "answered 404" in str(error):
            raise NotFound(f"the request network has no request {request_id}, or not any more") from None
        raise
    if found.request_id != request_id:
        raise Malformed(f"asked for request {request_id}, the answer is about {found.request_id}")
    return found


async def local_trace(connection: AsyncConnection, request_id: UUID, result_batch: BatchRef | None) -> Trace | None:
    """This network's account; ``result_batch`` is what the request network says. None where nothing is known here."""
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
        add("cancelled", found.cancelled_at, note="word of it came over the link")
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
    """A request that came and could not be taken: it waits for an operator, or one has dropped it."""
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
    """The sealed batch that holds this request's result, looked for in those that were sealed after it was stored."""
    for ref in await batches_sealed_from(connection, request_id, BATCHES_SEARCHED):
        for batch in await kept_batches(connection, HERE, ref.stream, ref.epoch, ref.sequence, ref.sequence):
            try:
                lines = unpack(Manifest.model_validate_json(batch.manifest), batch.payload or b"")
            except (Malformed, ValidationError):
                continue
            if any((named := result_named(line)) and named[0] == request_id for line in lines):
                return ref
    return None


def result_batch_of(trace: Trace) -> BatchRef | None:
    """The batch that brought the result, as the request network's account names it."""
    for step in trace.steps:
        if step.step == "result-applied" and step.batch:
            stream, _, place = step.batch.partition(" ")
            epoch, _, sequence = place.partition(".")
            if stream == StreamName.RESULTS and epoch.isdigit() and sequence.isdigit():
                return BatchRef(stream=StreamName.RESULTS, epoch=int(epoch), sequence=int(sequence))
    return None


def joined(near: Trace | None, far: Trace | None) -> Trace:
    """Both accounts as one, each step told by the network where it happened, in the order of the way."""
    if near is None or far is None:
        either = near or far
        assert either is not None
        return either
    here = {step.step for step in near.steps}
    steps = near.steps + [step for step in far.steps if step.step not in here or step.step == "cancelled"]
    steps.sort(key=lambda step: WAY.index(step.step) if step.step in WAY else len(WAY))
    is_over = far.status in ("completed", "failed", "expired", "cancelled")
    waits_for = far.waits_for if is_over else near.waits_for or far.waits_for
    return Trace(request_id=far.request_id, status=far.status, steps=steps, waits_for=waits_for)
