"""Proof, repair and new epochs, partition by partition; and where a request's way is told."""

from pathlib import Path
from uuid import UUID

import pytest

from exchange.auditing import Auditor
from exchange.custody import joined, local_trace, remote_trace, result_batch_of
from exchange.epoch_ordering import EpochOrdering
from exchange.errors import Fork
from exchange.local_side import LocalSide
from exchange.remote_side import RemoteSide
from exchange.repair import repair_differences
from exchange.row_checks import RowChecks
from exchange.sealing import Sealer
from exchange.summaries import RepairableSide
from exchange.summary_file import SummaryFile, write_summary
from exchange.verification import Verifier
from models.streams import Network, StreamName, in_order
from storage.orphans import put_row_back, rows_set_aside
from tests.activities.crossing import LINK, change, new_id, one, table
from tests.partitions.world import REQUESTS, RESULTS, USERS, PartitionedWorld
from tests.verification.world import RETENTION, found


async def answered(world: PartitionedWorld, count: int = 2) -> dict[int, list[UUID]]:
    """Requests of each partition's user that have gone all the way."""
    asked = await world.all_asked(count)
    await world.carry_on()
    return {number: asked[user] for number, user in enumerate(USERS)}


async def mend(world: PartitionedWorld) -> set[tuple[str, str, str, str]]:
    """What is left after a repair."""
    side = world.networks.response
    near = LocalSide(side.engine, Network.RESPONSE, RETENTION, side.keys)
    sides: dict[Network, RepairableSide] = {Network.RESPONSE: near, Network.REQUEST: RemoteSide(world.link)}
    reports, _ = await repair_differences(world.verifier, sides, await world.verify())
    return found(reports)


async def test_every_partition_is_verified_by_itself(world: PartitionedWorld) -> None:
    await answered(world)
    reports = {report.stream: report for report in await world.verify()}
    assert set(reports) == {*StreamName, *REQUESTS.partitions(4), *RESULTS.partitions(4)}
    for stream in (*REQUESTS.partitions(4), *RESULTS.partitions(4)):
        assert [audit.agree for audit in reports[stream].audits.values()] == [2, 2], stream
    assert found(list(reports.values())) == set()


@pytest.mark.parametrize("network", ["request", "response"])
@pytest.mark.parametrize("rows", ["requests", "results"])
async def test_a_removed_row_is_named_in_its_partition_and_repaired(
    world: PartitionedWorld, network: str, rows: str
) -> None:
    asked = await answered(world)
    side = world.networks.request if network == "request" else world.networks.response
    await change(side, f"DELETE FROM {rows} WHERE request_id = :id", id=asked[3][0])
    reports = await world.verify()
    assert found(reports) == {(network, rows, "missing", str(asked[3][0]))}
    assert [report.stream for report in reports if not report.agrees] == [StreamName(rows).at(3)]
    assert await mend(world) == set()


async def test_what_agrees_is_seen_at_one_glance_in_every_partition(
    world: PartitionedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await answered(world)

    async def one_by_one(*_: object) -> None:
        raise AssertionError("the digest of a partition's window took in rows of another one")

    monkeypatch.setattr(RowChecks, "_results", one_by_one)
    monkeypatch.setattr(RowChecks, "_requests", one_by_one)
    assert found(await world.verify()) == set()


async def test_a_row_that_names_a_batch_of_another_partition_is_extra_there(world: PartitionedWorld) -> None:
    asked = await answered(world)
    await change(world.networks.request, "UPDATE results SET partition = 2 WHERE request_id = :id", id=asked[1][0])
    differing = {report.stream for report in await world.verify() if not report.agrees}
    assert differing == {RESULTS.at(2)}, "the batch that it names there does not hold it"
    await change(world.networks.request, "UPDATE results SET partition = 1 WHERE request_id = :id", id=asked[1][0])
    assert found(await world.verify()) == set()


async def test_a_row_of_no_batch_is_named_in_its_partition(world: PartitionedWorld) -> None:
    await answered(world)
    stranger = new_id()
    await change(
        world.networks.request,
        "INSERT INTO results (request_id, user_id, status, body, partition, epoch, sequence)"
        " VALUES (:id, :id, 'completed', '{}', 3, 1, 77)",
        id=stranger,
    )
    reports = await world.verify()
    assert found(reports) == {("request", "results", "extra", str(stranger))}
    assert [report.stream for report in reports if not report.agrees] == [RESULTS.at(3)]


async def test_a_result_that_no_partition_sealed_is_named_once(world: PartitionedWorld) -> None:
    await answered(world)
    stranger = new_id()
    await change(
        world.networks.response,
        "INSERT INTO results (request_id, type, status, returned, body) VALUES (:id, 'rows', 'completed', 0, '{}')",
        id=stranger,
    )
    reports = await world.verify()
    assert found(reports) == {("response", "results", "extra", str(stranger))}
    assert [report.stream for report in reports if not report.agrees] == [RESULTS]


async def test_a_batch_lost_in_one_partition_comes_back_from_the_other_side(world: PartitionedWorld) -> None:
    await answered(world)
    await change(world.networks.request, "DELETE FROM received_batches WHERE stream = 'results.2'")
    assert found(await world.verify()) == {("request", "received_batches", "missing", "1")}
    assert await mend(world) == set()


async def test_partitions_that_only_one_side_has_used_agree_as_far_as_they_go(
    world: PartitionedWorld, tmp_path: Path
) -> None:
    await world.ask(USERS[3])  # sealed, and nobody pulls it
    reports = {report.stream: report for report in await world.verify()}
    assert (reports[REQUESTS.at(3)].agrees, reports[REQUESTS.at(3)].in_flight) == (True, 1)
    await change(world.networks.response, "DELETE FROM incoming_streams WHERE stream = 'requests.3'")
    files = []
    for network, side in ((Network.REQUEST, world.networks.request), (Network.RESPONSE, world.networks.response)):
        auditor = Auditor(side.engine, network, RETENTION)
        streams = in_order([*StreamName, *(each.stream for each in (await auditor.streams()).streams)])
        file = tmp_path / f"{network}.ndjson"
        with file.open("w") as written:
            assert await write_summary(auditor, side.keys, LINK, streams, written.write, lambda *_: None)
        files.append(SummaryFile.open(file))
    every = in_order([*files[0].heads, *files[1].heads])
    assert REQUESTS.at(3) in files[0].heads
    assert REQUESTS.at(3) not in files[1].heads
    offline = await Verifier({side.network: side for side in files}).verify(every)
    assert all(report.agrees for report in offline)


async def test_a_new_epoch_of_one_partition_lets_it_go_on_and_touches_no_other(world: PartitionedWorld) -> None:
    await answered(world)
    await change(
        world.networks.request, "UPDATE incoming_streams SET hash = :o WHERE stream = 'results.3'", o=bytes([9] * 32)
    )
    asked = await world.all_asked()
    for stream in REQUESTS.partitions(4):
        await world.pulled(stream)
    with pytest.raises(Fork):
        await world.delivery.drain(RESULTS.at(3), lambda _: None)
    side = world.networks.response
    near = Auditor(side.engine, Network.RESPONSE, RETENTION)
    ordering = EpochOrdering(side.engine, near, RemoteSide(world.link), Sealer(side.keys, LINK))
    outcome = await ordering.order(RESULTS.at(3), "a test", "tests")
    assert (outcome.stream, outcome.epoch, outcome.resealed) == (RESULTS.at(3), 2, 1)
    await world.carry_on()
    for user, ids in asked.items():
        assert await world.statuses(user, ids) == ["completed"]
    assert await table(side, "SELECT stream, epoch FROM outgoing_streams WHERE epoch > 1") == [("results.3", 2)]
    assert await one(world.networks.request, "SELECT count(*) FROM quarantined_records") == 0
    assert found(await world.verify()) == set()


async def test_a_new_epoch_of_requests_moves_the_groups_of_its_partition_alone(world: PartitionedWorld) -> None:
    asked = await world.all_asked(2)  # sealed there, and forked before they are pulled
    await world.pulled(REQUESTS.at(2))
    await change(
        world.networks.response, "UPDATE incoming_streams SET hash = :o WHERE stream = 'requests.2'", o=bytes([9] * 32)
    )
    await world.ask(USERS[2])
    with pytest.raises(Fork):
        await world.pulled(REQUESTS.at(2))
    side = world.networks.response
    near = Auditor(side.engine, Network.RESPONSE, RETENTION)
    await EpochOrdering(side.engine, near, RemoteSide(world.link), Sealer(side.keys, LINK)).order(
        REQUESTS.at(2), "a test", "tests"
    )
    groups = "SELECT partition, max(epoch) FROM requests GROUP BY partition ORDER BY partition"
    assert await table(world.networks.request, groups) == [(0, 1), (1, 1), (2, 2), (3, 1)]
    await world.carry_on()
    for user, ids in asked.items():
        assert await world.statuses(user, ids) == ["completed"] * 2
    assert found(await world.verify()) == set()


async def test_the_way_of_a_request_is_told_with_its_partitions(world: PartitionedWorld) -> None:
    (mine,) = await world.ask(USERS[3])  # and nobody else asks, whose batches have the same numbers
    await world.carry_on()
    far = await remote_trace(world.link, mine)
    async with world.networks.response.engine.connect() as connection:
        told = joined(await local_trace(connection, mine, result_batch_of(far)), far)
        alone = await local_trace(connection, mine, None)
    steps = {step.step: (step.batch, step.workflow_id) for step in told.steps}
    assert steps["sealed"][0] == "requests.3 1.1"
    assert steps["pulled"] == ("requests.3 1.1", "pull-requests-3")
    assert steps["opened"][1] == "execute-requests.3-1.1"
    assert steps["result-sealed"][0] == "results.3 1.1"
    assert steps["result-applied"] == ("results.3 1.1", "apply-results.3-1.1")
    assert told.status == "completed"
    assert alone is not None
    assert "results.3 1.1" in {step.batch for step in alone.steps}, "found among the batches of every partition"


async def test_a_row_that_was_set_aside_before_there_were_partitions_goes_back_to_the_first(
    world: PartitionedWorld,
) -> None:
    asked = await answered(world, 1)
    side = world.networks.request
    await change(
        side,
        "INSERT INTO set_aside (table_name, request_id, whole, reason)"
        " SELECT 'results', request_id, to_jsonb(results.*) - 'partition', 'long ago' FROM results"
        " WHERE request_id = :id",
        id=asked[0][0],
    )
    await change(side, "DELETE FROM results WHERE request_id = :id", id=asked[0][0])
    async with side.engine.begin() as connection:
        (row,) = await rows_set_aside(connection, 0, 10)
        assert await put_row_back(connection, row.number) == ("results", asked[0][0])
    assert found(await world.verify()) == set()
