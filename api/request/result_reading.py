"""Reads a result as bytes, or the status of a request that has none."""

import hashlib
from dataclasses import dataclass
from uuid import UUID

from api.request.services import Services
from fulfilment.catalog import Caller
from fulfilment.request_store import find_request
from models.requests import RequestStatus
from models.results import body_without_data, with_source
from storage.database import autocommit


@dataclass(frozen=True)
class Found:
    """A result, or the status of its request."""

    body: bytes
    is_final: bool
    etag: str = ""


async def find_result(services: Services, caller: Caller, request_id: UUID, seconds: float = 0) -> Found | None:
    """The result of a request of this caller; wait up to ``seconds`` for it. None if there is none yet.

    A result never changes, and its cache key contains the owner, so a cached result is always correct. The ETag is
    weak, since the source may differ between reads. Raises `NotFound`.
    """
    outcome = await services.finished.outcome(caller.user_id, request_id, seconds)
    if outcome is None:
        return None
    services.first_reads.record(request_id)
    etag = f'W/"{hashlib.sha256(outcome.body).hexdigest()[:32]}"'
    return Found(with_source(outcome.body, outcome.source), is_final=True, etag=etag)


async def status_of(services: Services, caller: Caller, request_id: UUID) -> Found:
    """The status of a request that had no result, or its result if that has arrived meanwhile."""
    async with autocommit(services.engine) as connection:
        request = await find_request(connection, caller.user_id, request_id)
    status = RequestStatus(request.status) if request else RequestStatus.QUEUED
    if status.is_final and (found := await find_result(services, caller, request_id)) is not None:
        return found
    return Found(with_source(body_without_data(request_id, status), "database"), is_final=False)
