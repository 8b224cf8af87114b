"""The clocks of the two networks, which need not agree and may jump. Correctness must not rest on either."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta, tzinfo

import pytest

from exchange.transfer import sealing
from exchange.wire import http_signature
from models.streams import Network

_whose: ContextVar[Network] = ContextVar("whose_clock", default=Network.RESPONSE)


class Clocks:
    """Stands for ``time`` in `exchange.wire.http_signature`, and for ``datetime`` where batches are sealed."""

    def __init__(self) -> None:
        self.fast: dict[Network, float] = {}
        """Seconds by which each network's clock is fast."""
        self.heal()

    def heal(self) -> None:
        """Both are right."""
        self.fast = dict.fromkeys(Network, 0.0)

    @property
    def apart(self) -> float:
        """Seconds between the two."""
        return abs(self.fast[Network.REQUEST] - self.fast[Network.RESPONSE])

    @contextmanager
    def of(self, network: Network) -> Iterator[None]:
        """What runs in this block runs on a machine of this network."""
        token = _whose.set(network)
        try:
            yield
        finally:
            _whose.reset(token)

    def time(self) -> float:
        return time.time() + self.fast[_whose.get()]

    def now(self, zone: tzinfo | None = None) -> datetime:
        return datetime.now(zone or UTC) + timedelta(seconds=self.fast[_whose.get()])

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Have the code under test read these clocks."""
        patch.setattr(http_signature, "time", self)
        patch.setattr(sealing, "datetime", self)
