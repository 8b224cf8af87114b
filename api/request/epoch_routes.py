"""The link's part of a new epoch: an operator of the response network orders it, and gives back what was lost here."""

from fastapi import APIRouter, Request, Response

from api.problems import problem_response, problem_responses
from api.request.callers import App
from api.request.signed_answers import BYTES, signed_answer
from exchange.epochs import ReceivingEnd, SendingEnd
from exchange.errors import Malformed
from exchange.notes import EpochOrder, Heartbeat, Receipt
from models.errors import Conflict
from models.streams import Network, StreamName
from storage.outgoing import outgoing_stream

router = APIRouter(prefix="/link/v1/streams/{stream}", tags=["link"])

_PROBLEMS = problem_responses(400, 401, 403, 404, 409, 413, 422, 503)


@router.post(
    "/epochs",
    summary="Begin a new epoch of a stream",
    responses=_PROBLEMS,
    openapi_extra={"requestBody": BYTES},
    response_class=Response,
)
async def begin_epoch(request: Request, services: App, stream: StreamName) -> Response:
    """Answers with a receipt where the stream is received here, with a heartbeat where it is sent from here."""

    async def answer(body: bytes) -> Response:
        order = EpochOrder.from_wire(services.signer.keys, body)
        if (order.link, order.stream) != (services.settings.link_id, stream):
            raise Malformed(
                f"an order for {order.link}/{order.stream} was sent to {services.settings.link_id}/{stream}"
            )
        if stream.receiver is Network.REQUEST:
            receipt = await ReceivingEnd(services.engine, services.receiver).begin(order)
            return Response(receipt.to_wire(services.signer.keys), media_type=Receipt.media_type)
        try:
            await SendingEnd(services.engine, services.sealer).begin(order)
        except Conflict as error:  # signed, so that it is believed
            return problem_response(error.kind, error.title, error.status, str(error))
        services.dispatcher.requests_recovered()
        async with services.engine.begin() as connection:
            head = await outgoing_stream(connection, stream)
        heartbeat = Heartbeat(
            link=services.settings.link_id,
            stream=stream,
            epoch=head.epoch,
            sequence=head.sequence,
            head=head.hash.hex(),
            key_id=services.signer.keys.key_id,
        )
        return Response(heartbeat.to_wire(services.signer.keys), media_type=Heartbeat.media_type)

    return await signed_answer(request, services, answer)


@router.post(
    "/recoveries",
    status_code=204,
    summary="Give a batch back to its sender",
    responses=_PROBLEMS,
    openapi_extra={"requestBody": BYTES},
    response_class=Response,
)
async def recover(request: Request, services: App, stream: StreamName) -> Response:
    """Its records wait here for the next epoch. Only bytes that this network signed itself are taken."""

    async def answer(body: bytes) -> Response:
        if stream.sender is not Network.REQUEST:
            raise Malformed(f"the {stream} stream is not sent from here")
        await SendingEnd(services.engine, services.sealer).recover(stream, body)
        return Response(status_code=204)

    return await signed_answer(request, services, answer)
