"""New keys of a captured request network: few, announced at once, and revoked in bulk."""

from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange.link_keys.introduction import KeyExchange
from exchange.link_keys.lists import MOST_NEW, KeyList
from exchange.link_keys.live_keys import LiveKeys
from exchange.link_keys.states import revoke_introduced
from models.streams import Network
from monitoring.key_alarms import PREFIX, announce_new_keys
from monitoring.measurement_store import open_alerts
from tests.activities.crossing import LINK, change, one
from tests.security.captured import Lie, signed
from tests.security.conftest import Attacked
from tests.security.test_captured_recovery import works


def list_of(attacked: Attacked, count: int, **more: object) -> bytes:
    """A key list that introduces so many keys of the attacker."""
    keys = attacked.captured.keys
    made = [Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex() for _ in range(count)]
    own = [{"public_key": each} | more for each in made]
    message = {"link": LINK, "network": "request", "own": own, "known": [], "key_id": keys.key_id}
    return signed(keys, KeyList.purpose, message | {"issued_at": datetime.now(UTC)})


async def alarms(attacked: Attacked) -> list[str]:
    async with attacked.world.networks.response.engine.connect() as connection:
        return [alert.name for alert in await open_alerts(connection, PREFIX)]


async def test_new_keys_are_few_announced_and_revoked_in_bulk(attacked: Attacked) -> None:
    side = attacked.world.networks.response
    live = LiveKeys(side.engine, Network.RESPONSE, side.keys_directory)
    exchange = KeyExchange(live, attacked.world.link, LINK, announce_new_keys)
    before = set((await _refreshed(live)).trusted)
    began = datetime.now(UTC) - timedelta(seconds=5)
    retiring = {"retires_at": (datetime.now(UTC) + timedelta(seconds=1)).isoformat()}
    for more in ({}, {}, retiring, {"revoked": True}):
        attacked.captured.answer("/link/v1/keys", lambda _, more=more: Lie(200, list_of(attacked, 5, **more)))  # type: ignore[misc]
        for _ in range(3):
            await exchange.once()
    assert len(set(live.trusted) - before) == MOST_NEW
    assert await one(side, "SELECT count(*) FROM link_keys WHERE introduced_by IS NOT NULL") == MOST_NEW
    assert len(await alarms(attacked)) == MOST_NEW
    assert len(await revoke_introduced(live, began)) == MOST_NEW
    assert set(live.trusted) == before
    async with side.engine.begin() as connection:
        await announce_new_keys(connection)
    assert await alarms(attacked) == []
    attacked.captured.liar = lambda _: None
    await exchange.once()
    await works(attacked.world)


async def test_a_rotation_is_still_possible_on_another_day(attacked: Attacked) -> None:
    side = attacked.world.networks.response
    live = LiveKeys(side.engine, Network.RESPONSE, side.keys_directory)
    exchange = KeyExchange(live, attacked.world.link, LINK)
    attacked.captured.answer("/link/v1/keys", lambda _: Lie(200, list_of(attacked, 9)))
    await exchange.once()
    await revoke_introduced(live, datetime.now(UTC) - timedelta(hours=1))
    await change(side, "UPDATE link_keys SET introduced_at = introduced_at - interval '2 days'")
    one_new = list_of(attacked, 1)
    attacked.captured.answer("/link/v1/keys", lambda _: Lie(200, one_new))
    await exchange.once()
    assert await one(side, "SELECT count(*) FROM link_keys WHERE introduced_by IS NOT NULL AND revoked_at IS NULL") == 1


async def _refreshed(live: LiveKeys) -> LiveKeys:
    await live.refresh()
    return live
