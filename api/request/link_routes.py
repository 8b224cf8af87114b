"""The link: what the response network pushes is accepted, what it asks for is handed out; signed both ways."""

import asyncio
import time
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Request, Response

from api.problems import problem_responses
from api.request.callers import App
from api.request.services import Services
from api.request.signed_answers import BYTES, check_place, message_response, signed_answer
from exchange.errors import Fork
from exchange.transfer.delivery import accept_receipt
from exchange.transfer.outgoing import StoredBatch, batches_after, hash_at, mark_sent, outgoing_stream, stop_outgoing
from exchange.wire.batch import BUNDLE_MEDIA_TYPE, MEDIA_TYPE, to_bundle, to_wire
from exchange.wire.manifest import MAX_PAYLOAD_BYTES, MAX_RECORDS
from exchange.wire.messages import Heartbeat, Receipt
from models.errors import NotFound
from models.streams import Network, StreamName

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/link/v1/streams/{stream}", tags=["link"])

MAX_WAIT_SECONDS = 60.0
MAX_BUNDLE = 1000
_PROBLEMS = problem_responses(400, 401, 403, 404, 409, 413, 422, 423, 503)


def _incoming(stream: StreamName) -> None:
    if stream.receiver is not Network.REQUEST:
        raise NotFound(f"The {stream} stream is not pushed to this network")


def _outgoing(stream: StreamName) -> None:
    if stream.sender is not Network.REQUEST:
        raise NotFound(f"The {stream} stream is not pulled from this network")


@router.post(
    "/batches",
    summary="Push a batch",
    responses=_PROBLEMS,
    openapi_extra={"requestBody": BYTES},
    response_class=Response,
)
async def push_batch(request: Request, services: App, stream: StreamName) -> Response:
    """Answers with a receipt when the batch is stored: 409 for a gap, 422 for a fork."""

    async def answer(body: bytes) -> Response:
        _incoming(stream)
        acceptance = await services.receiver.accept(stream, body)
        if not acceptance.repeated:
            log.debug("link.accepted", batch=str(acceptance.batch), records=acceptance.batch.records)
        if acceptance.starts_import:
            services.dispatcher.start_import(acceptance.batch)
        return message_response(services, acceptance.receipt)

    return await signed_answer(request, services, answer)


@router.post(
    "/heartbeats",
    summary="Say that nothing is new",
    responses=_PROBLEMS,
    openapi_extra={"requestBody": BYTES},
    response_class=Response,
)
async def push_heartbeat(request: Request, services: App, stream: StreamName) -> Response:
    """Answers with a receipt: 409 when the sender has sealed more than has arrived."""

    async def answer(body: bytes) -> Response:
        _incoming(stream)
        heartbeat = Heartbeat.from_wire(services.signer.keys, body)
        check_place(services, stream, heartbeat)
        return message_response(services, await services.receiver.heard(stream, heartbeat))

    return await signed_answer(request, services, answer)


@router.get("", summary="Where a pushed stream stands", responses=_PROBLEMS, response_class=Response)
async def get_stream(request: Request, services: App, stream: StreamName) -> Response:
    """A receipt for what is stored here."""

    async def answer(_body: bytes) -> Response:
        _incoming(stream)
        async with services.engine.begin() as connection:
            receipt = await services.receiver.receipt(connection, stream)
        return message_response(services, receipt)

    return await signed_answer(request, services, answer)


@router.get(
    "/batches",
    summary="Pull the next batch, or several, waiting for one if need be",
    responses={204: {"description": "None came"}, **_PROBLEMS},
    response_class=Response,
)
async def pull_batch(
    request: Request,
    services: App,
    stream: StreamName,
    after: Annotated[int, Query(ge=0, le=2**63 - 2, description="Number of the last batch that is stored there")],
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for one")] = 0,
    epoch: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="The epoch that it counts in there")] = None,
    head: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$", description="The hash of that last batch")] = None,
    most: Annotated[
        int | None, Query(ge=1, le=MAX_BUNDLE, description="Take up to so many batches, of up to 5,000 records in all")
    ] = None,
) -> Response:
    """Handing a batch out does not deliver it: only a receipt does."""

    async def answer(_body: bytes) -> Response:
        _outgoing(stream)
        until = time.monotonic() + wait
        while True:
            next_event = services.sealed.next_event()
            batches = await _next(services, stream, epoch, after, head, most or 1)
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
        if most is None:
            return Response(wires[0], media_type=MEDIA_TYPE)
        return Response(to_bundle(wires), media_type=BUNDLE_MEDIA_TYPE)

    return await signed_answer(request, services, answer)


@router.post(
    "/receipts",
    status_code=204,
    summary="Confirm what is stored",
    responses=_PROBLEMS,
    openapi_extra={"requestBody": BYTES},
    response_class=Response,
)
async def push_receipt(request: Request, services: App, stream: StreamName) -> Response:
    """Marks batches delivered. A receipt that speaks of another history stops the stream: 422."""

    async def answer(body: bytes) -> Response:
        _outgoing(stream)
        receipt = Receipt.from_wire(services.signer.keys, body)
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

    return await signed_answer(request, services, answer)


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
        batches = await batches_after(connection, stream, head.epoch, after, most, MAX_RECORDS, MAX_PAYLOAD_BYTES)
        if batches:
            await mark_sent(connection, stream, head.epoch, batches[0].sequence, batches[-1].sequence)
    return batches
