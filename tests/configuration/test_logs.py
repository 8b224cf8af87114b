"""What is logged, in which form and at which level."""

import httpx
import pytest
import structlog
from structlog.testing import LogCapture

from configuration import logs
from configuration.logs import OutageLog
from exchange.errors import LinkPaused, LinkUnavailable
from models.errors import describe
from storage.database import connect
from tests.conftest import Servers


class Clock:
    """Monotonic time that a test moves."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(logs, "time", moved)
    return moved


@pytest.fixture
def seen() -> LogCapture:
    return LogCapture()


@pytest.fixture
def outage(seen: LogCapture) -> OutageLog:
    logger = structlog.wrap_logger(structlog.PrintLogger(), processors=[seen], wrapper_class=structlog.BoundLogger)
    return OutageLog("link.away", "link.back", logger)


def told(seen: LogCapture) -> list[tuple[str, str]]:
    return [(str(entry["log_level"]), str(entry["event"])) for entry in seen.entries if entry["log_level"] != "debug"]


AWAY, REFUSED = LinkUnavailable("nobody answers"), LinkPaused("unknown key")


def test_a_link_that_is_back_within_the_grace_is_not_worth_a_line(
    clock: Clock, outage: OutageLog, seen: LogCapture
) -> None:
    for _ in range(5):
        outage.failed(AWAY)
        clock.now += logs.GRACE_SECONDS / 5 - 0.01
    outage.succeeded()
    assert (told(seen), len(seen.entries)) == ([], 5)


def test_an_outage_that_lasts_is_told_once_and_so_is_its_end(clock: Clock, outage: OutageLog, seen: LogCapture) -> None:
    for _ in range(4):
        outage.failed(AWAY, stream="results")
        clock.now += logs.GRACE_SECONDS
    assert told(seen) == [("warning", "link.away")]
    outage.succeeded(stream="results")
    assert told(seen)[1:] == [("info", "link.back")]
    assert seen.entries[-1] == {"log_level": "info", "event": "link.back", "stream": "results", "after_seconds": 40.0}
    outage.failed(AWAY)
    assert len(told(seen)) == 2, "the next one has its own grace"


def test_what_does_not_pass_by_itself_is_told_at_once_and_again_when_it_becomes_another(
    clock: Clock, outage: OutageLog, seen: LogCapture
) -> None:
    outage.failed(REFUSED, passes=False)
    outage.failed(REFUSED, passes=False)
    assert told(seen) == [("warning", "link.away")]
    clock.now += logs.GRACE_SECONDS
    outage.failed(AWAY)
    assert [entry["reason"] for entry in seen.entries if entry["log_level"] == "warning"] == [
        "unknown key",
        "nobody answers",
    ]


def test_an_error_without_a_message_is_described_by_its_name() -> None:
    assert describe(httpx.ReadTimeout("")) == "ReadTimeout"
    assert describe(TimeoutError()) == "TimeoutError"
    assert describe(ValueError("first line\nsecond line")) == "first line"


async def test_a_database_error_is_described_without_its_statement(servers: Servers) -> None:
    engine = connect(servers.databases.request, 1)
    try:
        with pytest.raises(Exception, match="no_such_column") as raised:
            async with engine.connect() as connection:
                await connection.exec_driver_sql("SELECT no_such_column")
    finally:
        await engine.dispose()
    assert describe(raised.value) == 'column "no_such_column" does not exist'
