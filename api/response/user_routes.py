"""Users. They are managed with the command line."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.response.callers import App, OperatorOf
from api.response.operator_routes import operator_router
from people.users import list_users

router = operator_router("/v1/users", "users")


class UserView(BaseModel):
    """A user. API keys cannot be shown, since only their SHA-256 is stored."""

    user_id: UUID
    name: str
    role: Literal["user", "operator"]
    active: bool
    keys: int = Field(description="Number of active keys")
    created_at: datetime


class UsersList(BaseModel):
    """All users, by name."""

    users: list[UserView]


@router.get("", summary="List users", operation_id="list_users")
async def list_all(services: App, _operator: OperatorOf) -> UsersList:
    """All users, by name."""
    async with services.engine.connect() as connection:
        found = await list_users(connection)
    return UsersList(users=[UserView.model_validate(user, from_attributes=True) for user in found])
