"""The load generator: a program of its own that knows nothing of what it asks but HTTP, and writes the ledger.

    python -m chaos.load --url http://127.0.0.1:8000 --ledger ledger.ndjson --rate 40 --seconds 600 --seed 1

It submits at even times whether or not what came before is answered, asks again with the same Idempotency-Key until it
is told yes or no, waits for every result by long poll and reads each a second time. With ``--settings-url`` it
changes settings as well. Keys come from ``CHAOS_KEY`` and ``CHAOS_OPERATOR_KEY``, or from the command line. Every two
seconds a line of JSON on standard output says how far it is. Exits with 0 once everything is answered, with 1 when
something is not after ``--patience`` seconds, with 2 when a part of it broke, with 130 when it was interrupted by
SIGINT or SIGTERM; the ledger is complete in every case.
"""

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import signal
import sys
import time
import traceback
import zlib
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from chaos.ledger import LedgerWriter, digest
from chaos.workload import SettingChange, Submission, setting_changes, submissions

WAIT = 10.0
"""Seconds that one poll for a result may last."""
POLLS = 500
"""Polls at the same time."""
SHARE = 20
"""Polls of one client: every call costs httpx a look at all connections of its pool."""
CROWDED_WAIT = 3.0
"""Seconds that a poll may last while more requests are outstanding than `POLLS`: others wait for their turn."""
UNANSWERED = 2000
"""Submissions without an answer beyond which no further ones are made: an outage must not pile up without end."""
PROGRESS = 2.0
SETTING_EVERY = 2.0
"""Seconds from one change of a setting to the next."""
AGAIN = (1.0, 20.0)
"""Seconds after which a result is read a second time; at most a quarter of the load's length."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds before the second try, which double with each, up to the longest."""


class Load:
    """One run."""

    def __init__(self, options: argparse.Namespace, ledger: LedgerWriter) -> None:
        self._options = options
        self._ledger = ledger
        self._chance = random.Random(options.seed)  # noqa: S311, only spreads tries over time
        self._submitting = _client(options.url, options.key, 100)
        self._readers = [_client(options.url, options.key, SHARE) for _ in range(math.ceil(options.polls / SHARE))]
        self._polls = [asyncio.Semaphore(SHARE) for _ in self._readers]
        self._unanswered = asyncio.Semaphore(UNANSWERED)
        self._known: set[str] = set()
        self._open: dict[str, float] = {}
        """Accepted requests without a result yet, the oldest first: id → when accepted."""
        self._counts = {"submitted": 0, "finished": 0, "settings": 0}
        self._tasks: set[asyncio.Task[object]] = set()
        self._broken: BaseException | None = None

    async def run(self) -> str:
        """Ask for everything and wait for all of it; gives the reason of the end: done, impatient or broken."""
        options = self._options
        self._ledger.note("begin", seed=options.seed, rate=options.rate, seconds=options.seconds)
        beside = [asyncio.create_task(work) for work in (self._tell(), self._keep_writing())]
        begin = time.monotonic()
        try:
            if options.settings_url:
                self._do(self._change_settings(begin + options.seconds))
            for submission in submissions(options.seed, options.rate, options.seconds):
                await asyncio.sleep(max(0.0, begin + submission.at - time.monotonic()))
                await self._unanswered.acquire()
                self._do(self._submit(submission))
            until = begin + options.seconds + options.patience
            while self._tasks and not self._broken and (left := until - time.monotonic()) > 0:
                await asyncio.wait(self._tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            return "broken" if self._broken else "impatient" if self._tasks else "done"
        finally:
            ending = [*beside, *self._tasks]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            self._say()
            await self._submitting.aclose()
            await asyncio.gather(*(reader.aclose() for reader in self._readers))

    def _do(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            traceback.print_exception(error)
            self._broken = error

    async def _submit(self, submission: Submission) -> None:
        self._ledger.note("intended", key=submission.key, body=submission.body, refused=submission.refused)
        await self._ledger.committed()
        self._counts["submitted"] += len(submission.requests)
        if submission.repeat == "together":
            self._do(self._send(submission))
        accepted = await self._send(submission)
        self._unanswered.release()
        if submission.repeat == "afterwards" and accepted:
            await asyncio.sleep(self._chance.uniform(0, 5))
            await self._send(submission)

    async def _send(self, submission: Submission) -> bool:
        """Send until there is an answer that counts; whether it is yes. Each new id is followed to its result."""
        headers = {"Idempotency-Key": submission.key, "Content-Type": "application/json"}
        answer = await self._answer(
            lambda: self._submitting.post("/v1/requests", content=submission.content, headers=headers)
        )
        if answer.status_code != 202:
            self._ledger.note("refused", key=submission.key, status=answer.status_code, text=answer.text[:500])
            return False
        ids: list[str] = answer.json()["ids"]
        self._ledger.note("accepted", key=submission.key, ids=ids)
        for request_id in ids:
            if request_id not in self._known:
                self._known.add(request_id)
                self._open[request_id] = time.monotonic()
                self._do(self._follow(request_id))
        return True

    async def _follow(self, request_id: str) -> None:
        """Read the result when it is there, and once more later."""
        body = await self._result(request_id)
        del self._open[request_id]
        if body is None:
            return
        self._counts["finished"] += 1
        self._ledger.note("result", id=request_id, body=body)
        soonest, latest = AGAIN
        await asyncio.sleep(self._chance.uniform(soonest, min(latest, self._options.seconds / 4)))
        if (body := await self._result(request_id)) is not None:
            self._ledger.note("again", id=request_id, digest=digest(body))

    async def _result(self, request_id: str) -> dict[str, Any] | None:
        """The final result, however long it takes; None where there is no such request."""
        path = f"/v1/requests/{request_id}/result"
        which = zlib.crc32(request_id.encode()) % len(self._readers)
        while True:
            async with self._polls[which]:
                query = {"wait": WAIT if len(self._open) <= POLLS else CROWDED_WAIT}
                answer = await self._answer(partial(self._readers[which].get, path, params=query))
            if answer.status_code == 200:
                body: dict[str, Any] = answer.json()
                return body
            if answer.status_code != 202:
                self._ledger.note("missing", id=request_id, status=answer.status_code, text=answer.text[:500])
                return None

    async def _change_settings(self, until: float) -> None:
        """Change settings one after another, each until it is accepted; the last one stands."""
        http = _client(self._options.settings_url, self._options.operator_key, 2)
        async with http:
            for change in setting_changes(self._options.seed):
                if time.monotonic() >= until:
                    return
                await self._change(http, change)
                await asyncio.sleep(SETTING_EVERY)

    async def _change(self, http: httpx.AsyncClient, change: SettingChange) -> None:
        said = {"value": change.value, "visibility": change.visibility}
        self._ledger.note("setting-intended", name=change.name, **said)
        await self._ledger.committed()
        answer = await self._answer(lambda: http.put(f"/v1/settings/{change.name}", json=said))
        answer.raise_for_status()
        self._ledger.note("setting-accepted", name=change.name, **said)
        self._counts["settings"] += 1

    async def _answer(self, call: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        """Call until there is an answer that asking again will not change."""
        pause = FIRST_PAUSE
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await call()
                if answer.status_code < 500 and answer.status_code != 429:
                    return answer
            await asyncio.sleep(pause * self._chance.uniform(0.5, 1))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            await self._ledger.committed()

    async def _tell(self) -> None:
        while True:
            self._say()
            await asyncio.sleep(PROGRESS)

    def _say(self) -> None:
        oldest = next(iter(self._open.values()), None)
        waiting = {"accepted": len(self._known), "outstanding": len(self._open), "at_work": len(self._tasks)}
        waited = 0.0 if oldest is None else round(time.monotonic() - oldest, 1)
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps({**self._counts, **waiting, "oldest": waited}), flush=True)


def _client(url: str, key: str, connections: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"},
        timeout=httpx.Timeout(WAIT + 5, connect=5, pool=None),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        trust_env=False,
    )


async def _until_stopped(options: argparse.Namespace) -> int:
    ledger = LedgerWriter(options.ledger)
    loop, work = asyncio.get_running_loop(), asyncio.ensure_future(Load(options, ledger).run())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, work.cancel)
    try:
        reason = await work
    except asyncio.CancelledError:
        reason = "interrupted"
    ledger.note("end", reason=reason)
    ledger.close()
    return {"done": 0, "impatient": 1, "broken": 2}.get(reason, 130)


def main() -> int:
    """Read the command line and run; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="where requests are submitted and results read")
    parser.add_argument("--key", default=os.environ.get("CHAOS_KEY", ""), help="whose requests they are")
    parser.add_argument("--ledger", type=Path, required=True, help="file to write; there must be none yet")
    parser.add_argument("--rate", type=float, default=20.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long requests are submitted")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds after that until all must be answered")
    parser.add_argument("--polls", type=int, default=POLLS, help="polls for a result at the same time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settings-url", default="", help="where settings are changed; none are without it")
    parser.add_argument("--operator-key", default=os.environ.get("CHAOS_OPERATOR_KEY", ""), help="who changes settings")
    return asyncio.run(_until_stopped(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
