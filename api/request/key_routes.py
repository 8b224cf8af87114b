"""The link's part of rotating keys: each network tells the other its own and which of the other's it trusts."""

from fastapi import APIRouter, Request, Response

from api.problems import problem_responses
from api.request.callers import App
from api.request.signed_answers import BYTES, signed_answer
from exchange.link_keys.lists import KeyList, key_list, take_key_list

router = APIRouter(prefix="/link/v1", tags=["link"])


@router.post(
    "/keys",
    summary="Tell keys, and hear of ours",
    responses=problem_responses(400, 401, 403, 413, 503),
    openapi_extra={"requestBody": BYTES},
    response_class=Response,
)
async def exchange_keys(request: Request, services: App) -> Response:
    """Takes over what the response network says of its keys; answers with this network's, in the same form."""

    async def answer(body: bytes) -> Response:
        link = services.settings.link_id
        await services.keys.refresh()
        told = KeyList.from_wire(services.keys, body)
        async with services.engine.begin() as connection:
            await take_key_list(connection, services.keys, link, told)
            ours = await key_list(connection, services.keys, link)
        await services.keys.refresh()
        return Response(ours.to_wire(services.keys), media_type=KeyList.media_type)

    return await signed_answer(request, services, answer)
