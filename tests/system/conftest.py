"""One whole Airlock for the tests that leave it as they found it; those that need their own make one."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.system.running import RunningAirlock


@pytest.fixture(scope="session")
async def airlock(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningAirlock]:
    """Started once per run."""
    running = RunningAirlock(tmp_path_factory.mktemp("system") / "home")
    try:
        await running.start()
        yield running
    finally:
        await running.end()


@pytest.fixture
async def new_airlock(tmp_path: Path) -> AsyncIterator[Callable[..., RunningAirlock]]:
    """Makes one that belongs to the test; not started."""
    made: list[RunningAirlock] = []

    def make(**environment: str) -> RunningAirlock:
        made.append(RunningAirlock(tmp_path / f"home{len(made)}", **environment))
        return made[-1]

    yield make
    for running in made:
        await running.end()
