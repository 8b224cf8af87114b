"""The terminal of a healthy system: nothing that asks for a look, at no start and no stop."""

import re
import signal
from collections.abc import Callable

from tests.system.running import RunningAirlock, result, submit

ASKS_FOR_A_LOOK = re.compile(r"\[(warning|error|critical)|level=(WARN|ERROR|FATAL)|Traceback|\x1b")


async def test_two_starts_and_stops_bring_no_warning(new_airlock: Callable[..., RunningAirlock]) -> None:
    airlock = new_airlock()
    for _ in range(2):
        await airlock.start()
        async with airlock.caller() as http:
            for request_id in await submit(http, *[{"type": "airport", "params": {"iata": "IST"}}] * 20):
                assert (await result(http, request_id))["status"] == "completed"
        assert await airlock.stop(signal.SIGINT) == 0
    assert airlock.said.count("Everything is stopped.") == 2
    assert [line for line in airlock.said.splitlines() if ASKS_FOR_A_LOOK.search(line)] == []
