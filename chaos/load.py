"""The load generator: a separate program that knows only the HTTP API, and writes the ledger.

    python -m chaos.load --url http://127.0.0.1:8000 --ledger ledger.ndjson --rate 40 --seconds 600 --seed 1

It submits at a constant rate whether or not earlier submissions are answered. While 200 are not, it waits, and then
catches up. It retries with the same Idempotency-Key until there is a final answer, waits for every result by long poll,
and reads each result twice. With ``--settings-url`` it changes settings as well. Keys come from ``CHAOS_KEY`` and
``CHAOS_OPERATOR_KEY``, or from the command line. Every two seconds it prints its progress as a line of JSON. Exit codes
are 0 if everything is answered, 1 if something is not after ``--patience`` seconds, 2 if the generator failed, and 130
after SIGINT or SIGTERM. The ledger is complete in every case.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from chaos.connection import Connections, as_call
from chaos.ledger import LedgerWriter, digest
from chaos.workload import SettingChange, Submission, setting_changes, submissions

WAIT = 10.0
"""Seconds of one poll for a result, at most."""
PATIENCE = WAIT + 5
"""Seconds of any call, at most."""
POLLS = 2000
"""Polls at the same time."""
CROWDED_WAIT = 3.0
"""Seconds of a poll while more requests are outstanding than may be polled at the same time."""
UNANSWERED = 200
"""Submissions without an answer, at most: further ones wait."""
PROGRESS = 2.0
SETTING_EVERY = 2.0
"""Seconds from one change of a setting to the next."""
AGAIN = (1.0, 20.0)
"""Seconds after which a result is read again, from and to; at most a quarter of the load's duration."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds before the second try; they double with each, up to the longest."""


class Load:
    """One run."""

    def __init__(self, options: argparse.Namespace, ledger: LedgerWriter) -> None:
        self._options = options
        self._ledger = ledger
        self._chance = random.Random(options.seed)  # noqa: S311, only spreads tries over time
        self._api = _Api(options.url, options.key)
        self._polls = asyncio.Semaphore(options.polls)
        self._unanswered = asyncio.Semaphore(UNANSWERED)
        self._known: set[str] = set()
        self._open: dict[str, float] = {}
        """Accepted requests without a result, oldest first: id → time of acceptance."""
        self._counts = {"submitted": 0, "finished": 0, "settings": 0}
        self._tasks: set[asyncio.Task[object]] = set()
        self._broken: BaseException | None = None

    async def run(self) -> str:
        """Submit everything and wait for all results; returns the reason of the end: done, impatient or broken."""
        options = self._options
        self._ledger.record("begin", seed=options.seed, rate=options.rate, seconds=options.seconds)
        background = [asyncio.create_task(work) for work in (self._tell(), self._keep_writing())]
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
            ending = [*background, *self._tasks]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            self._say()

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
        self._ledger.record("intended", key=submission.key, body=submission.body, refused=submission.refused)
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
        """Send until there is a final answer; returns whether it is 202. Each new id is followed to its result."""
        call = self._api.call("POST", "/v1/requests", submission.content, {"Idempotency-Key": submission.key})
        status, body = await self._answer(self._api, call)
        if status != 202:
            self._ledger.record("refused", key=submission.key, status=status, text=_text(body))
            return False
        ids: list[str] = json.loads(body)["ids"]
        self._ledger.record("accepted", key=submission.key, ids=ids)
        for request_id in ids:
            if request_id not in self._known:
                self._known.add(request_id)
                self._open[request_id] = time.monotonic()
                self._do(self._follow(request_id))
        return True

    async def _follow(self, request_id: str) -> None:
        """Wait for the result, and read it again later."""
        body = await self._result(request_id)
        del self._open[request_id]
        if body is None:
            return
        self._counts["finished"] += 1
        self._ledger.record("result", id=request_id, body=body)
        soonest, latest = AGAIN
        await asyncio.sleep(self._chance.uniform(soonest, min(latest, self._options.seconds / 4)))
        if (body := await self._result(request_id)) is not None:
            self._ledger.record("again", id=request_id, digest=digest(body))

    async def _result(self, request_id: str) -> dict[str, Any] | None:
        """The final result, however long it takes; None if there is no such request."""
        status = 202
        while status == 202:
            async with self._polls:
                wait = WAIT if len(self._open) <= self._options.polls else CROWDED_WAIT
                call = self._api.call("GET", f"/v1/requests/{request_id}/result?wait={wait:g}")
                status, answer = await self._answer(self._api, call)
        if status == 200:
            body: dict[str, Any] = json.loads(answer)
            return body
        self._ledger.record("missing", id=request_id, status=status, text=_text(answer))
        return None

    async def _change_settings(self, until: float) -> None:
        """Change settings one after another, each until it is accepted."""
        api = _Api(self._options.settings_url, self._options.operator_key)
        for change in setting_changes(self._options.seed):
            if time.monotonic() >= until:
                return
            await self._change(api, change)
            await asyncio.sleep(SETTING_EVERY)

    async def _change(self, api: "_Api", change: SettingChange) -> None:
        said = {"value": change.value, "visibility": change.visibility}
        self._ledger.record("setting-intended", name=change.name, **said)
        await self._ledger.committed()
        status, body = await self._answer(
            api, api.call("PUT", f"/v1/settings/{change.name}", json.dumps(said).encode())
        )
        if not 200 <= status < 300:
            raise RuntimeError(f"a change of {change.name} was answered with {status}: {_text(body)}")
        self._ledger.record("setting-accepted", name=change.name, **said)
        self._counts["settings"] += 1

    async def _answer(self, api: "_Api", call: bytes) -> tuple[int, bytes]:
        """Call until there is a final answer, which is no 429 or 5xx; returns its status and body."""
        pause = FIRST_PAUSE
        while True:
            status, body = await api.connections.call(call)
            if 0 < status < 500 and status != 429:
                return status, body
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


class _Api:
    """One caller of an HTTP API."""

    def __init__(self, address: "Address", key: str) -> None:
        self.connections = Connections(address.port, address.host, PATIENCE)
        self._host = f"{address.host}:{address.port}"
        self._headers = {"Authorization": f"Bearer {key}"}

    def call(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
        """The bytes of a call."""
        return as_call(method, path, body, {**self._headers, **(headers or {})}, self._host)


class Address(NamedTuple):
    """The address of an HTTP API."""

    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        """Parse a URL. Raises `argparse.ArgumentTypeError` if it is not the address of an HTTP API."""
        there = urlsplit(url)
        if there.scheme != "http" or not there.hostname or there.path.strip("/"):
            raise argparse.ArgumentTypeError(f"{url!r} is no address of an HTTP API, as http://127.0.0.1:8000 is")
        return cls(there.hostname, there.port or 80)


def _text(body: bytes) -> str:
    return body.decode(errors="replace")[:500]


async def _until_stopped(options: argparse.Namespace) -> int:
    ledger = LedgerWriter(options.ledger)
    loop, work = asyncio.get_running_loop(), asyncio.ensure_future(Load(options, ledger).run())
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, work.cancel)
    try:
        reason = await work
    except asyncio.CancelledError:
        reason = "interrupted"
    ledger.record("end", reason=reason)
    ledger.close()
    return {"done": 0, "impatient": 1, "broken": 2}.get(reason, 130)


def main() -> int:
    """Parse the command line and run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", type=Address.of, required=True, help="the request API")
    parser.add_argument("--key", default=os.environ.get("CHAOS_KEY", ""), help="API key of a user")
    parser.add_argument("--ledger", type=Path, required=True, help="file to write; it must not exist")
    parser.add_argument("--rate", type=float, default=20.0, help="requests per second")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long requests are submitted")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds after that until all must be answered")
    parser.add_argument("--polls", type=int, default=POLLS, help="polls for a result at the same time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--settings-url", type=Address.of, help="the response API, where settings are changed; without it none are"
    )
    parser.add_argument(
        "--operator-key", default=os.environ.get("CHAOS_OPERATOR_KEY", ""), help="API key of an operator"
    )
    return asyncio.run(_until_stopped(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
