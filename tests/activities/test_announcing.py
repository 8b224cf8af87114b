"""Word of ready results: how often Temporal is called is counted here; a real one is asked in the workflows' tests."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from activities.announcing import ExportAnnouncer
from storage.standby import ready
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from activities import announcing
from exchange.transfer.outgoing import record_delivering_run
from exchange.transfer.sealing import Sealer
from models.streams import StreamName
from tests.activities.crossing import LINK, change
from tests.conftest import Networks
from tests.hearing import hearing


class Counting(Client):
    """Stands for Temporal: notes the calls, and answers when it is let."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.paused = False
        self.running = False
        self.away = False
        self.called = asyncio.Event()
        self.let = asyncio.Event()
        self.let.set()

    def get_schedule_handle(self, id: str) -> Any:
        return _Schedule(self)

    def get_workflow_handle(self, workflow_id: str, **_: Any) -> Any:
        return _Run(self)

    async def record(self, call: str) -> None:
        self.calls.append(call)
        self.called.set()
        await self.let.wait()
        if self.away:
            raise RPCError("away", RPCStatusCode.UNAVAILABLE, b"")


class _Schedule:
    def __init__(self, temporal: Counting) -> None:
        self._temporal = temporal

    async def describe(self, rpc_timeout: object) -> Any:
        await self._temporal.record("describe")
        state = type("State", (), {"paused": self._temporal.paused})
        return type("Description", (), {"schedule": type("Schedule", (), {"state": state})})

    async def trigger(self, overlap: Any) -> None:
        await self._temporal.record(f"trigger {overlap.name}")


class _Run:
    def __init__(self, temporal: Counting) -> None:
        self._temporal = temporal

    async def signal(self, name: str) -> None:
        await self._temporal.record(f"signal {name}")
        if not self._temporal.running:
            raise RPCError("no such workflow", RPCStatusCode.NOT_FOUND, b"")


@pytest.fixture
def temporal() -> Counting:
    return Counting()


@pytest.fixture
def announcer(networks: Networks, temporal: Counting) -> ExportAnnouncer:
    return ExportAnnouncer(temporal, networks.response.engine)


async def under_way(networks: Networks) -> None:
    async with networks.response.engine.begin() as connection:
        await record_delivering_run(connection, StreamName.RESULTS, "export-run-1")


TRIGGER, SIGNAL = "trigger BUFFER_ONE", "signal results_are_ready"


async def test_where_no_export_is_under_way_the_schedule_is_triggered_behind_whatever_runs(
    announcer: ExportAnnouncer, temporal: Counting
) -> None:
    await announcer.results_are_ready()
    assert temporal.calls == ["describe", TRIGGER]


async def test_an_export_under_way_is_signalled_and_no_other_is_started(
    networks: Networks, announcer: ExportAnnouncer, temporal: Counting
) -> None:
    await under_way(networks)
    temporal.running = True
    for _ in range(3):
        await announcer.results_are_ready()
    assert temporal.calls == ["describe", SIGNAL, SIGNAL, SIGNAL]


async def test_an_export_that_has_ended_is_followed_by_a_new_one(
    networks: Networks, announcer: ExportAnnouncer, temporal: Counting
) -> None:
    await under_way(networks)
    await announcer.results_are_ready()
    assert temporal.calls == ["describe", SIGNAL, TRIGGER]


async def test_announcements_that_come_during_one_are_made_as_one_more(
    networks: Networks, announcer: ExportAnnouncer, temporal: Counting
) -> None:
    await under_way(networks)
    temporal.running = True
    await announcer.results_are_ready()
    temporal.let.clear()
    temporal.called.clear()
    first = asyncio.create_task(announcer.results_are_ready())
    async with asyncio.timeout(5):
        await temporal.called.wait()
    more = [asyncio.create_task(announcer.results_are_ready()) for _ in range(50)]
    await asyncio.sleep(0)
    temporal.let.set()
    await asyncio.gather(first, *more)
    assert temporal.calls.count(SIGNAL) == 3


async def test_a_run_that_was_triggered_and_has_yet_to_look_is_not_triggered_again(
    announcer: ExportAnnouncer, temporal: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        await announcer.results_are_ready()
    assert temporal.calls.count(TRIGGER) == 1
    monkeypatch.setattr(announcing, "STARTING_SECONDS", 0.0)
    await announcer.results_are_ready()
    assert temporal.calls.count(TRIGGER) == 2


async def test_an_operators_pause_is_kept(announcer: ExportAnnouncer, temporal: Counting) -> None:
    temporal.paused = True
    await announcer.results_are_ready()
    assert temporal.calls == ["describe"]


async def test_with_temporal_away_the_results_are_left_to_the_next_tick(
    announcer: ExportAnnouncer, temporal: Counting
) -> None:
    temporal.away = True
    await announcer.results_are_ready()
    temporal.away = False
    await announcer.results_are_ready()
    assert temporal.calls[-1] == TRIGGER


async def test_while_temporal_is_away_the_pause_is_what_it_was(
    networks: Networks, announcer: ExportAnnouncer, temporal: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "PAUSE_KNOWN_SECONDS", 0.0)
    temporal.paused = True
    assert await announcer.is_paused()
    temporal.away = True
    assert await announcer.is_paused()
    temporal.paused = temporal.away = False
    assert not await announcer.is_paused()


@pytest.fixture
async def stood_by(networks: Networks, temporal: Counting) -> AsyncIterator[None]:
    """A run is under way, and stands by."""
    await under_way(networks)
    temporal.running = True
    async with hearing(networks.response) as standby, standby.by(ready(StreamName.RESULTS)):
        yield


async def enqueue(networks: Networks) -> None:
    side = networks.response
    async with side.engine.begin() as connection:
        await Sealer(side.keys, LINK).enqueue(connection, StreamName.RESULTS, [b"{}"])


async def called(temporal: Counting) -> None:
    """Return when Temporal is called again."""
    temporal.called.clear()
    async with asyncio.timeout(10):
        await temporal.called.wait()


async def send(networks: Networks) -> None:
    """As whoever stands by does."""
    await change(networks.response, "DELETE FROM outbox")


@pytest.mark.usefixtures("stood_by")
async def test_where_a_run_stands_by_temporal_is_told_nothing_of_what_that_sends(
    networks: Networks, announcer: ExportAnnouncer, temporal: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "GRACE_SECONDS", 0.2)
    await enqueue(networks)
    await announcer.results_are_ready()
    await send(networks)
    await announcer.finish()
    assert temporal.calls == ["describe"]


@pytest.mark.usefixtures("stood_by")
async def test_what_whoever_stands_by_does_not_send_in_time_temporal_is_told_of(
    networks: Networks, announcer: ExportAnnouncer, temporal: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "GRACE_SECONDS", 0.2)
    await enqueue(networks)
    await announcer.results_are_ready()
    await called(temporal)
    await send(networks)
    await announcer.finish()
    assert temporal.calls == ["describe", SIGNAL]


@pytest.mark.usefixtures("stood_by")
async def test_what_gets_ready_while_it_is_looked_after_others_is_looked_after_too(
    networks: Networks, announcer: ExportAnnouncer, temporal: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "GRACE_SECONDS", 0.5)
    await announcer.results_are_ready()  # of what is sent already
    await asyncio.sleep(0.25)  # when that is looked after, what follows is not late yet
    await enqueue(networks)
    await announcer.results_are_ready()
    await called(temporal)
    await send(networks)
    await announcer.finish()
    assert temporal.calls == ["describe", SIGNAL]


@pytest.mark.usefixtures("stood_by")
async def test_a_worker_that_stops_tells_temporal_of_what_is_not_sent_yet(
    networks: Networks, announcer: ExportAnnouncer, temporal: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "GRACE_SECONDS", 600.0)
    await enqueue(networks)
    await announcer.results_are_ready()
    assert temporal.calls == ["describe"]
    async with asyncio.timeout(10):
        await announcer.finish()
    assert temporal.calls == ["describe", SIGNAL]


@pytest.mark.usefixtures("stood_by")
async def test_what_an_operator_holds_back_is_not_taken_for_late(
    networks: Networks, announcer: ExportAnnouncer, temporal: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(announcing, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(announcing, "PAUSE_KNOWN_SECONDS", 0.0)
    await enqueue(networks)
    await announcer.results_are_ready()
    temporal.paused = True
    await announcer.finish()
    assert set(temporal.calls) == {"describe"}
