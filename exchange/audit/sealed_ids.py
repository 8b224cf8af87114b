"""Results of the response network that neither a batch nor the outbox holds: nobody would ever see them."""

import asyncio
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.audit.bulk_digests import results_digest
from exchange.audit.kept_rows import KeptBatch, kept_batches, newest_stored
from exchange.audit.row_checks import result_named
from exchange.audit.unsealed_results import add_sealed_ids, create_sealed_ids, find_unsealed, results_waiting_after
from exchange.errors import Malformed
from exchange.transfer.outgoing import outgoing_stream
from exchange.wire.batch import unpack
from exchange.wire.manifest import Manifest
from models.streams import Network, StreamName

OUTBOX_PAGE = 500


async def unsealed_results(connection: AsyncConnection, most: int) -> list[UUID]:
    """Gather the ids of all sealed and waiting results in a temporary table, a few batches at a time, then ask what
    it lacks; in the caller's transaction, which sees one moment.

    Results that may belong to a batch whose payload is past retention are left out: their ids are not known. Where a
    batch is missing or cannot be read, nothing is known of any: restore that first.
    """
    await create_sealed_ids(connection)
    head = await outgoing_stream(connection, StreamName.RESULTS)
    newest = await newest_stored(connection, Network.RESPONSE, StreamName.RESULTS)
    for epoch, through in sorted((newest | {head.epoch: head.sequence}).items()):
        if not await _gather_epoch(connection, epoch, through):
            return []
    last = 0
    while waiting := await results_waiting_after(connection, last, OUTBOX_PAGE):
        await add_sealed_ids(connection, [str(named[0]) for _, body in waiting if (named := result_named(body))])
        last = waiting[-1][0]
    return await find_unsealed(connection, most)


async def _gather_epoch(connection: AsyncConnection, epoch: int, through: int) -> bool:
    """Whether every batch is there and could be read, or is past retention."""
    sequence = 0
    while page := await kept_batches(connection, Network.RESPONSE, StreamName.RESULTS, epoch, sequence + 1, through):
        for batch in page:
            if batch.sequence != sequence + 1:
                return False
            sequence = batch.sequence
            if batch.payload is not None:
                ids = await asyncio.to_thread(_ids, batch)
                if ids is None:
                    return False
                await add_sealed_ids(connection, ids)
    return sequence == through


def _ids(batch: KeptBatch) -> list[str] | None:
    """Whose results a batch holds; None where its payload is not what its manifest says."""
    try:
        lines = unpack(Manifest.model_validate_json(batch.manifest), batch.payload or b"")
    except (ValidationError, Malformed):
        return None
    read = results_digest(lines)
    return read.ids if read else [str(named[0]) for line in lines if (named := result_named(line))]
