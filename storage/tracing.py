"""Where one request is, as each network's tables tell it."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import AnyRow, row, rows


async def trace_in_request_network(
    connection: AsyncConnection, request_id: UUID, user_id: UUID | None
) -> AnyRow | None:
    """Its request, group, result and both batches; of this user, or of anybody's where ``user_id`` is None."""
    return await row(
        connection,
        """
        SELECT requests.type, requests.submitted_at, requests.deadline_at, requests.closed, requests.closed_at,
               requests.epoch AS request_epoch, requests.sequence AS request_sequence,
               sealed.sealed_at, sealed.sent_at, sealed.delivered_at, outgoing_streams.applied AS applied_there,
               outgoing_streams.stopped AS sending_stopped, request_groups.started_at, request_groups.fulfilled_at,
               results.status, results.epoch AS result_epoch, results.sequence AS result_sequence,
               results.received_at AS result_at, results.body,
               come.received_at AS batch_received_at, come.applied_at AS batch_applied_at,
               come.manifest AS result_manifest,
               incoming_streams.stopped AS receiving_stopped,
               requests.callback_url IS NOT NULL AS wants_callback, requests.callback_at, requests.callback_lost
        FROM requests
        LEFT JOIN request_groups USING (epoch, sequence)
        LEFT JOIN sealed_batches AS sealed ON sealed.stream = 'requests' AND sealed.epoch = requests.epoch
             AND sealed.sequence = requests.sequence
        LEFT JOIN outgoing_streams ON outgoing_streams.stream = 'requests' AND outgoing_streams.epoch = requests.epoch
        LEFT JOIN results ON results.request_id = requests.request_id
        LEFT JOIN received_batches AS come ON come.stream = 'results' AND come.epoch = results.epoch
             AND come.sequence = results.sequence
        LEFT JOIN incoming_streams ON incoming_streams.stream = 'results'
        WHERE requests.request_id = :request_id
          AND (CAST(:user_id AS uuid) IS NULL OR requests.user_id = CAST(:user_id AS uuid))
        """,
        request_id=request_id,
        user_id=user_id,
    )


async def trace_in_response_network(connection: AsyncConnection, request_id: UUID) -> AnyRow | None:
    """Its request, batch and result; None where it has not been pulled, or is past retention."""
    return await row(
        connection,
        """
        SELECT requests.type, requests.submitted_at, requests.deadline_at,
               requests.epoch AS request_epoch, requests.sequence AS request_sequence,
               batch.received_at AS pulled_at, batch.applied_at AS executed_batch_at,
               requests.received_at AS opened_at, results.created_at AS executed_at, results.status, results.reason,
               results.duration_ms, cancellations.cancelled_at,
               (SELECT stopped FROM outgoing_streams WHERE stream = 'results') AS sending_stopped
        FROM requests
        LEFT JOIN received_batches AS batch ON batch.stream = 'requests' AND batch.epoch = requests.epoch
             AND batch.sequence = requests.sequence
        LEFT JOIN results USING (request_id)
        LEFT JOIN cancellations USING (request_id)
        WHERE requests.request_id = :request_id
        """,
        request_id=request_id,
    )


async def batches_sealed_from(connection: AsyncConnection, request_id: UUID, most: int) -> list[tuple[int, int]]:
    """Batches of results that may hold this request's: sealed after it was stored, oldest first."""
    found = await rows(
        connection,
        "SELECT epoch, sequence FROM sealed_batches WHERE stream = 'results' AND payload IS NOT NULL AND sealed_at >="
        " (SELECT created_at - interval '60 s' FROM results WHERE request_id = :request_id)"
        " ORDER BY epoch, sequence LIMIT :most",
        request_id=request_id,
        most=most,
    )
    return [(epoch, sequence) for epoch, sequence in found]


async def sealed_times(connection: AsyncConnection, epoch: int, sequence: int) -> AnyRow | None:
    """When a batch of results was sealed, first sent and acknowledged."""
    return await row(
        connection,
        "SELECT sealed_at, sent_at, delivered_at FROM sealed_batches"
        " WHERE stream = 'results' AND epoch = :epoch AND sequence = :sequence",
        epoch=epoch,
        sequence=sequence,
    )
