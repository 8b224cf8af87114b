"""Each kind of trouble on the link has an alarm of its own, raised and cleared by the real activities."""

import re
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from email.utils import formatdate
from typing import Any

import orjson
import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.streams import StreamActivities
from configuration.cadences import DEFAULT_CADENCES
from exchange.carriers.http import LinkClient
from exchange.errors import LinkError
from exchange.transfer.delivery import Delivery
from exchange.transfer.sealing import Sealer
from exchange.wire.http_signature import HEADER, HttpSigner
from exchange.wire.messages import Receipt
from models.outcomes import DrainOutcome
from models.streams import StreamName
from monitoring.link_watch import LinkWatch
from monitoring.measurement_store import open_alerts
from orchestration.link_failures import PAUSED_SECONDS
from schedules.interval import OwnedInterval
from storage.notices import NotificationListener
from tests.activities.crossing import change, table
from tests.conftest import Networks
from tests.link.false_server import Answer, Asked, answering, http_answer

RESULTS = StreamName.RESULTS


class Sender:
    """The results stream of the response network, as its worker delivers it to an answer that a test makes up."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        side = networks.response
        self.sealer = Sealer(side.keys, "test")
        self.watch = LinkWatch(side.engine, DEFAULT_CADENCES)

    async def enqueue(self) -> None:
        async with self.networks.response.engine.begin() as connection:
            await self.sealer.enqueue(connection, RESULTS, [b"{}"])

    async def drain(self, answer: Answer) -> DrainOutcome:
        side = self.networks.response
        async with answering(answer) as url:
            link = LinkClient(url, HttpSigner(side.keys, "test"), 2.0)
            try:
                worker = StreamActivities(
                    Delivery(side.engine, self.sealer, link), self.watch, NotificationListener(), no_interval
                )
                outcome: DrainOutcome = await ActivityEnvironment().run(worker.deliver, RESULTS)
                return outcome
            finally:
                await link.aclose()

    async def fails(self, answer: Answer, times: int = 2) -> list[BaseException]:
        errors: list[BaseException] = []
        for _ in range(times):
            with pytest.raises((ApplicationError, LinkError)) as failed:
                await self.drain(answer)
            errors.append(failed.value)
        return errors

    async def for_long(self, seconds: float = 181.0) -> None:
        """As if attempts had failed for longer than one and a half cadences already."""
        await change(
            self.networks.response,
            "UPDATE link_attempts SET failing_since = now() - make_interval(secs => :seconds)",
            seconds=seconds,
        )

    async def alarms(self) -> dict[str, str]:
        async with self.networks.response.engine.connect() as connection:
            return {alert.name: alert.message for alert in await open_alerts(connection)}

    def receiving(self, asked: Asked, status: int = 200, body: bytes | None = None) -> bytes:
        """What a request network that has nothing yet answers, signed."""
        keys = self.networks.request.keys
        receipt = Receipt(
            link="test", stream=RESULTS, epoch=1, received=0, applied=0, head="0" * 64, quarantined=0,
            key_id=keys.key_id,
        )  # fmt: skip
        content = receipt.to_wire(keys) if body is None else body
        signature = HttpSigner(keys, "test").sign_response(asked.signature, status, content)
        return http_answer(status, content, **{HEADER: signature})


@pytest.fixture
def sender(networks: Networks) -> Sender:
    return Sender(networks)


def problem(kind: str, **extra: Any) -> bytes:
    return orjson.dumps({"type": f"urn:airlock:problem:{kind}", "detail": f"because of {kind}", **extra})


def no_interval() -> AbstractAsyncContextManager[OwnedInterval]:
    raise AssertionError("what delivers and ends owns no interval")


def dropped(_: Asked) -> bytes:
    return b""


async def test_nothing_to_send_is_a_heartbeat_and_no_alarm(sender: Sender) -> None:
    for _ in range(3):
        assert (await sender.drain(sender.receiving)).heartbeat
    assert await sender.alarms() == {}
    [(failures, kind)] = await table(sender.networks.response, "SELECT failures, kind FROM link_attempts")
    assert (failures, kind) == (0, None)


@pytest.mark.parametrize(
    ("answer", "name", "words"),
    [
        (dropped, "link-dead:results", "does not answer"),
        (lambda _: http_answer(502), "link-dead:results", "status 502"),
        (lambda _: http_answer(429, problem("busy"), Retry_After="30"), "link-throttled:results", "asks to wait until"),
        (lambda _: http_answer(503, b"", Retry_After="30"), "link-throttled:results", "status 503"),
    ],
    ids=["connection cut", "502", "429", "503"],
)
async def test_what_mostly_passes_is_an_alarm_when_it_lasts(
    sender: Sender, answer: Answer, name: str, words: str
) -> None:
    await sender.enqueue()
    await sender.fails(answer, times=3)
    assert await sender.alarms() == {}, "a request network that is restarted is no reason to wake anybody"
    await sender.for_long()
    await sender.fails(answer, times=1)
    alarms = await sender.alarms()
    assert list(alarms) == [name]
    assert words in alarms[name]
    assert "Nothing is lost: 1 record still to be delivered" in alarms[name]


@pytest.mark.parametrize(
    ("answer", "name", "words"),
    [
        (
            lambda _: http_answer(401, problem("clock-skew", server_time=int(time.time()) + 4000)),
            "link-clock-skew:results",
            r"differ by (3999|4000) s, ours is behind",
        ),
        (lambda _: http_answer(403, problem("unknown-key")), "link-unknown-key:results", "because of unknown-key"),
        (lambda _: http_answer(401, problem("bad-signature")), "link-bad-signature:results", "signatures are wrong"),
        (lambda _: http_answer(403, b"<html>"), "link-refused:results", "proxies on the way"),
        (lambda _: http_answer(413, b"<html>"), "link-oversize:results", "too large on its way"),
        (lambda _: http_answer(200, b"<html>"), "link-bad-signature:results", "signatures are wrong"),
    ],
    ids=["clock", "key", "signature", "proxy 403", "proxy 413", "unsigned"],
)
async def test_what_waits_for_somebody_is_an_alarm_at_once(
    sender: Sender, answer: Answer, name: str, words: str
) -> None:
    await sender.enqueue()
    await sender.fails(answer, times=1)
    assert await sender.alarms() == {}, "once may be chance"
    await sender.fails(answer, times=1)
    alarms = await sender.alarms()
    assert list(alarms) == [name]
    assert re.search(words, alarms[name])


async def test_a_receiver_that_asks_for_earlier_batches_again_and_again_is_told_as_that(sender: Sender) -> None:
    def gap(asked: Asked) -> bytes:
        return sender.receiving(asked, 409, problem("gap", expected=1))

    await sender.enqueue()
    await sender.fails(gap, times=1)
    await sender.for_long()
    await sender.fails(gap, times=1)
    alarms = await sender.alarms()
    assert list(alarms) == ["link-gap:results"]
    assert "because of gap" in alarms["link-gap:results"]


async def test_an_alarm_clears_when_it_flows_again_and_another_takes_its_place_when_the_trouble_changes(
    sender: Sender,
) -> None:
    await sender.fails(dropped)
    await sender.for_long()
    await sender.fails(dropped, times=1)
    assert list(await sender.alarms()) == ["link-dead:results"]
    await sender.fails(lambda _: http_answer(403, problem("unknown-key")), times=1)
    assert list(await sender.alarms()) == ["link-unknown-key:results"]
    assert (await sender.drain(sender.receiving)).heartbeat
    assert await sender.alarms() == {}


async def test_a_refusal_pauses_and_never_discards_and_recovers_by_itself(sender: Sender) -> None:
    await sender.enqueue()
    for pause in (1, 2, 4, 8, 16, 32, PAUSED_SECONDS, PAUSED_SECONDS):
        [error] = await sender.fails(lambda _: http_answer(403, problem("unknown-key")), times=1)
        assert isinstance(error, ApplicationError)
        assert not error.non_retryable
        assert error.next_retry_delay is not None
        assert 0.8 * pause <= error.next_retry_delay.total_seconds() <= pause
    waiting = "SELECT count(*) FROM sealed_batches WHERE delivered_at IS NULL AND payload IS NOT NULL"
    assert await table(sender.networks.response, waiting) == [(1,)]
    await sender.watch.succeeded(RESULTS)
    [error] = await sender.fails(lambda _: http_answer(403, problem("unknown-key")), times=1)
    assert isinstance(error, ApplicationError)
    assert error.next_retry_delay is not None
    assert error.next_retry_delay.total_seconds() <= 1, "what was long ago still counts"


async def test_a_receipt_that_does_not_cover_what_was_just_taken_is_no_reason_to_send_it_again_and_again(
    sender: Sender,
) -> None:
    await sender.enqueue()
    asked: list[Asked] = []

    def always_nothing(question: Asked) -> bytes:
        asked.append(question)
        return sender.receiving(question)

    [error] = await sender.fails(always_nothing, times=1)
    assert "covers batch 0" in str(error)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [
        (lambda: "30", 30.0, 31.2),
        (lambda: formatdate(time.time() + 30, usegmt=True), 27.0, 31.2),
        (lambda: "999999", 600.0, 601.2),
        (lambda: "soon", 0.0, 0.5),
        (lambda: "-5", 0.0, 0.5),
    ],
    ids=["seconds", "date", "capped", "nonsense", "negative"],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured_in_both_forms_and_capped(
    sender: Sender, status: int, retry_after: Callable[[], str], least: float, most: float
) -> None:
    [error] = await sender.fails(lambda _: http_answer(status, b"", Retry_After=retry_after()), times=1)
    assert isinstance(error, ApplicationError)
    assert error.next_retry_delay is not None
    assert least <= error.next_retry_delay.total_seconds() <= most
