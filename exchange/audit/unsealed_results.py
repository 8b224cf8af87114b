"""Results of the response network that are neither in a batch nor in the outbox: nobody would ever see them."""

from collections.abc import Sequence
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.audit.digests import results_digest
from exchange.audit.row_checks import result_named
from exchange.audit.stored_rows import BatchRow, batch_rows, newest_stored
from exchange.concurrency import in_thread_if_large
from exchange.errors import Malformed
from exchange.transfer.outgoing import outgoing_stream
from exchange.wire.batch import unpack
from exchange.wire.manifest import Manifest
from models.streams import Network, StreamName
from storage.database import execute, rows

OUTBOX_PAGE = 500


async def unsealed_results(connection: AsyncConnection, most: int) -> list[UUID]:
    """Collect the ids of all sealed and waiting results in a temporary table, then select the results that are not in
    it. The caller's transaction is `repeatable_read`.

    Results older than a batch whose payload is past retention are left out, since its ids are unknown. If a batch is
    missing or cannot be read, the list is empty: restore the batch first.
    """
    await execute(connection, "CREATE TEMPORARY TABLE sealed_ids (request_id uuid NOT NULL) ON COMMIT DROP")
    head = await outgoing_stream(connection, StreamName.RESULTS)
    newest = await newest_stored(connection, Network.RESPONSE, StreamName.RESULTS)
    for epoch, through in sorted((newest | {head.epoch: head.sequence}).items()):
        if not await _add_epoch(connection, epoch, through):
            return []
    last = 0
    while waiting := await rows(
        connection,
        "SELECT id, body FROM outbox WHERE stream = 'results' AND id > :last ORDER BY id LIMIT :most",
        last=last,
        most=OUTBOX_PAGE,
    ):
        await _add(connection, [str(named[0]) for _, body in waiting if (named := result_named(body))])
        last = waiting[-1][0]
    await execute(connection, "ANALYZE sealed_ids")  # otherwise the plan is made for a few ids
    found = await rows(
        connection,
        """
        SELECT request_id FROM results
        WHERE NOT EXISTS (SELECT FROM sealed_ids WHERE sealed_ids.request_id = results.request_id)
          AND created_at > coalesce((SELECT max(sealed_at) + interval '1 hour' FROM sealed_batches
                                     WHERE stream = 'results' AND payload IS NULL), '-infinity')
        ORDER BY request_id LIMIT :most
        """,  # an hour, because the worker's clock times batches and the database's clock rows
        most=most,
    )
    return [UUID(str(item)) for (item,) in found]


async def _add_epoch(connection: AsyncConnection, epoch: int, through: int) -> bool:
    """Add the ids of an epoch's batches. Returns False if one is missing or cannot be read."""
    sequence = 0
    while page := await batch_rows(connection, Network.RESPONSE, StreamName.RESULTS, epoch, sequence + 1, through):
        for batch in page:
            if batch.sequence != sequence + 1:
                return False
            sequence = batch.sequence
            if batch.payload is not None:
                ids = await in_thread_if_large(len(batch.payload), _ids, batch, batch.payload)
                if ids is None:
                    return False
                await _add(connection, ids)
    return sequence == through


def _ids(batch: BatchRow, payload: bytes) -> list[str] | None:
    """The requests whose results a batch holds; None if the payload does not match the manifest."""
    try:
        lines = unpack(Manifest.model_validate_json(batch.manifest), payload)
    except (ValidationError, Malformed):
        return None
    read = results_digest(lines)
    return read.ids if read else [str(named[0]) for line in lines if (named := result_named(line))]


async def _add(connection: AsyncConnection, ids: Sequence[str]) -> None:
    if ids:
        await execute(connection, "INSERT INTO sealed_ids SELECT * FROM unnest(CAST(:ids AS uuid[]))", ids=list(ids))
