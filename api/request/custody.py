"""The trace of a request as the request network knows it, from its own tables and Temporal."""

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from pydantic import TypeAdapter, ValidationError

from api.request.services import Services
from exchange.custody_store import quarantined_about, trace_in_request_network
from fulfilment.request_store import unknown_request
from models.errors import NotFound
from models.streams import BatchRef, Network, StreamName
from models.traces import Trace, TraceStep
from schedules.runs import with_runs

_MOMENT = TypeAdapter(datetime)
HERE, THERE = Network.REQUEST, Network.RESPONSE


async def trace_of(services: Services, request_id: UUID, user_id: UUID | None) -> Trace:
    """The trace of a request of this user, or of any user if ``user_id`` is None. Raises `NotFound`."""
    async with services.engine.connect() as connection:
        found = await trace_in_request_network(connection, request_id, user_id)
        aside = None
        if found is not None and found.status is None:
            aside = await quarantined_about(connection, StreamName.RESULTS, request_id)
    if found is None:
        raise unknown_request(request_id) if user_id else NotFound(f"There is no request {request_id}")
    status, waits_for = _status(found)
    steps = _steps(found)
    if aside is not None:
        batch = BatchRef(stream=StreamName(aside.stream), epoch=aside.epoch, sequence=aside.sequence)
        why = aside.reason if user_id is None else "it cannot be applied here"
        steps.append(_step("result-quarantined", aside.quarantined_at, batch=str(batch), note=why[:300]))
        if aside.dropped_at is not None:
            steps.append(_step("result-dropped", aside.dropped_at, note="by an operator"))
        if not found.closed:
            waits_for = (
                "nothing more: an operator dropped its result, which could not be applied"
                if aside.dropped_at
                else f"an operator: its result is quarantined as {aside.epoch}.{aside.record}"
            )
    trace = Trace(request_id=request_id, status=status, steps=steps, waits_for=waits_for)
    return await with_runs(services.temporal, HERE, trace)


def _step(step: str, at: datetime, network: Network = HERE, **more: Any) -> TraceStep:
    return TraceStep.model_validate({"step": step, "at": at, "network": network, **more})


def _steps(found: Any) -> list[TraceStep]:
    group = BatchRef(stream=StreamName.REQUESTS, epoch=found.request_epoch, sequence=found.request_sequence)
    steps = [_step("submitted", found.submitted_at, batch=str(group), workflow="FulfillRequests")]

    def add(step: str, at: datetime | None, network: Network = HERE, **more: Any) -> None:
        if at is not None:
            steps.append(_step(step, at, network, **more))

    add("sealed", found.sealed_at, batch=str(group))
    add("voided", found.voided_at, batch=str(group), note="a new epoch began; the request is sealed again in it")
    add("handed-out", found.sent_at, batch=str(group), note="to the response network, for the first time")
    add("pulled", found.delivered_at, batch=str(group), note="time of the receipt")
    if found.status is not None:
        batch = BatchRef(stream=StreamName.RESULTS, epoch=found.result_epoch, sequence=found.result_sequence)
        add("executed", _moment(found.body, "executed_at"), THERE, batch=str(group), workflow="ExecuteRequests")
        add("result-sealed", _moment(found.result_manifest, "sealed_at"), THERE, batch=str(batch))
        add("result-delivered", found.batch_received_at, batch=str(batch))
        add("result-applied", found.result_at, batch=str(batch), workflow="ImportBatch")
        add("read", found.first_read_at, note="by its owner, for the first time")
    add(found.closed or "", found.closed_at)
    lost = f"given up: {found.callback_lost}"[:300] if found.callback_lost else None
    add("called-back", found.callback_at, note=lost)
    return steps


def _status(found: Any) -> tuple[str, str | None]:
    """The status of the request, and what it waits for."""
    callback = "its callback to be delivered" if found.wants_callback and found.callback_at is None else None
    if found.closed:
        return found.closed, callback
    if found.status:
        return found.status, callback
    if found.receiving_stopped or found.sending_stopped:
        status = "executing" if found.delivered_at else "sent" if found.sent_at else "queued"
        return status, "an operator: the link is stopped because the histories of the two sides differ"
    if found.delivered_at:
        if (found.applied_there or 0) >= found.request_sequence:
            return "executing", "its result to cross the link: the response network has executed its batch"
        return "executing", "the response network to execute it and send the result"
    if found.sent_at:
        return "sent", "the response network's receipt for its batch"
    return "queued", "the response network to pull its batch"


def _moment(content: bytes | None, name: str) -> datetime | None:
    """A time in a JSON object. None if it is missing or the bytes are damaged, which `airlock verify` reports."""
    try:
        return _MOMENT.validate_python(orjson.loads(content or b"{}")[name])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValidationError):
        return None
