"""Request types and public settings, from the newest settings snapshot through the cache."""

import hashlib
from collections.abc import Callable

from fastapi import APIRouter, Response
from pydantic import BaseModel

from api.bearer import needs_key
from api.conditional import IfNoneMatch, is_current
from api.problems import problem_responses
from api.request.callers import App, CallerOf
from api.request.services import Services
from cache.redis_cache import settings_key
from fulfilment.catalog import Catalog
from models.requests import PublicRequestType
from models.settings import PublicSetting

router = APIRouter(prefix="/v1", tags=["catalogue"], dependencies=[needs_key])

CACHE_SECONDS = 3600


class RequestTypes(BaseModel):
    """The active request types."""

    request_types: list[PublicRequestType]


class Settings(BaseModel):
    """The public settings."""

    settings: list[PublicSetting]


_RESPONSES = {304: {"description": "Nothing has changed since this ETag"}, **problem_responses(401, 503)}


@router.get("/request-types", summary="List request types", response_model=RequestTypes, responses=_RESPONSES)
async def list_request_types(services: App, _caller: CallerOf, if_none_match: IfNoneMatch = None) -> Response:
    """The active request types, with the JSON Schema of their parameters."""
    return await _through_cache(services, "types", lambda catalog: catalog.types_json, if_none_match)


@router.get("/settings", summary="List public settings", response_model=Settings, responses=_RESPONSES)
async def list_settings(services: App, _caller: CallerOf, if_none_match: IfNoneMatch = None) -> Response:
    """The public settings of the newest snapshot from the response network."""
    return await _through_cache(services, "settings", lambda catalog: catalog.settings_json, if_none_match)


async def _through_cache(
    services: Services, part: str, make: Callable[[Catalog], bytes], if_none_match: str | None
) -> Response:
    """What Redis has counts only if it is what this process would write: others may write there too."""
    catalog = await services.catalog.get()
    key = settings_key(catalog.epoch, catalog.sequence, part)
    body, source = make(catalog), "cache"
    if await services.cache.get(key) != body:
        source = "database"
        await services.cache.put(key, body, CACHE_SECONDS)
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Airlock-Source": source}
    if is_current(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    return Response(body, 200, headers, "application/json")
