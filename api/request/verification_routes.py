"""The link's part of verifying: how streams look here, repairs that the response network orders, and one request's way.

Signed both ways like the rest of the link. Answers are bounded: an audit or digest covers so many batches at most and
says how far it came. They hold numbers, hashes and ids, never contents.
"""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, TypeAdapter, ValidationError
from redis.exceptions import RedisError

from api.problems import problem_responses
from api.request.callers import App
from api.request.custody import trace_of
from api.request.services import Services
from api.request.signed_answers import BYTES, signed_answer
from cache.redis_cache import result_key
from exchange.audit.summaries import Orphans, RepairOrder, SummaryQuestion
from exchange.errors import Malformed
from exchange.recovery.local_side import LocalSide
from exchange.wire.batch import MEDIA_TYPE
from models.streams import Network, StreamName

router = APIRouter(prefix="/link/v1", tags=["link"])

_PROBLEMS = problem_responses(400, 401, 403, 404, 413, 422, 423, 503)
_JSON = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}, "required": True}}


@router.post(
    "/streams/{stream}/summaries",
    summary="Ask how a stream looks here",
    responses=_PROBLEMS,
    openapi_extra=_JSON,
    response_class=Response,
)
async def summarise(request: Request, services: App, stream: StreamName) -> Response:
    """Its head, the digest of a range of batches, what an audit of a range found, or rows that no batch explains."""

    async def answer(body: bytes) -> Response:
        question = _read(_QUESTION, body)
        side = _side(services)
        found: BaseModel
        if question.ask == "head":
            found = await side.head(stream)
        elif question.ask == "orphans":
            found = Orphans(findings=await side.orphans(stream))
        elif not question.first <= question.last:
            raise Malformed(f"batches {question.first} to {question.last} are no range")
        elif question.ask == "digest":
            found = await side.digest(stream, question.epoch, question.first, question.last)
        else:
            found = await side.audit(stream, question.epoch, question.first, question.last)
        return _answer(found)

    return await signed_answer(request, services, answer)


@router.post(
    "/streams/{stream}/repairs",
    summary="Have the rows of a batch repaired",
    responses=_PROBLEMS,
    openapi_extra=_JSON,
    response_class=Response,
)
async def repair(request: Request, services: App, stream: StreamName) -> Response:
    """Rebuilt from the batch as it is stored here, whose signature is verified once more; extra rows are set aside."""

    async def answer(body: bytes) -> Response:
        order = _read(_ORDER, body)
        return _answer(await _side(services).repair(stream, order.epoch, order.sequence))

    return await signed_answer(request, services, answer)


@router.post(
    "/streams/{stream}/restorations",
    summary="Bring back a batch",
    responses=_PROBLEMS,
    openapi_extra={"requestBody": BYTES},
    response_class=Response,
)
async def restore(request: Request, services: App, stream: StreamName) -> Response:
    """Takes the place of what is stored of it, sealed or received here, if the chain goes on from exactly these bytes;
    422 otherwise.
    """

    async def answer(body: bytes) -> Response:
        return _answer(await _side(services).restore(stream, body))

    return await signed_answer(request, services, answer)


@router.get(
    "/streams/{stream}/batches/{epoch}/{sequence}",
    summary="Read a batch as it is stored here",
    responses={200: {"content": BYTES["content"]}, 204: {"description": "Gone"}, **_PROBLEMS},
    response_class=Response,
)
async def stored_batch(
    request: Request,
    services: App,
    stream: StreamName,
    epoch: Annotated[int, Path(ge=1, le=2**31 - 1)],
    sequence: Annotated[int, Path(ge=1, le=2**63 - 1)],
) -> Response:
    """The bytes that crossed, whether sealed or received here: either side can then bring back the other's."""

    async def answer(_body: bytes) -> Response:
        wire = await _side(services).stored(stream, epoch, sequence)
        return Response(status_code=204) if wire is None else Response(wire, media_type=MEDIA_TYPE)

    return await signed_answer(request, services, answer)


@router.get("/traces/{request_id}", summary="One request's way so far", responses=_PROBLEMS, response_class=Response)
async def trace(request: Request, services: App, request_id: UUID) -> Response:
    """Places and times, as far as this network knows them; no parameters, no data."""

    async def answer(_body: bytes) -> Response:
        return _answer(await trace_of(services, request_id, None))

    return await signed_answer(request, services, answer)


_QUESTION = TypeAdapter(SummaryQuestion)
_ORDER = TypeAdapter(RepairOrder)


def _read(wanted: TypeAdapter[Any], body: bytes) -> Any:
    try:
        return wanted.validate_json(body)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise Malformed(f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}") from None


def _answer(found: BaseModel) -> Response:
    return Response(found.model_dump_json(), media_type="application/json")


def _side(services: Services) -> LocalSide:
    async def evict(user_id: UUID, request_id: UUID) -> None:
        try:
            await services.cache.drop(result_key(user_id, request_id))
        except (RedisError, OSError, TimeoutError):
            pass  # it is away, and what it may still hold runs out by itself

    return LocalSide(services.engine, Network.REQUEST, services.settings.retention, services.keys, evict)
