"""Authentication: every route of this API needs an operator's API key."""

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from api.bearer import key_hash
from api.response.services import Services
from models.errors import Forbidden, Unauthenticated
from people.users import find_caller


@dataclass(frozen=True)
class Operator:
    """The operator who makes the call."""

    name: str


async def services_of(request: Request) -> Services:
    """The open services. It is ``async`` because FastAPI calls plain functions in a thread."""
    return cast(Services, request.app.state.services)


App = Annotated[Services, Depends(services_of)]


async def authenticate(request: Request) -> None:
    """Find the operator who makes the call; `api.response.operator_routes` calls this first.

    Raises `Unauthenticated` for an unknown or inactive key, `Forbidden` for the key of a plain user.
    """
    services = await services_of(request)
    async with services.engine.connect() as connection:
        caller = await find_caller(connection, key_hash(request))
    if caller is None:
        raise Unauthenticated("This API key is unknown or no longer active")
    request.state.caller = {"user": caller.name, "user_id": str(caller.user_id)}
    if caller.role != "operator":
        raise Forbidden("This needs an operator's API key; users call the request network's API")
    request.state.operator = Operator(caller.name)


async def operator(request: Request) -> Operator:
    """The operator who makes the call, as `authenticate` found it."""
    found: Operator = request.state.operator
    return found


OperatorOf = Annotated[Operator, Depends(operator)]
