"""Who calls: every route of this API needs an operator's key."""

from dataclasses import dataclass
from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Request

from api.bearer import KeyHash
from api.response.services import Services
from models.errors import Forbidden, Unauthenticated
from people.users import find_caller


@dataclass(frozen=True)
class Operator:
    """The operator that the presented key belongs to."""

    user_id: UUID
    name: str


async def services_of(request: Request) -> Services:
    """What the lifespan opened. Not a plain function: FastAPI would call it in a thread."""
    return cast(Services, request.app.state.services)


App = Annotated[Services, Depends(services_of)]


async def operator(services: App, sha256: KeyHash) -> Operator:
    """Raises `Unauthenticated` for a key that is unknown or no longer active, `Forbidden` for one of a plain user."""
    async with services.engine.connect() as connection:
        caller = await find_caller(connection, sha256)
    if caller is None:
        raise Unauthenticated("This API key is unknown or no longer active")
    if caller.role != "operator":
        raise Forbidden("This needs an operator's key; a user's key is for the request network's API")
    return Operator(caller.user_id, caller.name)


OperatorOf = Annotated[Operator, Depends(operator)]
