"""The ledger: what the load generator sent and the answers that it got, line by line.

A line is a JSON object with ``at`` (Unix time, seconds) and ``kind``:

| kind | fields | means |
| --- | --- | --- |
| begin | seed, rate, seconds | the load began |
| intended | key, body, refused | will be sent with this Idempotency-Key; on disk before the first byte is sent |
| accepted | key, ids | an answer 202; once per answer |
| refused | key, status, text | a final answer that is no acceptance |
| result | id, body | the first final result that was read |
| again | id, digest | the digest of a result that was read again |
| missing | id, status, text | the answer for the result was that there is no such request |
| setting-intended | name, value, visibility | this change will be sent |
| setting-accepted | name, value, visibility | it was accepted |
| end | reason | the load ended: done, impatient or interrupted |
"""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class LedgerWriter:
    """Appends lines; `committed` returns when all lines so far are on disk, many with one fsync."""

    def __init__(self, path: Path) -> None:
        """Raises `FileExistsError`: a ledger is never continued."""
        self._file = path.open("xb", buffering=0)
        self._waiting: list[bytes] = []
        self._noted = 0
        self._durable = 0
        self._writing = asyncio.Lock()

    def record(self, kind: str, **fields: Any) -> None:
        """Append a line."""
        line = json.dumps({"at": round(time.time(), 6), "kind": kind, **fields}, separators=(",", ":"))
        self._waiting.append(line.encode() + b"\n")
        self._noted += 1

    async def committed(self) -> None:
        """Return once every line recorded before this call is on disk."""
        wanted = self._noted
        async with self._writing:
            if self._durable < wanted:
                lines, self._waiting = self._waiting, []
                await asyncio.to_thread(self._write, b"".join(lines))
                self._durable += len(lines)

    def _write(self, lines: bytes) -> None:
        while lines:
            lines = lines[self._file.write(lines) :]
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write the remaining lines and close the file."""
        self._write(b"".join(self._waiting))
        self._waiting.clear()
        self._file.close()


@dataclass
class Sent:
    """One Idempotency-Key: its requests and all answers."""

    key: str
    at: float
    requests: list[dict[str, Any]]
    refused: bool
    """Whether it must be refused."""
    answers: list[tuple[float, list[str]]] = field(default_factory=list)
    refusals: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Accepted:
    """One accepted request."""

    request_id: str
    sent: Sent
    type: str
    params: dict[str, Any]
    at: float
    """When the answer 202 was read."""


@dataclass(frozen=True)
class Read:
    """A final result as it was first read."""

    at: float
    body: dict[str, Any]


@dataclass
class Setting:
    """One setting: its intended changes, and the last accepted one."""

    accepted: Any = None
    accepted_changes: int = 0
    doubtful: list[Any] = field(default_factory=list)
    """Values sent after the last accepted one, without an answer: each may or may not be in force."""
    secret: bool = False


@dataclass
class Ledger:
    """The contents of a ledger."""

    begin: dict[str, Any] = field(default_factory=dict)
    sent: dict[str, Sent] = field(default_factory=dict)
    results: dict[str, Read] = field(default_factory=dict)
    again: dict[str, list[str]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Setting] = field(default_factory=dict)
    ended: str | None = None
    """Reason of the end; None if the load generator did not reach its end."""

    def accepted(self) -> Iterator[Accepted]:
        """Every accepted request, by the first answer to each key; if that has too few ids, only as many as it has."""
        for sent in self.sent.values():
            if sent.answers:
                at, ids = sent.answers[0]
                for request_id, request in zip(ids, sent.requests, strict=False):
                    yield Accepted(request_id, sent, request["type"], request.get("params", {}), at)


def read_ledger(path: Path) -> Ledger:
    """Read a ledger. An incomplete last line, as a killed writer leaves it, is skipped.

    Raises `ValueError` for an invalid line.
    """
    ledger = Ledger()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            try:
                _take(ledger, json.loads(line))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}: line {number} is no line of a ledger: {error!r}") from None
    return ledger


def digest(body: dict[str, Any]) -> str:
    """SHA-256 of a result without ``source``, which says where it was read."""
    same = {name: item for name, item in body.items() if name != "source"}
    return hashlib.sha256(json.dumps(same, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _take(ledger: Ledger, line: dict[str, Any]) -> None:
    match line["kind"]:
        case "begin":
            ledger.begin = line
        case "intended":
            body = line["body"]
            requests = body if isinstance(body, list) else [body]
            ledger.sent[line["key"]] = Sent(line["key"], line["at"], requests, line["refused"])
        case "accepted":
            ledger.sent[line["key"]].answers.append((line["at"], line["ids"]))
        case "refused":
            ledger.sent[line["key"]].refusals.append((line["status"], line["text"]))
        case "result":
            ledger.results.setdefault(line["id"], Read(line["at"], line["body"]))
        case "again":
            ledger.again.setdefault(line["id"], []).append(line["digest"])
        case "missing":
            ledger.missing[line["id"]] = f"status {line['status']}: {line['text']}"
        case "setting-intended":
            setting = ledger.settings.setdefault(line["name"], Setting(secret=line["visibility"] == "secret"))
            setting.doubtful.append(line["value"])
        case "setting-accepted":
            setting = ledger.settings[line["name"]]
            setting.accepted, setting.accepted_changes = line["value"], setting.accepted_changes + 1
            setting.doubtful.clear()
        case "end":
            ledger.ended = line["reason"]
        case unknown:
            raise ValueError(f"unknown kind {unknown!r}")
