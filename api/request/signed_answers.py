"""The form of every call over the link: the question's signature is verified, the answer is signed."""

from collections.abc import Awaitable, Callable

import structlog
from fastapi import Request, Response

from api.problems import problem_response
from api.request.services import Services
from exchange.errors import LinkError, Malformed, UnknownKey
from exchange.wire.http_signature import HEADER
from exchange.wire.messages import SignedMessage
from models.errors import Conflict, NotFound
from models.streams import StreamName

log = structlog.get_logger(__name__)

BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}, "required": True}
"""For ``requestBody`` of a route that takes a batch or a message: client generators know no media type of ours."""


async def signed_answer(
    request: Request, services: Services, answer: Callable[[bytes], Awaitable[Response]]
) -> Response:
    """Verify the caller's signature, answer, and sign the answer: refusals of the protocol are signed too."""
    query = request.scope["query_string"].decode("ascii", "replace")
    target = request.scope["path"] + (f"?{query}" if query else "")
    signature = ", ".join(request.headers.getlist(HEADER))  # two of them are none
    await services.signer.know(signature)
    try:
        body = await _body(request, services, signature)
        services.signer.verify_request(signature, request.method, target, body)
    except LinkError as error:
        services.refusals.record(error)
        raise
    try:
        try:
            response = await answer(body)
        except UnknownKey:  # of what the body holds: another process may have learned it since ours last looked
            await services.keys.refresh()
            response = await answer(body)
    except (LinkError, NotFound, Conflict) as error:
        log.warning("link.refused", path=request.scope["path"], kind=error.kind, reason=str(error))
        response = problem_response(error.kind, error.title, error.status, str(error), error.extra)
    response.headers[HEADER] = services.signer.sign_response(signature, response.status_code, bytes(response.body))
    return response


def message_response(services: Services, message: SignedMessage) -> Response:
    """A message as the answer's body, signed for itself as well."""
    return Response(message.to_wire(services.signer.keys), media_type=message.media_type)


def check_place(services: Services, stream: StreamName, message: SignedMessage) -> None:
    """Raises `Malformed` for a message about another link or stream than the one it was sent to."""
    if message.stream is not stream or message.link != services.settings.link_id:
        raise Malformed(
            f"a {message.purpose} of {message.link}/{message.stream} was sent to {services.settings.link_id}/{stream}"
        )


async def _body(request: Request, services: Services, signature: str) -> bytes:
    """Kept only of a caller whose header holds what a stranger cannot know: batches are large, strangers are many."""
    try:
        services.signer.check_header(signature)
    except LinkError:
        async for _ in request.stream():
            pass  # cut off in the middle, the caller would not read the answer
        raise
    return await request.body()
