"""Rotating a network's key: what signs, what is believed, and what is left when it is cut off between two steps."""

import asyncio
import stat
from collections.abc import Callable
from typing import Any

import pytest

import exchange.link_keys.rotation
from exchange.errors import LinkPaused
from exchange.wire.keys import SIGNING, SUCCESSOR, load_link_keys
from models.errors import Conflict, Unavailable
from models.streams import Network
from tests.api_request.serving import eventually
from tests.keys.world import World

RESPONSE, REQUEST = Network.RESPONSE, Network.REQUEST


async def rotate(world: World, network: Network, **options: float) -> Any:
    """Rotate while the response network's worker tells and hears."""

    async def working() -> None:
        worker = world.exchange()
        while True:
            await worker.once()
            await asyncio.sleep(0.05)

    beside = asyncio.create_task(working())
    try:
        return await world.rotate(network, **options)
    finally:
        beside.cancel()
        await asyncio.wait((beside,))


@pytest.mark.parametrize("network", list(Network))
async def test_a_new_key_signs_and_the_old_one_stays_trusted_for_the_overlap(world: World, network: Network) -> None:
    directory = world.side(network).keys_directory
    old = load_link_keys(directory)
    (directory / SIGNING).chmod(0o640)
    done = await rotate(world, network, overlap=600)
    new = load_link_keys(directory)
    assert (done.before, done.now, done.resumed) == (old.key_id, new.key_id, False)
    assert new.key_id != old.key_id
    assert stat.S_IMODE((directory / SIGNING).stat().st_mode) == 0o640
    assert not (directory / SUCCESSOR).exists()
    await world.exchange().once()
    other = world.live(REQUEST if network is RESPONSE else RESPONSE)
    await other.refresh()
    assert {old.key_id, new.key_id} == set(other.trusted)
    there = await world.stored(other.network)
    assert there[new.key_id].introduced_by == old.key_id
    assert there[new.key_id].retires_at is None
    assert there[old.key_id].retires_at == (await world.stored(network))[old.key_id].retires_at
    for keys in (old, new):
        other.verify("request", b"x", keys.key_id, keys.sign("request", b"x"))


async def test_nothing_is_refused_by_any_process_while_both_networks_rotate(two_processes: World) -> None:
    world = two_processes
    sending, pulling, asked = world.live(RESPONSE), world.live(RESPONSE), world.live(REQUEST)
    looking = [asyncio.create_task(keys.keep_current()) for keys in (sending, pulling, asked)]
    delivered = 0

    async def load() -> None:
        nonlocal delivered
        while True:
            for url in world.urls:
                await world.push(sending, b'{"n":%d}' % delivered, url)
                assert await world.pull(pulling, asked)
                delivered += 1

    loading = asyncio.create_task(load())
    try:
        ids = [(await rotate(world, network)).now for network in Network for _ in range(2)]
        seen = delivered

        async def goes_on() -> bool:
            return delivered >= seen + 4 or loading.done()

        await eventually(goes_on, "batches cross with the new keys")
    finally:
        for task in (loading, *looking):
            task.cancel()
        await asyncio.wait((loading, *looking))
    assert loading.cancelled(), loading.exception()
    await asyncio.gather(sending.refresh(), asked.refresh())
    assert (asked.key_id, sending.key_id) == (ids[1], ids[3])


class Killed(BaseException):
    """Stands for SIGKILL: nothing that follows it is done."""


def dies_after(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    original: Callable[..., Any] = getattr(exchange.link_keys.rotation, step)

    def wrapped(*arguments: Any) -> Any:
        found = original(*arguments)
        if not asyncio.iscoroutine(found):
            raise Killed
        return die(found)

    async def die(found: Any) -> None:
        await found
        raise Killed

    monkeypatch.setattr(exchange.link_keys.rotation, step, wrapped)


@pytest.mark.parametrize("network", list(Network))
@pytest.mark.parametrize(
    ("step", "signs", "goes_on"),
    [
        ("make_successor", "old", "found"),
        ("put_link_key", "old", "found"),
        ("confirm_link_keys", "old", "found"),
        ("seconds_since_confirmed", "old", "found"),
        ("promote_successor", "new", "found"),
        ("retire_after", "new", "found"),
    ],
)
async def test_a_rotation_that_was_cut_off_is_completed_by_the_same_command(
    world: World, network: Network, step: str, signs: str, goes_on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = world.side(network).keys_directory
    old = load_link_keys(directory)
    with monkeypatch.context() as patched:
        dies_after(patched, step)
        with pytest.raises(Killed):
            await rotate(world, network)
    between = load_link_keys(directory)
    assert (between.key_id == old.key_id) is (signs == "old")
    response, request = world.live(RESPONSE), world.live(REQUEST)
    await world.push(response)
    assert await world.pull(response, request)
    done = await rotate(world, network)
    assert (world.steps[0], done.before, done.resumed) == (goes_on, old.key_id, True)
    assert load_link_keys(directory).key_id == done.now != old.key_id
    assert signs == "old" or between.key_id == done.now
    stored = {key.key_id: key for key in (await world.stored(network)).values() if key.owner is network}
    assert set(stored) == {done.before, done.now}
    assert [key for key in stored.values() if key.retires_at is None] == [stored[done.now]]
    await world.push(world.live(RESPONSE))
    assert await world.pull(world.live(RESPONSE), world.live(REQUEST))


async def test_without_the_other_network_the_old_key_goes_on_signing(world: World) -> None:
    old = load_link_keys(world.networks.request.keys_directory)
    with pytest.raises(Unavailable, match=r"not confirmed.*run the same command again"):
        await world.rotate(REQUEST, patience=0)
    assert world.steps == ["made"]
    assert load_link_keys(world.networks.request.keys_directory).key_id == old.key_id
    assert (await rotate(world, REQUEST)).resumed


async def test_a_link_that_is_down_is_waited_for_and_named(world: World) -> None:
    url, world.urls[0] = world.urls[0], "http://127.0.0.1:1"
    with pytest.raises(Unavailable, match="/link/v1/keys"):
        await world.rotate(RESPONSE, patience=0)
    world.urls[0] = url
    assert (await world.rotate(RESPONSE)).resumed


async def test_one_rotation_at_a_time(world: World) -> None:
    async with exchange.link_keys.rotation.one_at_a_time(world.networks.response.engine):
        with pytest.raises(Conflict, match="another rotation"):
            await world.rotate(RESPONSE)
    await world.rotate(RESPONSE)


async def test_a_machine_that_was_left_behind_does_not_rotate_away_from_the_others(world: World) -> None:
    directory = world.networks.response.keys_directory
    left_behind = (directory / SIGNING).read_bytes()
    done = await world.rotate(RESPONSE)
    (directory / SIGNING).write_bytes(left_behind)
    with pytest.raises(Conflict, match=f"{done.before}, which was replaced by {done.now}: copy"):
        await world.rotate(RESPONSE)


async def test_a_machine_that_was_left_behind_pauses_after_the_overlap_and_goes_on_once_mended(world: World) -> None:
    directory = world.networks.response.keys_directory
    left_behind = (directory / SIGNING).read_bytes()
    done = await world.rotate(RESPONSE)
    distributed = (directory / SIGNING).read_bytes()
    (directory / SIGNING).write_bytes(left_behind)
    keys = world.live(RESPONSE)
    await world.push(keys)
    await world.end_overlap(REQUEST, done.before)
    await world.live(REQUEST).refresh()

    async def refused() -> str:
        while True:
            try:
                await world.push(keys)
            except LinkPaused as error:
                return str(error)

    async with asyncio.timeout(20):
        reason = await refused()
    assert f"key {done.before} is no longer trusted, it retired at 20" in reason
    (directory / SIGNING).write_bytes(distributed)
    await keys.refresh()
    await world.push(keys)
    assert keys.key_id == done.now
