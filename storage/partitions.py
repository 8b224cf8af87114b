"""Partitions of the log streams: which are in use here, and how SQL names the stream of a row's batch."""

from sqlalchemy.ext.asyncio import AsyncConnection

from models.streams import StreamName, in_order
from storage.database import execute, rows
from storage.outgoing import outgoing_stream

RESULTS_STREAMS = ", ".join(f"'{stream}'" for stream in StreamName.RESULTS.partitions())
"""For ``stream IN (…)``: every partition that there may be."""


def stream_of(kind: StreamName, column: str) -> str:
    """SQL for the name of the stream that is partition ``column`` of this kind."""
    return f"CASE {column} WHEN 0 THEN '{kind}' ELSE '{kind}.' || {column} END"


async def streams_in_use(connection: AsyncConnection) -> list[StreamName]:
    """The four streams, and the partitions that have been used here: sealed, received, or asked for.

    What was in use once stays so: its batches are to be seen, verified and, if need be, repaired like all others.
    """
    found = await rows(connection, "SELECT stream FROM outgoing_streams UNION SELECT stream FROM incoming_streams")
    return in_order([*StreamName, *(StreamName(name) for (name,) in found)])


async def partitions_in_use(connection: AsyncConnection, kind: StreamName) -> list[StreamName]:
    """Those of one log stream."""
    return [stream for stream in await streams_in_use(connection) if stream.kind is kind]


async def places_in_use(connection: AsyncConnection) -> list[tuple[StreamName, int, int]]:
    """Each stream that has been used here with its epoch and its newest batch, sealed or received."""
    found = await rows(
        connection,
        "SELECT stream, epoch, sequence FROM outgoing_streams"
        " UNION ALL SELECT stream, epoch, sequence FROM incoming_streams ORDER BY stream",
    )
    return [(StreamName(stream), epoch, sequence) for stream, epoch, sequence in found]


async def begin_partitions(connection: AsyncConnection, kind: StreamName, count: int) -> int:
    """Bring the first ``count`` partitions of a stream that is sent from here into use; gives how many are now."""
    for stream in kind.partitions(count)[1:]:
        await outgoing_stream(connection, stream)
    return 1 + max(stream.number for stream in await partitions_in_use(connection, kind))


async def record_sealed_there(connection: AsyncConnection, stream: StreamName, sequence: int) -> None:
    """How far the sender of a partition says that it is, where nobody here pulls it: for the alarm."""
    await execute(
        connection,
        "UPDATE incoming_streams SET sender_head = :sequence WHERE stream = :stream AND sender_head < :sequence",
        stream=stream,
        sequence=sequence,
    )
