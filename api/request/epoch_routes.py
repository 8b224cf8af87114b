"""The link's part of a new epoch: an operator of the response network orders it, and gives back what was lost here."""

from fastapi import APIRouter, Request, Response

from api.problems import problem_responses
from api.request.callers import App
from api.request.signed_answers import BYTES, check_place, message_response, signed_answer
from exchange.errors import Malformed
from exchange.recovery.epochs import ReceivingEnd, SendingEnd
from exchange.transfer.outgoing import outgoing_stream
from exchange.wire.messages import EpochOrder
from models.streams import Network, StreamName

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
        check_place(services, stream, order)
        if stream.receiver is Network.REQUEST:
            return message_response(services, await ReceivingEnd(services.engine, services.receiver).begin(order))
        await SendingEnd(services.engine, services.sealer).begin(order)
        services.dispatcher.requests_recovered()
        async with services.engine.begin() as connection:
            head = await outgoing_stream(connection, stream)
        return message_response(services, services.sealer.heartbeat(head))

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
