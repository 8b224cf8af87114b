"""The form of every call over the link: the question's signature is verified, the answer is signed."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from api.problems import problem_response, problem_responses
from api.request.services import Services
from exchange.errors import LinkError, Malformed, UnknownKey
from exchange.wire.http_signature import HEADER
from exchange.wire.messages import SignedMessage
from models.errors import Conflict, NotFound
from models.streams import StreamName

log = structlog.get_logger(__name__)

BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}, "required": True}
TAKES_BYTES = {"requestBody": BYTES}
"""For ``openapi_extra`` of a route that takes a batch or a message: client generators know no media type of ours."""


class SignedRoute(APIRoute):
    """A route that only the other network may call. The signature is verified before the parameters are read, and
    answers are signed, refusals of the protocol too.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def signed(request: Request) -> Response:
            services: Services = request.app.state.services
            signature = ", ".join(request.headers.getlist(HEADER))  # two of them are none
            await _verify(request, services, signature)
            try:
                try:
                    response = await handle(request)
                except UnknownKey:  # of what the body holds: another process may have learned it since ours last looked
                    await services.keys.refresh()
                    response = await handle(request)
            except (LinkError, NotFound, Conflict) as error:
                log.warning("link.refused", path=request.scope["path"], kind=error.kind, reason=str(error))
                response = problem_response(error.kind, error.title, error.status, str(error), error.extra)
            status, content = response.status_code, bytes(response.body)
            response.headers[HEADER] = services.signer.sign_response(signature, status, content)
            return response

        return signed


def signed_router() -> APIRouter:
    """A router whose routes are signed both ways; they answer with `fastapi.Response`."""
    return APIRouter(
        prefix="/link/v1",
        tags=["link"],
        route_class=SignedRoute,
        default_response_class=Response,
        responses=problem_responses(400, 401, 403, 404, 409, 413, 422, 423, 503),
    )


async def _body(request: Request) -> bytes:
    """As it was verified."""
    return await request.body()


Body = Annotated[bytes, Depends(_body)]


def message_response(services: Services, message: SignedMessage) -> Response:
    """A message as the answer's body, signed for itself as well."""
    return Response(message.to_wire(services.signer.keys), media_type=message.media_type)


def check_place(services: Services, stream: StreamName, message: SignedMessage) -> None:
    """Raises `Malformed` for a message about another link or stream than the one it was sent to."""
    if message.stream is not stream or message.link != services.settings.link_id:
        raise Malformed(
            f"a {message.purpose} of {message.link}/{message.stream} was sent to {services.settings.link_id}/{stream}"
        )


async def _verify(request: Request, services: Services, signature: str) -> None:
    """Raises `LinkError`. The body is kept only of a caller whose header holds what a stranger cannot know: batches are
    large, strangers are many.
    """
    query = request.scope["query_string"].decode("ascii", "replace")
    target = request.scope["path"] + (f"?{query}" if query else "")
    await services.signer.know(signature)
    try:
        try:
            services.signer.check_header(signature)
        except LinkError:
            async for _ in request.stream():
                pass  # cut off in the middle, the caller would not read the answer
            raise
        services.signer.verify_request(signature, request.method, target, await request.body())
    except LinkError as error:
        services.refusals.record(error)
        raise
