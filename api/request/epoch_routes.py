"""The link's part of a new epoch: an operator of the response network orders it, and gives back what was lost here."""

from fastapi import Response

from api.request.callers import App
from api.request.signed_routes import TAKES_BYTES, Body, check_place, message_response, signed_router
from exchange.errors import Malformed
from exchange.recovery.epochs import ReceivingEnd, SendingEnd
from exchange.transfer.outgoing import outgoing_stream
from exchange.wire.messages import EpochOrder
from models.streams import Network, StreamName

router = signed_router()


@router.post("/streams/{stream}/epochs", summary="Begin a new epoch of a stream", openapi_extra=TAKES_BYTES)
async def begin_epoch(services: App, stream: StreamName, body: Body) -> Response:
    """Answers with a receipt where the stream is received here, with a heartbeat where it is sent from here."""
    order = services.signer.opened(EpochOrder, body)
    check_place(services, stream, order)
    if stream.receiver is Network.REQUEST:
        return message_response(services, await ReceivingEnd(services.engine, services.receiver).begin(order))
    await SendingEnd(services.engine, services.sealer).begin(order)
    services.dispatcher.requests_recovered()
    async with services.engine.begin() as connection:
        head = await outgoing_stream(connection, stream)
    return message_response(services, services.sealer.heartbeat(head))


@router.post(
    "/streams/{stream}/recoveries",
    status_code=204,
    summary="Give a batch back to its sender",
    openapi_extra=TAKES_BYTES,
)
async def recover(services: App, stream: StreamName, body: Body) -> Response:
    """Its records wait here for the next epoch. Only bytes that this network signed itself are taken."""
    if stream.sender is not Network.REQUEST:
        raise Malformed(f"the {stream} stream is not sent from here")
    await SendingEnd(services.engine, services.sealer).recover(stream, body)
    return Response(status_code=204)
