"""The link's part of verifying: how streams look here, repairs that the response network orders, and one request's way.

Signed both ways like the rest of the link. Answers are bounded: an audit or digest covers so many batches at most and
says how far it came. They hold numbers, hashes and ids, never contents.
"""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Path, Response
from pydantic import BaseModel, TypeAdapter, ValidationError

from api.request.callers import App
from api.request.custody import trace_of
from api.request.services import Services
from api.request.signed_routes import BYTES, TAKES_BYTES, Body, signed_router
from cache.redis_cache import BROKEN, result_key
from exchange.audit.summaries import Orphans, RepairOrder, SummaryQuestion
from exchange.errors import Malformed
from exchange.recovery.local_side import LocalSide
from exchange.wire.batch import MEDIA_TYPE
from models.streams import Network, StreamName

router = signed_router()

_JSON = {"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}, "required": True}}


@router.post("/streams/{stream}/summaries", summary="Ask how a stream looks here", openapi_extra=_JSON)
async def summarise(services: App, stream: StreamName, body: Body) -> Response:
    """Its head, the digest of a range of batches, what an audit of a range found, or rows that no batch explains."""
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


@router.post("/streams/{stream}/repairs", summary="Repair the rows of a batch", openapi_extra=_JSON)
async def repair(services: App, stream: StreamName, body: Body) -> Response:
    """Rebuilt from the batch as it is stored here, whose signature is verified once more; extra rows are set aside."""
    order = _read(_ORDER, body)
    return _answer(await _side(services).repair(stream, order.epoch, order.sequence))


@router.post("/streams/{stream}/restorations", summary="Bring back a batch", openapi_extra=TAKES_BYTES)
async def restore(services: App, stream: StreamName, body: Body) -> Response:
    """Takes the place of what is stored of it, sealed or received here, if the chain goes on from exactly these bytes;
    422 otherwise.
    """
    return _answer(await _side(services).restore(stream, body))


@router.get(
    "/streams/{stream}/batches/{epoch}/{sequence}",
    summary="Read a batch as it is stored here",
    responses={200: {"content": BYTES["content"]}, 204: {"description": "Gone"}},
)
async def stored_batch(
    services: App,
    stream: StreamName,
    epoch: Annotated[int, Path(ge=1, le=2**31 - 1)],
    sequence: Annotated[int, Path(ge=1, le=2**63 - 1)],
) -> Response:
    """The bytes that crossed, whether sealed or received here: either side can then bring back the other's."""
    wire = await _side(services).stored(stream, epoch, sequence)
    return Response(status_code=204) if wire is None else Response(wire, media_type=MEDIA_TYPE)


@router.get("/traces/{request_id}", summary="One request's way so far")
async def trace(services: App, request_id: UUID) -> Response:
    """Places and times, as far as this network knows them; no parameters, no data."""
    return _answer(await trace_of(services, request_id, None))


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
        except BROKEN:
            pass  # it is away, and what it may still hold runs out by itself

    return LocalSide(services.engine, Network.REQUEST, services.settings.retention, services.keys, evict)
