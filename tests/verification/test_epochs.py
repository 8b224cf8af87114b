"""Every epoch is compared up to its boundary; what is void is no difference, and neither is what came twice."""

import pytest

from exchange.transfer.outgoing import stop_outgoing
from models.streams import StreamName
from tests.activities.crossing import change, one
from tests.api_request.serving import setting
from tests.epochs.backups import back_up, restore
from tests.epochs.test_new_epoch import new_epoch
from tests.verification.world import REQUESTS, RESULTS, SETTINGS, World, found


@pytest.mark.parametrize("stream", [RESULTS, REQUESTS, SETTINGS])
async def test_both_sides_agree_after_a_new_epoch_in_which_records_came_again(world: World, stream: StreamName) -> None:
    await world.publish(setting("colour", "blue"))
    await world.answered(2)
    await back_up(world.networks.request.engine)
    await world.answered(2)
    await restore(world.networks.request.engine)
    for each in (REQUESTS, stream, RESULTS) if stream is SETTINGS else (REQUESTS, RESULTS):
        await new_epoch(world, each)
    await world.carry_on()
    await world.submitted(2)
    await world.carry_on()
    reports = {report.stream: report for report in await world.verify()}
    assert found(list(reports.values())) == set()
    assert reports[RESULTS].sender.epoch == reports[RESULTS].receiver.epoch == 2
    assert reports[RESULTS].in_common[0][0] == 1, "the first epoch still counts"


async def test_a_batch_of_an_earlier_epoch_is_compared_and_comes_back(world: World) -> None:
    for _ in range(3):
        await world.answered(2)
    await new_epoch(world, RESULTS)
    await world.submitted(2)
    await world.carry_on()
    side = world.networks.request
    batch = "WHERE stream = 'results' AND epoch = 1 AND sequence = :n"
    await change(side, f"DELETE FROM received_batches {batch}", n=3)  # the last of its epoch: nothing goes on from it
    await change(side, f"UPDATE received_batches SET payload = payload || 'x' {batch}", n=2)
    await change(side, "DELETE FROM results WHERE epoch = 1 AND sequence = 1")
    assert {item[1:] for item in found(await world.verify())} >= {
        ("received_batches", "missing", "3"),
        ("received_batches", "different", "2"),
    }
    reports, outcome = await world.repair()
    assert (found(reports), outcome.left, outcome.set_aside) == (set(), {}, 0)
    assert await one(side, "SELECT count(*) FROM results") == 8


async def test_an_epoch_that_the_receiver_has_not_heard_of_is_in_flight(world: World) -> None:
    await world.answered(2)
    await change(
        world.networks.response,
        "INSERT INTO epochs (stream, epoch, previous_epoch, previous_sequence, reason, ordered_by)"
        " VALUES ('results', 2, 1, 1, '', '')",
    )
    await change(
        world.networks.response,
        "UPDATE outgoing_streams SET epoch = 2, sequence = 0, record = 0, hash = decode(repeat('00', 32), 'hex')"
        " WHERE stream = 'results'",
    )
    reports = {report.stream: report for report in await world.verify()}
    assert found(list(reports.values())) == set()
    assert reports[RESULTS].in_common == [(1, 1)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE epochs SET previous_sequence = 1 WHERE stream = 'results'",
        "DELETE FROM epochs WHERE stream = 'results'",
    ],
)
async def test_sides_that_do_not_agree_on_where_an_epoch_begins_differ(world: World, statement: str) -> None:
    for _ in range(2):
        await world.answered(1)
    await new_epoch(world, RESULTS)
    await world.submitted(1)
    await world.carry_on()
    assert found(await world.verify()) == set()
    await change(world.networks.request, statement)
    assert ("request", "epochs", "different", "0") in found(await world.verify())
    reports, outcome = await world.repair()
    assert not all(report.agrees for report in reports)
    assert any("new-epoch" in reason for reason in outcome.left.values())


async def test_a_stopped_stream_is_verified_like_any_other(world: World) -> None:
    await world.answered(2)
    async with world.networks.response.engine.begin() as connection:
        await stop_outgoing(connection, RESULTS, "a test")
    reports = {report.stream: report for report in await world.verify()}
    assert (found(list(reports.values())), reports[RESULTS].sender.stopped) == (set(), "a test")
