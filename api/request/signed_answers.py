"""The form of every call over the link: the question's signature is verified, the answer is signed."""

from collections.abc import Awaitable, Callable

import structlog
from fastapi import Request, Response

from api.problems import problem_response
from api.request.services import Services
from exchange.errors import LinkError
from exchange.http_signature import HEADER

log = structlog.get_logger(__name__)

BYTES = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}, "required": True}
"""For ``requestBody`` of a route that takes a batch or a note: client generators know no media type of ours."""


async def signed_answer(
    request: Request, services: Services, answer: Callable[[bytes], Awaitable[Response]]
) -> Response:
    """Verify the caller's signature, answer, and sign the answer: refusals of the protocol are signed too."""
    body = await request.body()
    query = request.scope["query_string"].decode("ascii", "replace")
    target = request.scope["path"] + (f"?{query}" if query else "")
    signature = request.headers.get(HEADER, "")
    services.signer.verify_request(signature, request.method, target, body)
    try:
        response = await answer(body)
    except LinkError as error:
        log.warning("link.refused", path=request.scope["path"], kind=error.kind, reason=str(error))
        response = problem_response(error.kind, error.title, error.status, str(error), error.extra)
    response.headers[HEADER] = services.signer.sign_response(signature, response.status_code, bytes(response.body))
    return response
