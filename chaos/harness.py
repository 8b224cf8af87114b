"""One run: start an Airlock, put it under load, do the faults, wait until all is answered, compare everything."""

import asyncio
import contextlib
import json
import shutil
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from chaos.airports import expected
from chaos.census import take_census
from chaos.faults import Done, carry_out
from chaos.judging import Discrepancy, Fate, judge_answers, judge_census, judge_settings
from chaos.ledger import Ledger, read_ledger
from chaos.leftovers import left_running
from chaos.plan import Fault
from chaos.running import Airlock, CannotRun, environment_for, last_lines, spawn
from chaos.summary import Summary, summarise

SETTLE_SECONDS = 120.0
"""Seconds after the last result until the settings have crossed, everything runs and can be checked."""
SURE_AFTER = 3
"""Times in a row that `verify` says the same, and it will not change."""
TELL_EVERY = 10.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)
LEDGER = "ledger.ndjson"
AWAY = ("source-unavailable", "timeout")
"""Reasons with which a request may fail because of a fault."""
AFTER = 60.0
"""Seconds after a fault in which a failure may still be because of it: three tries of up to ten seconds each."""
SOURCES = ("postgres", "response-worker")
"""Processes whose faults keep a source from being read."""


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    seed: int
    minutes: float
    rate: float
    plan: Sequence[Fault]
    directory: Path | None = None
    """Where everything is kept; by default in a temporary directory."""
    keep: bool = False
    """Whether a temporary directory is kept even when all is well."""
    patience: float = 300.0
    """Seconds from the last submission until everything must be answered."""


class Harness:
    """One run. ``say`` gets a line of progress at a time."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._directory = options.directory or Path(tempfile.mkdtemp(prefix="airlock-chaos-"))
        self._airlock = Airlock(self._directory)
        self._done: list[Done] = []
        self._under_way: list[Fault] = []
        self._progress: dict[str, Any] = {}
        self._found: list[Discrepancy] = []
        self._verdict_of_verify = "not run"

    async def run(self) -> Summary:
        """From start to stop. SIGINT and SIGTERM end it early, in order. Raises `CannotRun`."""
        _prepare(self._directory)
        interrupted = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, interrupted.set)
        good = False
        try:
            summary = await self._run(interrupted)
            good = summary.is_good
            (self._directory / "summary.json").write_text(json.dumps(summary.as_json(), indent=2) + "\n")
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)
            if self._options.directory or self._options.keep or not good:
                self._say(f"everything is kept in {self._directory}")
            else:
                shutil.rmtree(self._directory)
        return summary

    async def _run(self, interrupted: asyncio.Event) -> Summary:
        try:
            finished = await _unless(interrupted, self._work())
        finally:
            self._say("stopping everything")
            trouble = await self._airlock.stop()
        if trouble:
            self._found.append(Discrepancy(Fate.BROKEN, "airlock up", "to stop in order", trouble))
        ledger = self._ledger()
        answers = list(judge_answers(ledger, expected, self._is_excused))
        if not finished:  # what is open might still have been answered
            answers = [each for each in answers if each.fate is not Fate.UNANSWERED]
        return summarise(
            self._options.seed,
            self._options.minutes,
            ledger,
            self._done,
            [*answers, *self._found],
            excused=sum(self._is_excused(read.body) for read in ledger.results.values()),
            restarts=self._airlock.restarts(),
            verify=self._verdict_of_verify,
            interrupted=not finished,
        )

    async def _work(self) -> None:
        self._say(f"starting a whole Airlock in {self._directory}")
        await self._airlock.start()
        await self._load_with_faults()
        if not self._found:
            self._say("the load has ended; comparing")
            await self._compare()

    async def _load_with_faults(self) -> None:
        options = self._options
        up = self._airlock.up
        log = self._directory / "load.log"
        load = await spawn(
            *("chaos.load", "--url", up["request_api"], "--settings-url", up["response_api"]),
            *("--ledger", str(self._directory / LEDGER), "--rate", str(options.rate), "--seed", str(options.seed)),
            *("--seconds", str(options.minutes * 60), "--patience", str(options.patience)),
            environment=environment_for(self._airlock.home)
            | {"CHAOS_KEY": up["api_key"], "CHAOS_OPERATOR_KEY": up["operator_key"]},
            log=log,
            piped=True,
        )
        assert load.stdout is not None
        await self._take_progress(await load.stdout.readline())
        ended, broke = asyncio.create_task(self._follow(load)), asyncio.create_task(self._airlock.ended())
        faults = asyncio.create_task(carry_out(options.plan, self._airlock, self._begun, self._ended))
        telling = asyncio.create_task(self._tell())
        try:
            await asyncio.wait({ended, broke}, return_when=asyncio.FIRST_COMPLETED)
            if faults.done():
                faults.result()
            if broke.done():
                self._found.append(
                    Discrepancy(Fate.BROKEN, "airlock up", "to stay until it is stopped", f"exit code {broke.result()}")
                )
            elif (code := ended.result()) not in (0, 1):
                raise CannotRun(f"the load generator ended with {code}:\n{last_lines(log)}")
        finally:
            await _end(faults, telling, broke)
            if load.returncode is None:
                load.terminate()
                await load.wait()
            await _end(ended)

    async def _follow(self, load: asyncio.subprocess.Process) -> int:
        assert load.stdout is not None
        async for line in load.stdout:
            await self._take_progress(line)
        return await load.wait()

    async def _take_progress(self, line: bytes) -> None:
        with contextlib.suppress(ValueError):
            self._progress = json.loads(line)

    async def _tell(self) -> None:
        begin = time.monotonic()
        while True:
            await asyncio.sleep(TELL_EVERY)
            said = self._progress
            faults = ", ".join(_in_words(fault) for fault in self._under_way) or "no fault"
            self._say(
                f"{time.monotonic() - begin:5.0f} s: {said['accepted']} accepted, {said['finished']} finished,"
                f" {said['outstanding']} outstanding, the oldest for {said['oldest']:.0f} s;"
                f" {len(self._done)} of {len(self._options.plan)} faults done, now {faults}"
            )

    def _begun(self, fault: Fault) -> None:
        self._under_way.append(fault)

    def _ended(self, done: Done) -> None:
        self._under_way.remove(done.fault)
        self._done.append(done)
        with (self._directory / "faults.ndjson").open("a") as file:
            file.write(json.dumps(done.as_json()) + "\n")

    async def _compare(self) -> None:
        """What can be seen only while it runs."""
        until = time.monotonic() + SETTLE_SECONDS
        self._found += await _settled(until, self._settings_trouble)
        self._found += await _settled(until, self._processes_trouble)
        self._found += await _settled(until, self._verify, SURE_AFTER)
        self._found += await _settled(until, self._left_running)
        census = await take_census(self._airlock.up["databases"])
        self._found += judge_census(self._ledger(), census)

    async def _settings_trouble(self) -> list[Discrepancy]:
        ledger = self._ledger()
        try:
            async with self._airlock.caller() as http:
                answer = await http.get("/v1/settings")
                answer.raise_for_status()
        except httpx.HTTPError as error:
            return [Discrepancy(Fate.BROKEN, "settings", "to be read", repr(error))]
        return list(judge_settings(ledger, {each["name"]: each["value"] for each in answer.json()["settings"]}))

    async def _processes_trouble(self) -> list[Discrepancy]:
        return [Discrepancy(Fate.BROKEN, name, "to run", "does not") for name in self._airlock.not_running()]

    async def _left_running(self) -> list[Discrepancy]:
        return [Discrepancy(Fate.LEFT, each, "no such run", "it runs") for each in await left_running(self._airlock.up)]

    async def _verify(self) -> list[Discrepancy]:
        code, said = await self._airlock.verify()
        self._verdict_of_verify = {0: "agrees", 1: "differs"}.get(code, "cannot be checked")
        if code == 1:
            return [
                Discrepancy(Fate.BROKEN, f"verify {report['stream']}", "no difference", json.dumps(difference))
                for report in json.loads(said)["streams"]
                for difference in report["differences"]
            ] or [Discrepancy(Fate.BROKEN, "verify", "exit code 0", said)]
        return [] if code == 0 else [Discrepancy(Fate.BROKEN, "verify", "exit code 0", f"{code}: {said}")]

    def _ledger(self) -> Ledger:
        path = self._directory / LEDGER
        return read_ledger(path) if path.exists() else Ledger()

    def _is_excused(self, body: Mapping[str, Any]) -> bool:
        """Whether it failed with a reason that a fault explains, while one did."""
        if body.get("status") != "failed" or (body.get("error") or {}).get("reason") not in AWAY:
            return False
        at = datetime.fromisoformat(body["executed_at"]).timestamp()
        return any(each.fault.target in SOURCES and each.began - 1 <= at <= each.ended + AFTER for each in self._done)


def _prepare(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise CannotRun(f"{directory} is not empty: name another directory, every run has one of its own")
    except OSError as error:
        raise CannotRun(f"{directory} cannot be used: {error}") from None


async def _unless(interrupted: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work; False when it was interrupted before its end."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(interrupted.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            return False
        working.result()
        return True
    finally:
        await _end(working, waiting)


async def _end(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _settled(
    until: float, look: Callable[[], Awaitable[list[Discrepancy]]], sure_after: int = 1_000_000
) -> list[Discrepancy]:
    """Look until there is nothing to be found, until the same was found ``sure_after`` times in a row, or until it is
    too late: then what was found last.
    """
    last, times = await look(), 1
    while last and times < sure_after and time.monotonic() < until:
        await asyncio.sleep(1)
        found = await look()
        last, times = found, times + 1 if found == last else 1
    return last


def _in_words(fault: Fault) -> str:
    lasting = f" for {fault.seconds:g} s" if fault.seconds else ""
    return f"{fault.kind.value} {fault.target}{lasting}"
