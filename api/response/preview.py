"""What would cross the link now, byte for byte: made by the very functions that feed the sealing."""

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.monitoring import health_records
from exchange.wire.manifest import MAX_RAW_BYTES, MAX_RECORDS
from execution.catalog import public_records
from models.errors import NotFound
from models.streams import Network, StreamName
from monitoring.measurement_store import open_alerts, recent_measurements
from people.operations import preview_next_batch

MEDIA_TYPE = "application/x-ndjson"
PREVIEWED = [stream for stream in StreamName if stream.sender is Network.RESPONSE]


async def preview(connection: AsyncConnection, stream: StreamName) -> bytes:
    """The raw payload of the next batch of a stream, before compression: NDJSON, a record a line.

    ``settings`` is the whole snapshot, ``results`` what the next batch would take, ``health`` what is public of the
    newest measurement; nothing where there is none. Raises `NotFound` for a stream that does not leave this network.
    """
    match stream:
        case StreamName.SETTINGS:
            records = await public_records(connection)
        case StreamName.RESULTS:
            records = await preview_next_batch(connection, stream, MAX_RECORDS, MAX_RAW_BYTES)
        case StreamName.HEALTH:
            newest = await recent_measurements(connection, 1)
            records = health_records(newest[0], await open_alerts(connection)) if newest else []
        case StreamName.REQUESTS:
            raise NotFound(f"The {stream} stream comes in here; there are previews of {', '.join(PREVIEWED)}")
    return b"".join(record + b"\n" for record in records)
