"""Reading a result: from Redis as raw bytes, else from PostgreSQL; right either way."""

import hashlib
import time
from dataclasses import dataclass
from uuid import UUID

import orjson

from api.request.services import Services
from cache.redis_cache import result_key
from fulfilment.catalog import Caller
from fulfilment.request_store import find_request
from fulfilment.result_store import find_outcome
from models.errors import NotFound
from models.requests import RequestStatus
from models.results import result_as_read, with_source
from storage.database import autocommit

YOUNG_SECONDS = 2.0
"""Age of a request up to which the cache is not asked first: a look there costs more than one for all who wait."""


@dataclass(frozen=True)
class Found:
    """A result, or how far its request is."""

    body: bytes
    is_final: bool
    etag: str = ""


async def look_for_result(services: Services, caller: Caller, request_id: UUID) -> Found | None:
    """The result of a request of this caller's, None where it has none yet; raises `NotFound`.

    A result never changes once it is there, and its key in the cache names its owner, so what the cache gives is right.
    """
    if (cached := await _cached(services, caller, request_id)) is not None:
        return cached
    async with autocommit(services.engine) as connection:
        outcome = await find_outcome(connection, caller.user_id, request_id)
    if outcome is None:
        raise NotFound(f"There is no request {request_id} of yours")
    body = result_as_read(request_id, outcome.closed, outcome.closed_at, outcome.body)
    return None if body is None else await _stored(services, caller, request_id, body)


async def wait_for_result(services: Services, caller: Caller, request_id: UUID, seconds: float) -> Found | None:
    """The same, waiting for the result for so long. One query looks for all who wait; the cache is not asked for a
    result that is not expected to be there yet.
    """
    if not _is_young(request_id) and (cached := await _cached(services, caller, request_id)) is not None:
        return cached
    outcome = await services.finished.outcome(caller.user_id, request_id, seconds)
    if outcome is None:
        return None
    if not outcome.was_there:
        return _read(services, request_id, outcome.body, "database")
    return await _cached(services, caller, request_id) or await _stored(services, caller, request_id, outcome.body)


async def _cached(services: Services, caller: Caller, request_id: UUID) -> Found | None:
    cached = await services.cache.get(result_key(caller.user_id, request_id))
    if cached is None or not _is_result_of(cached, request_id):
        return None
    return _read(services, request_id, cached, "cache")


async def _stored(services: Services, caller: Caller, request_id: UUID, body: bytes) -> Found:
    """A result from the database, which is in the cache when this returns: the next reading comes from there."""
    await services.cache.put(result_key(caller.user_id, request_id), body, services.settings.result_cache_seconds)
    return _read(services, request_id, body, "database")


def _read(services: Services, request_id: UUID, body: bytes, source: str) -> Found:
    """The ETag is weak: whether the bytes came from the cache does not change what they say."""
    services.first_reads.record(request_id)
    return Found(with_source(body, source), is_final=True, etag=f'W/"{hashlib.sha256(body).hexdigest()[:32]}"')


def _is_young(request_id: UUID) -> bool:
    """Whether the request was just submitted: a UUIDv7 (RFC 9562, 5.7) begins with the milliseconds since 1970."""
    return abs(time.time() - (request_id.int >> 80) / 1000) < YOUNG_SECONDS


async def how_far(services: Services, caller: Caller, request_id: UUID) -> Found:
    """What is said of a request that had no result when it was looked for; the result, if it came meanwhile."""
    async with autocommit(services.engine) as connection:
        request = await find_request(connection, caller.user_id, request_id)
    status = RequestStatus(request.status) if request else RequestStatus.QUEUED
    if status.is_final and (found := await look_for_result(services, caller, request_id)) is not None:
        return found
    return Found(_pending(request_id, status), is_final=False)


def _is_result_of(cached: bytes, request_id: UUID) -> bool:
    """Whether these bytes look like this request's result: Redis keeps no promise about what lies under a key."""
    whole = cached[:1] == b"{" and cached.rstrip()[-1:] == b"}"
    return whole and str(request_id).encode() in cached


def _pending(request_id: UUID, status: str) -> bytes:
    return orjson.dumps(
        {
            "request_id": request_id,
            "status": status,
            "data": [],
            "returned": 0,
            "total": None,
            "truncated": False,
            "error": None,
            "executed_at": None,
            "duration_ms": None,
            "source": "database",
        }
    )
