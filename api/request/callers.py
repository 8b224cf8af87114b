"""Who calls: the services of the app and the caller that a key belongs to."""

from typing import Annotated, cast

from fastapi import Depends, Request

from api.bearer import KeyHash, presented_key_hash
from api.request.services import Services
from fulfilment.catalog import Caller
from models.errors import Forbidden


async def services_of(request: Request) -> Services:
    """What the lifespan opened. Not a plain function: FastAPI would call it in a thread."""
    return cast(Services, request.app.state.services)


App = Annotated[Services, Depends(services_of)]


async def known_caller(services: App, sha256: KeyHash) -> Caller:
    """The caller whose key was presented; raises `Unauthenticated`."""
    return await services.catalog.caller(sha256)


async def services_and_caller(request: Request) -> tuple[Services, Caller]:
    """Both, for an endpoint that takes the request itself; raises `Unauthenticated`."""
    services: Services = request.app.state.services
    return services, await services.catalog.caller(await presented_key_hash(request))


CallerOf = Annotated[Caller, Depends(known_caller)]


async def operator(caller: CallerOf) -> Caller:
    """An operator; raises `Forbidden` for anybody else."""
    if caller.role != "operator":
        raise Forbidden("This needs an operator's key")
    return caller


OperatorOf = Annotated[Caller, Depends(operator)]
