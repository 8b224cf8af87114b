"""Results of the response network that neither a batch nor the outbox holds: nobody would ever see them."""

from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncEngine

from exchange.batch import unpack
from exchange.errors import Malformed
from exchange.expectations import result_named
from exchange.manifest import Manifest
from models.streams import Network, StreamName
from storage.explaining import add_explained, begin_explaining, outbox_after, unexplained
from storage.outgoing import outgoing_stream
from storage.verification import kept_batches, one_moment

STREAM = StreamName.RESULTS
OUTBOX_PAGE = 500


async def unsealed_results(engine: AsyncEngine, most: int) -> list[UUID]:
    """Gather the ids of all sealed and waiting results in a temporary table, a few batches at a time, then ask what
    it lacks; all in one moment.

    Results that may belong to a batch whose payload is past retention, or cannot be read, are left out: their ids are
    not known.
    """
    async with one_moment(engine) as connection:
        await begin_explaining(connection)
        head = await outgoing_stream(connection, STREAM)
        sequence, unreadable = 0, False
        while page := await kept_batches(connection, Network.RESPONSE, STREAM, head.epoch, sequence + 1, head.sequence):
            for batch in page:
                if batch.payload is not None:
                    try:
                        lines = unpack(Manifest.model_validate_json(batch.manifest), batch.payload)
                    except (ValidationError, Malformed):
                        unreadable = True
                        continue
                    await add_explained(connection, [named[0] for line in lines if (named := result_named(line))])
            sequence = page[-1].sequence
        last = 0
        while waiting := await outbox_after(connection, STREAM, last, OUTBOX_PAGE):
            await add_explained(connection, [named[0] for _, body in waiting if (named := result_named(body))])
            last = waiting[-1][0]
        return [] if unreadable else await unexplained(connection, STREAM, most)
