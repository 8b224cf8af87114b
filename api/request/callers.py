"""Authentication: the caller who owns the API key of a call."""

from typing import Annotated, cast

from fastapi import Depends, Request

from api.bearer import key_hash
from api.request.services import Services
from fulfilment.catalog import Caller
from models.errors import Forbidden


async def services_of(request: Request) -> Services:
    """The open services. It is ``async`` because FastAPI calls plain functions in a thread."""
    return cast(Services, request.app.state.services)


App = Annotated[Services, Depends(services_of)]


async def caller_of(request: Request) -> Caller:
    """The caller who makes this call. Raises `Unauthenticated`."""
    services = await services_of(request)
    return await services.catalog.caller(key_hash(request))


CallerOf = Annotated[Caller, Depends(caller_of)]


async def operator(request: Request, caller: CallerOf) -> Caller:
    """The caller, who must be an operator. Raises `Forbidden` otherwise."""
    request.state.caller = {"user": caller.name, "user_id": str(caller.user_id)}
    if caller.role != "operator":
        raise Forbidden("This needs an operator's API key")
    return caller


OperatorOf = Annotated[Caller, Depends(operator)]
