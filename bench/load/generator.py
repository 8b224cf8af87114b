"""Executes one order: a closed loop on a number of connections, or an open loop at a rate."""

import asyncio
import random
import time
from functools import partial

from bench.load.journeys import Journeys
from bench.load.order import Order, Outcome
from bench.load.tally import Tally
from chaos.connection import Connections

AFTER_PROBLEM = 0.01
"""Pause of a connection of a closed loop after a problem, in seconds: no busy loop against a dead server."""


class Generator:
    """One load."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._journeys = Journeys(Connections(order.port), order.asks, order.headers)
        self._clock = time.perf_counter
        self._first = self._clock()
        self._begin = self._first + order.warm_up
        self._end = self._begin + order.seconds
        self._tally = Tally(self._begin, self._end)
        self._quiet = asyncio.Event()

    async def run(self) -> Outcome:
        """Make calls for ``warm_up`` and ``seconds``, then wait for the open ones, ``patience`` at most."""
        sampling = asyncio.create_task(self._sample())
        if self._order.connections:
            for _ in range(self._order.connections):
                self._launch(self._clock())
        else:
            await self._keep_pace()
        if self._tally.gave_up:
            sampling.cancel()
            return self._tally.outcome(time.process_time())
        await self._until(self._end)
        await sampling
        try:
            async with asyncio.timeout(self._order.patience):
                while self._tally.begun > self._tally.ended:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            pass
        return self._tally.outcome(time.process_time())

    async def _keep_pace(self) -> None:
        """Begin each at its time, whether or not earlier ones have ended; late ones at once."""
        total = round((self._order.warm_up + self._order.seconds) * self._order.rate)
        chance = random.Random("when requests come")  # noqa: S311, the same for every contestant
        for number in range(total):
            due = self._first + (number + self._order.scatter * chance.random()) / self._order.rate
            await self._until(due)
            if self._order.most and self._tally.is_hopeless(self._order.most):
                self._tally.gave_up = True
                return
            self._tally.late = max(self._tally.late, self._clock() - due)
            self._launch(due)

    def _launch(self, began: float) -> None:
        number = self._tally.begun
        self._tally.begun += 1
        self._journeys.start(number, partial(self._ended, began))

    def _ended(self, began: float, problem: str) -> None:
        now = self._clock()
        self._tally.record_end(began, now, problem)
        self._quiet.set()
        if self._order.connections and now < self._end:
            if problem:
                asyncio.get_running_loop().call_later(AFTER_PROBLEM, lambda: self._launch(self._clock()))
            else:
                self._launch(now)

    async def _sample(self) -> None:
        for second in range(1, int(self._order.seconds) + 1):
            await self._until(self._begin + second)
            self._tally.record_outstanding()

    async def _until(self, moment: float) -> None:
        if (left := moment - self._clock()) > 0:
            await asyncio.sleep(left)
