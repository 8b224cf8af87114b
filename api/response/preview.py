"""The bytes that would cross the link now, made by the functions that feed the sealing."""

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.monitoring import health_records
from exchange.transfer.outgoing import take_from_outbox
from exchange.wire.manifest import MAX_RAW_BYTES, MAX_RECORDS
from models.errors import NotFound
from models.streams import Network, StreamName
from monitoring.measurement_store import open_alerts, recent_measurements
from settings.snapshot import public_records

MEDIA_TYPE = "application/x-ndjson"
PREVIEWED = [stream for stream in StreamName if stream.sender is Network.RESPONSE]


async def preview(connection: AsyncConnection, stream: StreamName) -> bytes:
    """The payload of the next batch of a stream before compression: NDJSON, one record per line.

    ``settings``: the whole snapshot. ``results``: the records that the next batch would take. ``health``: the public
    part of the newest measurement, empty if there is none. Raises `NotFound` for a stream that does not leave this
    network.
    """
    match stream:
        case StreamName.SETTINGS:
            records = await public_records(connection)
        case StreamName.RESULTS:
            savepoint = await connection.begin_nested()
            records = (await take_from_outbox(connection, stream, MAX_RECORDS, MAX_RAW_BYTES)).records
            await savepoint.rollback()  # the records stay in the outbox
        case StreamName.HEALTH:
            newest = await recent_measurements(connection, 1)
            records = health_records(newest[0], await open_alerts(connection)) if newest else []
        case StreamName.REQUESTS:
            raise NotFound(f"The {stream} stream is received here. Streams with a preview: {', '.join(PREVIEWED)}")
    return b"".join(record + b"\n" for record in records)
