"""Nothing costs more than in the last release, and the comparison that says so is right."""

import asyncio
import dataclasses
import json
import sys
from pathlib import Path

import asyncpg
import pytest

from bench.counts.allocations import allocated
from bench.counts.baseline import Baseline, Measured, compare
from bench.counts.clocks import ATTENDING, PERIODIC, replaced
from bench.counts.counting import Count
from bench.counts.wire import counting_statements
from configuration.home import CLONE
from storage.database import connect, value
from tests.conftest import Networks

STEP = "bulk.deliver.response"


async def run(*arguments: str) -> tuple[int, str]:
    """Exit code and output, of a process of its own, because it changes module constants."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.counts", *arguments),
        cwd=CLONE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_nothing_costs_more_than_in_the_last_release() -> None:
    code, said = await run()
    assert code == 0, said


def baseline(**counts: Count) -> Baseline:
    """A baseline of these counts, and of two statements of the step."""
    told = {STEP: {"SELECT now()": 2, "SELECT old": 1}}
    return Baseline("0.0.9", "any", {f"{STEP}.{name}": count for name, count in counts.items()}, told, {})


def measured(told: dict[str, int] | None = None, **counts: Count) -> Measured:
    """Present counts."""
    return Measured({f"{STEP}.{name}": count for name, count in counts.items()}, {STEP: told or {}})


def test_an_exact_count_that_grows_by_one_is_named_with_both_figures_and_what_to_do() -> None:
    (complaint,) = compare(
        measured({"SELECT now()": 2, "SELECT 1": 2}, statements=Count(32, "for 8,000 records")),
        baseline(statements=Count(31, "for 8,000 records")),
    ).complaints
    assert complaint.startswith(f"{STEP}.statements: 32 for 8,000 records, in 0.0.9 it was 31; it may not grow.")
    assert '--record --because "…"' in complaint
    assert complaint.splitlines()[1:] == ["    +2x SELECT 1", "    -1x SELECT old"]


@pytest.mark.parametrize(("now", "grew", "shrank"), [(101.9, 0, 0), (102.1, 1, 0), (98.1, 0, 0), (97.9, 0, 1)])
def test_a_count_with_a_tolerance_may_differ_by_that_much(now: float, grew: int, shrank: int) -> None:
    found = compare(measured(wal=Count(now, "bytes", 0.02)), baseline(wal=Count(100, "bytes", 0.02)))
    assert (len(found.complaints), len(found.can_be_lowered)) == (grew, shrank)


def test_what_shrinks_is_no_complaint_and_says_that_the_baseline_can_be_lowered() -> None:
    found = compare(measured(statements=Count(30, "")), baseline(statements=Count(31, "")))
    assert not found.complaints
    assert "can be lowered" in found.can_be_lowered[0]


def test_a_count_that_is_new_or_gone_is_a_complaint() -> None:
    found = compare(measured(new=Count(1, "")), baseline(gone=Count(1, "")))
    assert [complaint.split(" ")[0] for complaint in found.complaints] == [f"{STEP}.gone", f"{STEP}.new"]


def test_without_a_baseline_the_check_fails() -> None:
    assert compare(measured(), None).complaints


def test_what_is_recorded_is_read_again_with_the_reasons(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    name = f"{STEP}.statements"
    now = measured({"SELECT 1": 1}, statements=Count(31, "for 8,000 records"), wal=Count(1.5, "bytes", 0.03))
    path.write_text(json.dumps(now.to_json({name: "receipts are stored"})))
    found = Baseline.read(path)
    assert found is not None
    assert (found.counts, found.because) == (now.counts, {name: "receipts are stored"})
    assert not compare(now, found).complaints
    more = dataclasses.replace(now.counts[name], value=32)
    assert compare(Measured(now.counts | {name: more}, now.statements), found).grew == [name]


def test_the_recorded_counts_are_of_every_kind() -> None:
    found = Baseline.read()
    assert found is not None
    kinds = {name.rpartition(".")[2] for name in found.counts}
    assert {"statements", "round_trips", "commits", "wal", "tables", "link_calls", "link_bytes"} <= kinds
    assert {"actions", "events", "peak", "objects", "manifest", "payload", "rows_inserted"} <= kinds


async def test_every_round_trip_is_counted_and_one_more_statement_is_seen(networks: Networks) -> None:
    with counting_statements() as statements:
        engine = connect(networks.request.url, 1)
        async with engine.begin() as connection:  # makes the connection, and asks what is asked once
            await value(connection, "SELECT 1")
        told = statements.told.copy()
        async with engine.begin() as connection:
            await value(connection, "SELECT 1")
            await value(connection, "SELECT 1")
        (tally,) = statements.since(told).values()
        await engine.dispose()
    assert (tally.told, tally.commits) == (2, 1)
    assert tally.statements == {"SELECT 1": 2}
    assert tally.round_trips == 4, "two statements, BEGIN and COMMIT, and nothing that the pool asks by itself"
    assert statements.in_flight == 0


async def test_a_copy_past_sqlalchemy_is_counted_and_the_measurement_itself_is_not(networks: Networks) -> None:
    with counting_statements() as statements:
        own = await asyncpg.connect(networks.request.url, server_settings={"application_name": "counts"})
        await own.execute("CREATE TEMPORARY TABLE numbers (n integer)")
        await own.close()
        assert not statements.told
        other = await asyncpg.connect(networks.request.url)
        async with other.transaction():
            await other.execute("CREATE TEMPORARY TABLE numbers (n integer)")
            await other.copy_records_to_table("numbers", records=[(1,), (2,)])
        await other.close()
    (tally,) = statements.since(type(statements.told)()).values()
    assert [statement.split(" ")[0] for statement in tally.statements] == ["CREATE", "COPY"]


def test_allocations_are_counted_by_what_is_kept_and_by_the_peak() -> None:
    blocks, peak = allocated(lambda: [object() for _ in range(1000)])
    assert 1000 <= blocks <= 1010
    assert 16_000 <= peak <= 40_000


def test_periodic_work_is_postponed_for_the_block() -> None:
    constants = [*PERIODIC, *ATTENDING]
    before = [getattr(module, name) for module, name, _ in constants]
    with replaced(constants):
        assert [getattr(module, name) for module, name, _ in constants] == [later for _, _, later in constants]
    assert [getattr(module, name) for module, name, _ in constants] == before
