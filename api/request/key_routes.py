"""The link's part of rotating keys: each network tells the other its own and which of the other's it trusts."""

from fastapi import Response

from api.request.callers import App
from api.request.signed_routes import TAKES_BYTES, Body, signed_router
from exchange.link_keys.lists import KeyList, key_list, take_key_list

router = signed_router()


@router.post("/keys", summary="Tell keys, and hear of ours", openapi_extra=TAKES_BYTES)
async def exchange_keys(services: App, body: Body) -> Response:
    """Takes over what the response network says of its keys; answers with this network's, in the same form."""
    link = services.settings.link_id
    await services.keys.refresh()
    told = services.signer.opened(KeyList, body)
    async with services.engine.begin() as connection:
        await take_key_list(connection, services.keys, link, told)
        ours = await key_list(connection, services.keys, link)
    await services.keys.refresh()
    return Response(ours.to_wire(services.keys), media_type=KeyList.media_type)
