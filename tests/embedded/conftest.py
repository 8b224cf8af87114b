"""What the tests of the embedded servers share: a terminal that remembers, and a supervisor that is always stopped."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from embedded.home import Home
from embedded.supervisor import Supervisor
from embedded.terminal import Terminal
from tests.embedded.waiting import Screen


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
async def supervisor(tmp_path: Path, screen: Screen) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(Terminal(screen), tmp_path / "logs")
    yield supervisor
    await supervisor.stop()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with Home.open(tmp_path / "home") as home:
        yield home
