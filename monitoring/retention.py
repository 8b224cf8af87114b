"""Deletes what is past retention, but nothing that the other side has not confirmed or that a caller waits for."""

from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.transfer.quarantine_store import SHORTENED_BYTES
from models.streams import Network
from storage.database import execute

CHUNK = 10_000
"""Rows per statement, so that transactions stay short."""

# `:age` is the retention in seconds. Manifests are kept for ever: they are small, and they are the proof.
_EMPTY_SEALED = """
    UPDATE sealed_batches SET payload = NULL WHERE (stream, epoch, sequence) IN (
        SELECT stream, sealed_batches.epoch, sealed_batches.sequence
        FROM sealed_batches JOIN outgoing_streams USING (stream)
        WHERE payload IS NOT NULL AND (
            (delivered_at < now() - make_interval(secs => :age) AND (
                 sealed_batches.epoch < outgoing_streams.epoch OR sealed_batches.sequence <= outgoing_streams.applied))
            OR voided_at < now() - make_interval(secs => :age)) LIMIT :chunk)
"""
_EMPTY_RECEIVED = """
    UPDATE received_batches SET payload = NULL WHERE (stream, epoch, sequence) IN (
        SELECT stream, epoch, sequence FROM received_batches AS batch
        WHERE payload IS NOT NULL AND applied_at < now() - make_interval(secs => :age)
          AND NOT EXISTS (  -- the only place where the rest of a shortened record is
            SELECT FROM quarantined_records AS aside
            WHERE aside.stream = batch.stream AND aside.epoch = batch.epoch AND aside.sequence = batch.sequence
              AND applied_at IS NULL AND dropped_at IS NULL AND size > octet_length(body))
        LIMIT :chunk)
"""
_SHORTEN_SETTLED = """
    UPDATE quarantined_records SET body = substring(body FOR :shortened) WHERE (stream, epoch, record) IN (
        SELECT stream, epoch, record FROM quarantined_records
        WHERE octet_length(body) > :shortened
          AND coalesce(applied_at, dropped_at) < now() - make_interval(secs => :age) LIMIT :chunk)
"""

_DELETE_ALERTS = """
    DELETE FROM alerts WHERE alert_id IN (
        SELECT alert_id FROM alerts WHERE cleared_at < now() - make_interval(secs => :age) LIMIT :chunk)"""

_DELETE: dict[Network, dict[str, str]] = {
    Network.REQUEST: {
        "results": """
            DELETE FROM results WHERE request_id IN (
                SELECT request_id FROM request_groups JOIN requests USING (epoch, sequence)
                WHERE EXISTS (SELECT FROM results WHERE results.request_id = requests.request_id)
                  AND (callback_url IS NULL OR callback_at IS NOT NULL)
                  AND fulfilled_at < now() - make_interval(secs => :age) LIMIT :chunk)""",
        "requests": """
            DELETE FROM requests WHERE request_id IN (
                SELECT request_id FROM requests JOIN request_groups USING (epoch, sequence)
                WHERE fulfilled_at < now() - make_interval(secs => :age)
                  AND (callback_url IS NULL OR callback_at IS NOT NULL)
                  AND NOT EXISTS (SELECT FROM results WHERE results.request_id = requests.request_id) LIMIT :chunk)""",
        "idempotency_keys": """
            DELETE FROM idempotency_keys WHERE (user_id, key) IN (
                SELECT user_id, key FROM idempotency_keys
                WHERE created_at < now() - make_interval(secs => :age) LIMIT :chunk)""",
        "alerts": _DELETE_ALERTS,
    },
    Network.RESPONSE: {
        "results": """
            DELETE FROM results WHERE request_id IN (
                SELECT request_id FROM results WHERE created_at < least(
                    now() - make_interval(secs => :age),
                    (SELECT min(created_at) FROM outbox WHERE stream = 'results'),
                    (SELECT min(sealed_at) - interval '1 hour' FROM sealed_batches
                     WHERE stream = 'results' AND delivered_at IS NULL))
                  AND NOT EXISTS (
                    SELECT FROM requests JOIN received_batches AS batch
                        ON batch.stream = 'requests' AND batch.epoch = requests.epoch
                           AND batch.sequence = requests.sequence
                    WHERE requests.request_id = results.request_id
                      AND (applied_at IS NULL OR applied_at >= now() - make_interval(secs => :age)))
                LIMIT :chunk)""",
        "requests": """
            DELETE FROM requests WHERE request_id IN (
                SELECT request_id FROM requests JOIN received_batches AS batch
                    ON batch.stream = 'requests' AND batch.epoch = requests.epoch
                       AND batch.sequence = requests.sequence
                WHERE applied_at < now() - make_interval(secs => :age)
                  AND NOT EXISTS (SELECT FROM results WHERE results.request_id = requests.request_id) LIMIT :chunk)""",
        "cancellations": """
            DELETE FROM cancellations WHERE request_id IN (
                SELECT request_id FROM cancellations
                WHERE cancelled_at < now() - make_interval(secs => :age)
                  AND NOT EXISTS (SELECT FROM requests WHERE requests.request_id = cancellations.request_id)
                LIMIT :chunk)""",
        "measurements": """
            DELETE FROM measurements WHERE measured_at IN (
                SELECT measured_at FROM measurements
                WHERE measured_at < now() - make_interval(secs => :age) LIMIT :chunk)""",
        "alerts": _DELETE_ALERTS,
    },
}


def deletable(network: Network) -> tuple[str, ...]:
    """The tables of `delete_old`, in the order in which to call it."""
    return tuple(_DELETE[network])


async def empty_batches(connection: AsyncConnection, age_seconds: float) -> int:
    """Delete the payloads of up to two `CHUNK` old batches that were applied, on the other side or here, and shorten
    the bodies of up to `CHUNK` records whose quarantine ended long ago.
    """
    sealed = await execute(connection, _EMPTY_SEALED, age=age_seconds, chunk=CHUNK)
    await execute(connection, _SHORTEN_SETTLED, age=age_seconds, chunk=CHUNK, shortened=SHORTENED_BYTES)
    return sealed + await execute(connection, _EMPTY_RECEIVED, age=age_seconds, chunk=CHUNK)


async def delete_old(connection: AsyncConnection, network: Network, table: str, age_seconds: float) -> int:
    """Delete up to `CHUNK` finished, old rows of one table; returns how many."""
    return await execute(connection, _DELETE[network][table], age=age_seconds, chunk=CHUNK)
