"""Reads a result as bytes: from Redis, or else from PostgreSQL."""

import hashlib
import time
from dataclasses import dataclass
from uuid import UUID

from api.request.services import Services
from cache.redis_cache import result_key
from fulfilment.catalog import Caller
from fulfilment.request_store import find_request, unknown_request
from fulfilment.result_store import find_outcome
from models.requests import RequestStatus
from models.results import body_without_data, result_as_read, with_source
from storage.database import autocommit

YOUNG_SECONDS = 2.0
"""For a younger request, the cache is not read first: one query for all waiting callers costs less."""


@dataclass(frozen=True)
class Found:
    """A result, or the status of its request."""

    body: bytes
    is_final: bool
    etag: str = ""


async def find_result(services: Services, caller: Caller, request_id: UUID) -> Found | None:
    """The result of a request of this caller. None if there is none yet; raises `NotFound`.

    A result never changes, and its cache key contains the owner, so a cached result is always correct.
    """
    if (cached := await _cached(services, caller, request_id)) is not None:
        return cached
    async with autocommit(services.engine) as connection:
        outcome = await find_outcome(connection, caller.user_id, request_id)
    if outcome is None:
        raise unknown_request(request_id)
    body = result_as_read(request_id, outcome.closed, outcome.closed_at, outcome.body)
    return None if body is None else await _stored(services, caller, request_id, body)


async def wait_for_result(services: Services, caller: Caller, request_id: UUID, seconds: float) -> Found | None:
    """Wait up to ``seconds`` for the result. One query serves all waiting callers."""
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
    """A result from the database. It is put into the cache first, so that the next read finds it there."""
    await services.cache.put(result_key(caller.user_id, request_id), body, services.settings.result_cache_seconds)
    return _read(services, request_id, body, "database")


def _read(services: Services, request_id: UUID, body: bytes, source: str) -> Found:
    """The result with its source. The ETag is weak, since the source may differ between reads."""
    services.first_reads.record(request_id)
    return Found(with_source(body, source), is_final=True, etag=f'W/"{hashlib.sha256(body).hexdigest()[:32]}"')


def _is_young(request_id: UUID) -> bool:
    """Whether the request was just submitted. A UUIDv7 (RFC 9562, 5.7) begins with the Unix time in milliseconds."""
    return abs(time.time() - (request_id.int >> 80) / 1000) < YOUNG_SECONDS


async def status_of(services: Services, caller: Caller, request_id: UUID) -> Found:
    """The status of a request that had no result, or its result if that has arrived meanwhile."""
    async with autocommit(services.engine) as connection:
        request = await find_request(connection, caller.user_id, request_id)
    status = RequestStatus(request.status) if request else RequestStatus.QUEUED
    if status.is_final and (found := await find_result(services, caller, request_id)) is not None:
        return found
    return Found(with_source(body_without_data(request_id, status), "database"), is_final=False)


def _is_result_of(cached: bytes, request_id: UUID) -> bool:
    """Whether these bytes look like the result of this request, since Redis may hold anything under a key."""
    whole = cached[:1] == b"{" and cached.rstrip()[-1:] == b"}"
    return whole and str(request_id).encode() in cached
