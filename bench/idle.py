"""The cost of idling: CPU of all own processes, and workflows that are started, without load."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import psutil
from temporalio.client import Client

from bench.aims import Aim, line
from bench.asks import fresh
from bench.contestants import EVERY_DAY, SERVERS, Contestant, Start, airlock, celery
from bench.figures import OURS, RIVAL, Figure, Line, Options, Spread, in_turn
from bench.lone import POLLING
from configuration.cadences import DEFAULT_CADENCES, SYSTEM_MONITORING

SETTLE, SECONDS = 20.0, 60.0
MARGIN = 5.0
"""Least seconds between the beginning and a full minute, so that it is clear which scheduled runs count."""
SUPERVISOR = "up"
NAMESPACES = ("request", "response")
VISIBLE = 2.0
"""Seconds after which Temporal lists a started workflow."""


@dataclass(frozen=True)
class Idle:
    """One measurement without load."""

    own: float
    """CPU of its own processes, in % of one core."""
    servers: float
    """CPU of PostgreSQL, Redis and, if there is one, Temporal."""
    by_process: Mapping[str, float]
    workflows: Mapping[str, int]
    """Workflows that were started, by type."""
    needed: int
    """Number of workflows that the schedules had to start."""
    seconds: float

    @property
    def beyond(self) -> float:
        """Workflows a minute beyond those of the schedules."""
        return (sum(self.workflows.values()) - self.needed) * 60 / self.seconds


class IdleCost(Figure):
    """CPU of all own processes in % of one core, and workflows started, over 60 s without load."""

    name = "idle"
    rounds = 3

    async def measure(self, options: Options) -> Sequence[Line]:
        """Each contestant is started anew, one at a time."""
        soonest = min(POLLING)
        often = f"{RIVAL} {soonest:g} s"
        starts: dict[str, Start] = {OURS: airlock, RIVAL: celery, often: partial(celery, pull_every=soonest)}
        runs = {name: partial(_one, start, name, options) for name, start in starts.items()}
        taken = await in_turn(
            runs,
            options.rounds,
            0,
            lambda what, got: options.say(f"{what} {got.own:.1f} %, servers {got.servers:.1f} %"),
        )
        beats = sum(60 / seconds for seconds in EVERY_DAY.values())
        ours, waiting = taken[OURS], {name: taken[name] for name in (OURS, RIVAL)}
        quicker = Spread(tuple(each.own for each in taken[often]))
        started = Counter[str]()
        for each in ours:
            started.update(each.workflows)
        over = f"in {sum(each.seconds for each in ours):.0f} s"
        return [
            line(
                "idle, own processes",
                "% of a core",
                [Aim(3.0, at_most=True)],
                {name: Spread(tuple(each.own for each in got)) for name, got in waiting.items()},
                f"{_shares(ours)}; Celery: {_shares(taken[RIVAL])}; pulling every {soonest:g} s, as it must to"
                f" answer a lone request about as soon, it takes {quicker.median:.1f} %; no limit: doing nothing costs"
                " nothing",
                {name: [vars(each) for each in got] for name, got in taken.items()},
                less_is_better=True,
            ),
            line(
                "idle, servers",
                "% of a core",
                [],
                {name: Spread(tuple(each.servers for each in got)) for name, got in waiting.items()},
                "PostgreSQL and Redis, in Airlock's case Temporal's development server as well",
                less_is_better=True,
            ),
            line(
                "idle, workflows beyond the schedules' own",
                "a minute",
                [Aim(0.0, at_most=True)],
                {OURS: Spread(tuple(each.beyond for each in ours))},
                f"{over} the schedules needed {sum(each.needed for each in ours)}, started were"
                f" {', '.join(f'{count} {kind}' for kind, count in started.items()) or 'none'};"
                f" Celery's Beat sends {beats:g} tasks a minute",
                less_is_better=True,
            ),
        ]


async def _one(start: Start, name: str, options: Options) -> Idle:
    seconds = max(2.0, SECONDS * options.scale)
    async with start(fresh(options.root, name)) as contestant:
        await asyncio.sleep(max(2.0, SETTLE * options.scale))
        await asyncio.sleep(away_from_minutes(time.time()))
        before, begin = _used(contestant), time.time()
        await asyncio.sleep(seconds)
        after, end = _used(contestant), time.time()
        shares = {process: 100 * (after[process] - before.get(process, 0.0)) / (end - begin) for process in after}
        started = await _started(contestant, begin, end) if contestant.temporal else {}
    return Idle(
        own=sum(share for process, share in shares.items() if process not in SERVERS),
        servers=sum(share for process, share in shares.items() if process in SERVERS),
        by_process=shares,
        workflows=started,
        needed=needed(begin, end),
        seconds=end - begin,
    )


def away_from_minutes(now: float) -> float:
    """Seconds until no full minute is nearer than `MARGIN`."""
    into = now % 60
    return (MARGIN - into) % 60 if into < MARGIN or into > 60 - MARGIN else 0.0


def needed(begin: float, end: float) -> int:
    """Number of workflows that the schedules start between two times, with an ImportBatch for each health batch.

    Temporal counts intervals from the beginning of 1970.
    """
    due = {
        name: int(end // cadence.every) - int(begin // cadence.every)
        for name, cadence in DEFAULT_CADENCES.items()
        if cadence.every is not None
    }
    return sum(due.values()) + due[SYSTEM_MONITORING]


def _used(contestant: Contestant) -> dict[str, float]:
    """Seconds of CPU that each process and its children have used."""
    used = {}
    for name, pid in contestant.pids().items():
        family = [psutil.Process(pid)]
        if name != SUPERVISOR:  # everything else is its child
            family += family[0].children(recursive=True)
        used[name] = 0.0
        for process in family:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used[name] += times.user + times.system
                if name != SUPERVISOR:
                    used[name] += times.children_user + times.children_system
    return used


async def _started(contestant: Contestant, begin: float, end: float) -> dict[str, int]:
    await asyncio.sleep(VISIBLE)
    first, last = (datetime.fromtimestamp(at, UTC).isoformat() for at in (begin, end))
    started = Counter[str]()
    for namespace in NAMESPACES:
        client = await Client.connect(contestant.temporal, namespace=namespace)
        async for execution in client.list_workflows(f"StartTime >= '{first}' AND StartTime < '{last}'"):
            started[execution.workflow_type] += 1
    return dict(started)


def _shares(rounds: Sequence[Idle]) -> str:
    """The share of each own process in the median round, in words."""
    middle = sorted(rounds, key=lambda each: each.own)[len(rounds) // 2]
    return ", ".join(f"{process} {share:.1f}" for process, share in middle.by_process.items() if process not in SERVERS)
