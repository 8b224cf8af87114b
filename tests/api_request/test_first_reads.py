"""Recording first reads costs no more when the tables have grown since its statement was planned."""

from fulfilment.first_reads import FirstReads
from storage.database import connect, execute, value
from tests.activities.crossing import USER, change, new_id, one
from tests.conftest import Networks

RESULTS = 20_000
READ = 1_000


async def test_a_plan_made_for_small_tables_does_not_scan_large_ones_for_each_result(networks: Networks) -> None:
    """The driver keeps its prepared statements, and a new table has no statistics until it is analyzed."""
    side = networks.request
    engine = connect(side.url, 1)  # one connection, whose counters are reported below
    reads = FirstReads(engine)
    for _ in range(10):  # PostgreSQL decides on a generic plan after five
        reads.record(new_id())
        await reads.flush()
    await change(
        side,
        "INSERT INTO requests (request_id, user_id, type, priority, params, submitted_at, epoch, sequence)"
        " SELECT gen_random_uuid(), :user, 'rows', 5, '{}', now(), 1, 1 FROM generate_series(1, :many)",
        user=USER,
        many=RESULTS,
    )
    await change(
        side,
        "INSERT INTO results (request_id, user_id, status, body, epoch, sequence)"
        " SELECT request_id, user_id, 'completed', '', 1, 1 FROM requests",
    )
    async with side.engine.connect() as connection:
        ids = await value(
            connection, f"SELECT array_agg(request_id) FROM (SELECT request_id FROM results LIMIT {READ})"
        )

    async def scanned() -> int:
        async with engine.connect() as connection:
            await execute(connection, "SELECT pg_stat_force_next_flush()")
        return int(
            await one(
                side, "SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname IN ('requests', 'results')"
            )
        )

    before = await scanned()
    for request_id in ids:
        reads.record(request_id)
    await reads.flush()
    assert await one(side, "SELECT count(*) FROM results WHERE first_read_at IS NOT NULL") == READ
    assert await scanned() - before <= 10 * RESULTS, "a few scans of a table at most"
    await engine.dispose()
