"""SQL of tracing one request through each network's tables."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from models.streams import BatchRef, StreamName
from storage.database import AnyRow, row, rows


async def trace_in_request_network(
    connection: AsyncConnection, request_id: UUID, user_id: UUID | None
) -> AnyRow | None:
    """The request, its group, result and both batches. With ``user_id``, only if the request is that user's."""
    return await row(
        connection,
        """
        SELECT requests.submitted_at, requests.closed, requests.closed_at,
               requests.epoch AS request_epoch, requests.sequence AS request_sequence,
               sealed.sealed_at, sealed.sent_at, sealed.delivered_at,
               CASE WHEN outgoing_streams.epoch = requests.epoch THEN outgoing_streams.applied END AS applied_there,
               outgoing_streams.stopped AS sending_stopped,
               results.status, results.epoch AS result_epoch, results.sequence AS result_sequence,
               results.received_at AS result_at, results.first_read_at, results.body,
               come.received_at AS batch_received_at, come.manifest AS result_manifest, sealed.voided_at,
               (SELECT min(stopped) FROM incoming_streams WHERE stream = 'results') AS receiving_stopped,
               requests.callback_url IS NOT NULL AS wants_callback, requests.callback_at, requests.callback_lost
        FROM requests
        LEFT JOIN sealed_batches AS sealed ON sealed.stream = 'requests' AND sealed.epoch = requests.epoch
             AND sealed.sequence = requests.sequence
        LEFT JOIN outgoing_streams ON outgoing_streams.stream = 'requests'
        LEFT JOIN results ON results.request_id = requests.request_id
        LEFT JOIN received_batches AS come ON come.stream = 'results' AND come.epoch = results.epoch
             AND come.sequence = results.sequence
        WHERE requests.request_id = :request_id
          AND (CAST(:user_id AS uuid) IS NULL OR requests.user_id = CAST(:user_id AS uuid))
        """,
        request_id=request_id,
        user_id=user_id,
    )


async def quarantined_about(connection: AsyncConnection, stream: StreamName, request_id: UUID) -> AnyRow | None:
    """The newest record in quarantine that contains this request's id."""
    return await row(
        connection,
        """
        SELECT stream, epoch, sequence, record, reason, quarantined_at, dropped_at, drop_reason FROM quarantined_records
        WHERE stream = :stream AND applied_at IS NULL
          AND position(CAST(:needle AS bytea) IN body) > 0
        ORDER BY quarantined_at DESC, epoch DESC, record DESC LIMIT 1
        """,
        stream=stream,
        needle=str(request_id).encode(),
    )


async def trace_in_response_network(connection: AsyncConnection, request_id: UUID) -> AnyRow | None:
    """The request, its batch and result; None if it was not pulled or is past retention."""
    return await row(
        connection,
        """
        SELECT requests.epoch AS request_epoch, requests.sequence AS request_sequence,
               batch.received_at AS pulled_at, requests.received_at AS opened_at,
               results.created_at AS executed_at, results.status, results.reason, cancellations.cancelled_at,
               (SELECT min(stopped) FROM outgoing_streams WHERE stream = 'results') AS sending_stopped
        FROM requests
        LEFT JOIN received_batches AS batch ON batch.stream = 'requests' AND batch.epoch = requests.epoch
             AND batch.sequence = requests.sequence
        LEFT JOIN results USING (request_id)
        LEFT JOIN cancellations USING (request_id)
        WHERE requests.request_id = :request_id
        """,
        request_id=request_id,
    )


async def batches_sealed_from(connection: AsyncConnection, request_id: UUID, most: int) -> list[BatchRef]:
    """Batches of results that may hold this request's result: sealed after it was stored, oldest first."""
    found = await rows(
        connection,
        "SELECT epoch, sequence FROM sealed_batches"
        " WHERE stream = 'results' AND payload IS NOT NULL AND voided_at IS NULL AND sealed_at >="
        " (SELECT created_at - interval '60 s' FROM results WHERE request_id = :request_id)"
        " ORDER BY epoch, sequence LIMIT :most",
        request_id=request_id,
        most=most,
    )
    return [BatchRef(stream=StreamName.RESULTS, epoch=epoch, sequence=sequence) for epoch, sequence in found]


async def sealed_times(connection: AsyncConnection, batch: BatchRef) -> AnyRow | None:
    """When a batch was sealed, first sent, delivered, and made void by a new epoch."""
    return await row(
        connection,
        "SELECT sealed_at, sent_at, delivered_at, voided_at FROM sealed_batches"
        " WHERE stream = :stream AND epoch = :epoch AND sequence = :sequence",
        stream=batch.stream,
        epoch=batch.epoch,
        sequence=batch.sequence,
    )
