"""A healthy system that is stopped and started: work goes on, and nothing on the terminal asks for a look."""

import re
import signal
from collections.abc import Callable

from tests.system.running import RunningAirlock, result, submit
from tests.system.test_faults import request

ASKS_FOR_A_LOOK = re.compile(r"\[(warning|error|critical)|level=(WARN|ERROR|FATAL)|Traceback|\x1b")


async def test_stopped_and_started_again_it_carries_on_and_gives_no_warning(
    new_airlock: Callable[..., RunningAirlock],
) -> None:
    airlock = new_airlock()
    await airlock.start()
    async with airlock.caller() as http:
        first = (await submit(http, request(0)))[0]
        answer = await result(http, first)
        waiting = await submit(http, *(request(number) for number in range(500)))
    assert await airlock.stop(signal.SIGINT) == 0
    assert not (airlock.home / "up.json").exists()
    await airlock.start()
    async with airlock.caller() as http:
        assert await result(http, first) | {"source": ""} == answer | {"source": ""}
        for request_id in waiting:
            assert (await result(http, request_id))["status"] == "completed"
    assert await airlock.stop() == 0
    assert airlock.said.count("Everything is stopped.") == 2
    assert [line for line in airlock.said.splitlines() if ASKS_FOR_A_LOOK.search(line)] == []
