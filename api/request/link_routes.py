"""The link: what the response network pushes is accepted, what it asks for is handed out; signed both ways."""

import asyncio
import time
from typing import Annotated

import structlog
from fastapi import Depends, Query, Response

from api.request.callers import App
from api.request.services import Services
from api.request.signed_routes import TAKES_BYTES, Body, check_place, message_response, signed_router
from exchange.errors import Fork
from exchange.transfer.delivery import accept_receipt
from exchange.transfer.outgoing import StoredBatch, batches_after, hash_at, mark_sent, outgoing_stream, stop_outgoing
from exchange.wire.batch import BUNDLE_MEDIA_TYPE, to_bundle, to_wire
from exchange.wire.manifest import MAX_PAYLOAD_BYTES, MAX_RAW_BYTES, MAX_RECORDS
from exchange.wire.messages import Heartbeat, Receipt
from models.errors import NotFound
from models.streams import Network, StreamName

log = structlog.get_logger(__name__)

router = signed_router()

MAX_WAIT_SECONDS = 60.0
MAX_BUNDLE = 1000


async def _incoming(stream: StreamName) -> StreamName:
    if stream.receiver is not Network.REQUEST:
        raise NotFound(f"The {stream} stream is not pushed to this network")
    return stream


async def _outgoing(stream: StreamName) -> StreamName:
    if stream.sender is not Network.REQUEST:
        raise NotFound(f"The {stream} stream is not pulled from this network")
    return stream


Incoming = Annotated[StreamName, Depends(_incoming)]
Outgoing = Annotated[StreamName, Depends(_outgoing)]


@router.post("/streams/{stream}/batches", summary="Push a batch", openapi_extra=TAKES_BYTES)
async def push_batch(services: App, stream: Incoming, body: Body) -> Response:
    """Answers with a receipt when the batch is stored: 409 for a gap, 422 for a fork."""
    acceptance = await services.receiver.accept(stream, body)
    if not acceptance.repeated:
        log.debug("link.accepted", batch=str(acceptance.batch), records=acceptance.batch.records)
    if acceptance.starts_import:
        services.dispatcher.start_import(acceptance.batch)
    return message_response(services, acceptance.receipt)


@router.post("/streams/{stream}/heartbeats", summary="Say that nothing is new", openapi_extra=TAKES_BYTES)
async def push_heartbeat(services: App, stream: Incoming, body: Body) -> Response:
    """Answers with a receipt: 409 when the sender has sealed more than has arrived."""
    heartbeat = services.signer.opened(Heartbeat, body)
    check_place(services, stream, heartbeat)
    return message_response(services, await services.receiver.heard(stream, heartbeat))


@router.get("/streams/{stream}", summary="Where a pushed stream stands")
async def get_stream(services: App, stream: Incoming) -> Response:
    """A receipt for what is stored here."""
    async with services.engine.begin() as connection:
        receipt = await services.receiver.receipt(connection, stream)
    return message_response(services, receipt)


@router.get(
    "/streams/{stream}/batches",
    summary="Pull the batches that come next, waiting for one if need be",
    responses={204: {"description": "None came"}},
)
async def pull_batches(
    services: App,
    stream: Outgoing,
    after: Annotated[int, Query(ge=0, le=2**63 - 2, description="Number of the last batch that is stored there")],
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for one")] = 0,
    epoch: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="The epoch that it counts in there")] = None,
    head: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$", description="The hash of that last batch")] = None,
    most: Annotated[
        int, Query(ge=1, le=MAX_BUNDLE, description="Take up to so many batches, of up to 5,000 records in all")
    ] = 1,
) -> Response:
    """Handing a batch out does not deliver it: only a receipt does."""
    until = time.monotonic() + wait
    while True:
        next_event = services.sealed.next_event()
        batches = await _next(services, stream, epoch, after, head, most)
        left = until - time.monotonic()
        if batches or left <= 0 or services.stopping.is_set():
            break
        try:
            async with asyncio.timeout(left):
                await next_event.wait()
        except TimeoutError:
            pass
    if not batches:
        return Response(status_code=204)
    wires = []
    for batch in batches:
        if batch.payload is None:
            raise Fork(f"{stream}: batch {batch.sequence} is wanted again, but its payload is past retention")
        wires.append(to_wire(batch.manifest, batch.signature, batch.payload))
    return Response(to_bundle(wires), media_type=BUNDLE_MEDIA_TYPE)


@router.post("/streams/{stream}/receipts", status_code=204, summary="Confirm what is stored", openapi_extra=TAKES_BYTES)
async def push_receipt(services: App, stream: Outgoing, body: Body) -> Response:
    """Marks batches delivered. A receipt that speaks of another history stops the stream: 422."""
    receipt = services.signer.opened(Receipt, body)
    check_place(services, stream, receipt)
    try:
        async with services.engine.begin() as connection:
            await accept_receipt(connection, stream, receipt)
    except Fork as error:
        async with services.engine.begin() as connection:
            head = await outgoing_stream(connection, stream)
            if receipt.epoch >= head.epoch:  # a late one of an epoch that has ended stops nothing
                await stop_outgoing(connection, stream, str(error))
        raise
    return Response(status_code=204)


async def _next(
    services: Services, stream: StreamName, epoch: int | None, after: int, hash_there: str | None, most: int
) -> list[StoredBatch]:
    async with services.engine.begin() as connection:
        head = await outgoing_stream(connection, stream)
        if epoch not in (None, head.epoch):
            raise Fork(f"{stream}: epoch {epoch} is counted in there, {head.epoch} here")
        if after > head.sequence:
            raise Fork(f"{stream}: batch {after} is stored there, sealed here are {head.sequence}")
        if after and hash_there is not None:
            here = await hash_at(connection, stream, head.epoch, after)
            if here is not None and here.hex() != hash_there:
                raise Fork(f"{stream}: batch {after} is another one there than the one sealed here")
        if after == head.sequence:
            return []
        bounds = (most, MAX_RECORDS, MAX_PAYLOAD_BYTES, MAX_RAW_BYTES)
        batches = await batches_after(connection, stream, head.epoch, after, *bounds)
        if batches:
            await mark_sent(connection, stream, head.epoch, batches[0].sequence, batches[-1].sequence)
    return batches
