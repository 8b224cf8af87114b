"""The alarm of a new key: the other network has introduced one over the link. A rotation does, and so would a thief."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.link_keys.lists import NEW_SECONDS
from exchange.link_keys.store import StoredKey, link_keys
from models.streams import Network
from monitoring.measurement_store import open_alerts, settle_alerts

PREFIX = "link-key-new:"


def judge_keys(stored: Iterable[StoredKey], network: Network) -> dict[str, str]:
    """The alarms that the keys of the other network raise for a day, as name → message; none once a key is revoked."""
    since = datetime.now(UTC) - timedelta(seconds=NEW_SECONDS)
    return {
        f"{PREFIX}{key.key_id}": (
            f"the {key.owner} network introduced key {key.key_id} at {key.introduced_at.astimezone(UTC):%F %T}Z; key"
            f" {key.introduced_by} vouched for it. If nobody rotated there, its key is stolen: airlock keys retire"
            f" {key.key_id}, or all of them with --introduced-since"
        )
        for key in stored
        if key.owner is not network and key.introduced_by and key.revoked_at is None and key.introduced_at > since
    }


async def announce_new_keys(connection: AsyncConnection) -> None:
    """Raise and clear the alarms of keys in the response network now, before the next measurement does."""
    wanted = judge_keys((await link_keys(connection)).values(), Network.RESPONSE)
    present = {alert.name for alert in await open_alerts(connection, PREFIX)}
    await settle_alerts(connection, wanted, present | wanted.keys())
