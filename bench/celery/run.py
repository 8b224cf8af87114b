"""One run: start the Celery build, put it under load and faults, wait for the load's end, count."""

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from redis.exceptions import RedisError

from bench.celery.outcome import Found, judge, look
from bench.celery.profiles import Profile
from bench.celery.servers import CADENCES, Pipeline, pipeline
from chaos.faults import Done, carry_out
from chaos.judging import judge_settings
from chaos.ledger import Ledger, read_ledger
from chaos.measuring import answered, quantile
from chaos.plan import Fault
from chaos.running import STARTED_AGAIN, environment_for, spawn
from chaos.summary import Summary, summarise

POLLS = 400
"""Polls for results at the same time: enough that a few hundred requests that are never answered do not block the
polls of the others."""
SETTLE = 2 * CADENCES["export-settings"] + 5
"""Seconds after the load's end until which the settings must have crossed."""


@dataclass(frozen=True)
class Run:
    """Options of a run. Times in seconds, apart from `minutes`."""

    seed: int
    minutes: float
    rate: float
    patience: float
    profile: Profile
    faults: str
    plan: tuple[Fault, ...]


@dataclass(frozen=True)
class Report:
    """The result of a run."""

    run: Run
    summary: Summary
    found: Found
    longest_wait: float
    """The longest time, in seconds, from a submission to its result or, without one, to the end of the run."""
    answered_late: int
    """Results that came after the last submission."""
    seen_after: float | None
    """Seconds from a result's arrival in the request network until the load read it, 99th percentile. More than one or
    two mean that the machine was too busy for a measurement."""


async def run(wanted: Run, directory: Path) -> Report:
    """Run everything in an empty directory."""
    log, ledger_file = directory / "servers.log", directory / "ledger.ndjson"
    with log.open("w") as written:
        async with pipeline(directory / "home", wanted.profile, written) as there:
            done = await _load_and_faults(wanted, there, directory, ledger_file)
            ended = time.time()
            ledger = read_ledger(ledger_file)
            found = await _settled(there, wanted.profile, ledger)
    restarts = Counter(match[1] for line in log.read_text().splitlines() if (match := STARTED_AGAIN.match(line)))
    summary = summarise(
        wanted.seed,
        wanted.minutes,
        ledger,
        done,
        judge(ledger, found),
        restarts=restarts,
        interrupted=ledger.ended not in ("done", "impatient"),
    )
    late, seen_after = _late(wanted, ledger), _seen_after(ledger, found)
    return Report(wanted, summary, found, longest_wait(ledger, ended), late, seen_after)


def longest_wait(ledger: Ledger, ended: float) -> float:
    """The longest wait of an accepted request for its result, or until ``ended``, a Unix time."""
    return max(
        (
            (ledger.results[each.request_id].at if each.request_id in ledger.results else ended) - each.sent.at
            for each in ledger.accepted()
        ),
        default=0.0,
    )


def _late(wanted: Run, ledger: Ledger) -> int:
    end = ledger.begin["at"] + wanted.minutes * 60
    return sum(each.answered > end for each in answered(ledger))


def _seen_after(ledger: Ledger, found: Found) -> float | None:
    both = ledger.results.keys() & found.arrived.keys()
    return quantile(sorted(ledger.results[each].at - found.arrived[each] for each in both), 0.99)


async def _load_and_faults(wanted: Run, there: Pipeline, directory: Path, ledger: Path) -> list[Done]:
    done: list[Done] = []
    load = await spawn(
        *("chaos.load", "--url", there.request_url, "--settings-url", there.response_url, "--ledger", str(ledger)),
        *("--rate", str(wanted.rate), "--seconds", str(wanted.minutes * 60), "--patience", str(wanted.patience)),
        *("--seed", str(wanted.seed), "--polls", str(POLLS)),
        environment=environment_for(directory) | {"CHAOS_KEY": there.api_key, "CHAOS_OPERATOR_KEY": there.api_key},
        log=directory / "load.log",
        piped=True,
    )
    faults = asyncio.create_task(carry_out(wanted.plan, there, _tell_begun, done.append))
    try:
        await _follow(load)
    finally:
        if load.returncode is None:
            load.terminate()
            await load.wait()
        faults.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await faults
    return done


async def _follow(load: asyncio.subprocess.Process) -> None:
    """Print the load's progress to standard error every 15 s; return at its end."""
    assert load.stdout is not None, "the load is started with a pipe"
    shown = 0.0
    async for line in load.stdout:
        if time.monotonic() - shown >= 15:
            shown = time.monotonic()
            counts = json.loads(line)
            _tell(", ".join(f"{name} {count}" for name, count in counts.items()))
    await load.wait()


async def _settled(there: Pipeline, profile: Profile, ledger: Ledger) -> Found:
    """Count once the settings have crossed, or when `SETTLE` is over."""
    until = time.monotonic() + SETTLE
    while True:
        late = time.monotonic() > until
        try:
            found = await look(there, profile)
            if late or not any(judge_settings(ledger, found.settings)):
                return found
        except (OSError, RedisError, asyncpg.PostgresError):  # it is being restarted
            if late:
                raise
        await asyncio.sleep(1)


def _tell_begun(fault: Fault) -> None:
    lasting = f" for {fault.seconds:g} s" if fault.seconds else ""
    _tell(f"{fault.at:6.1f} s  {fault.kind.value} {fault.target}{lasting}")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
