"""Rows of a whole window of batches as one SHA-256, made by PostgreSQL: what agrees is then seen at one glance.

`exchange.audit.bulk_digests` makes the same of what the batches say. Each row gives the bytes of its id, then its fields at
fixed places, then a text and a line end; rows are in the order of their ids, which PostgreSQL and Python order alike.
"""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import row

_RESULT = "uuid_send(results.request_id) || sha256(results.body) || convert_to(results.status || E'\\n', 'UTF8')"
_REQUEST = (
    "uuid_send(request_id) || uuid_send(user_id) || sha256(params) || int2send(priority)"
    " || timestamptz_send(submitted_at) || coalesce(timestamptz_send(deadline_at), '-')"
    " || convert_to(type || E'\\n', 'UTF8')"
)


def _digest(line: str, order: str) -> str:
    return f"count(*), sha256(coalesce(string_agg({line}, ''::bytea ORDER BY {order}), ''))"


async def arrived_digest(connection: AsyncConnection, epoch: int, sequences: Sequence[int]) -> tuple[int, bytes, bool]:
    """Results in the request network that name these batches: how many, their digest, whether each owner is right."""
    found = await row(
        connection,
        f"""
        SELECT {_digest(_RESULT, "results.request_id")},
               coalesce(bool_and(requests.user_id IS NULL OR requests.user_id = results.user_id), true)
        FROM results LEFT JOIN requests ON requests.request_id = results.request_id
        WHERE results.epoch = :epoch
          AND results.sequence = ANY(CAST(:sequences AS bigint[]))
        """,
        epoch=epoch,
        sequences=list(sequences),
    )
    assert found is not None
    return found[0], found[1], found[2]


async def executed_digest(connection: AsyncConnection, ids: Sequence[str]) -> tuple[int, bytes]:
    """Results in the response network, of these requests: how many, and their digest."""
    found = await row(
        connection,
        f"SELECT {_digest(_RESULT, 'request_id')} FROM results WHERE request_id = ANY(CAST(:ids AS uuid[]))",
        ids=list(ids),
    )
    assert found is not None
    return found[0], found[1]


async def request_digest(connection: AsyncConnection, epoch: int, sequences: Sequence[int]) -> tuple[int, bytes]:
    """Requests, in either network, that name these batches: how many, and their digest."""
    found = await row(
        connection,
        f"SELECT {_digest(_REQUEST, 'request_id')} FROM requests"
        " WHERE epoch = :epoch AND sequence = ANY(CAST(:sequences AS bigint[]))",
        epoch=epoch,
        sequences=list(sequences),
    )
    assert found is not None
    return found[0], found[1]
