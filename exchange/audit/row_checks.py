"""Compares the rows of a network with the records of its batches."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.audit.digests import arrived_digest, executed_digest, request_digest, requests_digest, results_digest
from exchange.audit.stored_rows import (
    arrived_rows,
    cancelled_among,
    executed_rows,
    extra_rows,
    groups_past_retention,
    request_rows,
    requests_past_retention,
)
from exchange.audit.summaries import Audit, Finding, Kind
from exchange.transfer.quarantine_store import quarantined_numbers
from execution.answer import to_json
from models.requests import RequestRecord
from models.streams import Network, StreamName


@dataclass(frozen=True)
class Line:
    """One record of a batch."""

    sequence: int
    number: int
    body: bytes


@dataclass(frozen=True)
class Part:
    """The records of one batch."""

    sequence: int
    first_record: int
    bodies: list[bytes]
    done_at: datetime | None


@dataclass
class Window:
    """Consecutive batches that are compared together."""

    parts: list[Part] = field(default_factory=list)
    records: int = 0
    raw_bytes: int = 0

    def add(self, part: Part, raw_bytes: int) -> None:
        self.parts.append(part)
        self.records += len(part.bodies)
        self.raw_bytes += raw_bytes

    @property
    def sequences(self) -> list[int]:
        return [part.sequence for part in self.parts]

    def bodies(self) -> Iterator[bytes]:
        return (body for part in self.parts for body in part.bodies)

    def lines(self) -> list[Line]:
        return [
            Line(part.sequence, number, body)
            for part in self.parts
            for number, body in enumerate(part.bodies, part.first_record)
        ]


@dataclass(frozen=True)
class RowChecks:
    """Compares rows of one log stream in one transaction. ``retention`` in seconds; ``now`` is the database's time."""

    connection: AsyncConnection
    network: Network
    stream: StreamName
    epoch: int
    retention: float
    now: datetime

    async def check(self, window: Window, outcome: Audit) -> None:
        """Compare the window's records as a whole or, if that differs, one by one. Adds to ``outcome``."""
        aside: set[int] = set()
        if self.stream.receiver is self.network:
            first, last = window.parts[0], window.parts[-1]
            records = last.first_record + len(last.bodies) - first.first_record
            aside = await quarantined_numbers(self.connection, self.stream, self.epoch, first.first_record, records)
        results = self.stream is StreamName.RESULTS
        if not aside and await (self._all_results(window) if results else self._all_requests(window)):
            outcome.agree += window.records
            return
        lines = window.lines()
        here = [line for line in lines if line.number not in aside]
        outcome.quarantined += len(lines) - len(here)
        await (self._results if results else self._requests)(here, lines, window, outcome)

    async def _all_results(self, window: Window) -> bool:
        """Whether all rows of results agree and there is no extra one."""
        wanted = await asyncio.to_thread(results_digest, window.bodies())  # the API's other calls go on meanwhile
        if wanted is None:
            return False
        if self.network is Network.RESPONSE:
            return await executed_digest(self.connection, wanted.ids) == (wanted.count, wanted.digest)
        found = await arrived_digest(self.connection, self.epoch, window.sequences)
        return found == (wanted.count, wanted.digest, True)

    async def _all_requests(self, window: Window) -> bool:
        read = await asyncio.to_thread(requests_digest, window.bodies())
        if read is None:
            return False
        wanted, cancelled = read
        found = await request_digest(self.connection, self.epoch, window.sequences)
        if found != (wanted.count, wanted.digest):
            return False
        return self.network is Network.REQUEST or await cancelled_among(self.connection, cancelled) >= set(cancelled)

    async def _results(self, lines: Sequence[Line], every: Sequence[Line], window: Window, outcome: Audit) -> None:
        read = await asyncio.to_thread(_results_of, every)
        wanted: dict[UUID, tuple[Line, str, bytes]] = {}
        for line in lines:
            if (named := read.get(line.number)) is None:
                outcome.findings.append(self._finding(line, None, Kind.DIFFERENT, "the record is no result"))
            else:
                wanted[named[0]] = (line, named[1], named[2])
        look = arrived_rows if self.network is Network.REQUEST else executed_rows
        found = await look(self.connection, list(wanted))
        past = await self._past_results([item for item in wanted if item not in found])
        for request_id, (line, status, digest) in wanted.items():
            row = found.get(request_id)
            if row is None and request_id in past:
                outcome.past_retention += 1
            elif row is None:
                outcome.findings.append(self._finding(line, request_id, Kind.MISSING, "no row"))
            else:
                differs = [
                    name
                    for name, same in (
                        ("body", row[1] == digest),
                        ("status", row[2] == status),
                        ("owner", row[3]),
                    )
                    if not same
                ]
                self._compared(line, request_id, differs, outcome)
        if self.network is Network.REQUEST:
            await self._extra(window, [named[0] for named in read.values()], outcome)

    async def _past_results(self, missing: Sequence[UUID]) -> set[UUID]:
        """Which of these results may be deleted: their group is past retention or, if it is unknown, their id is."""
        old = {item for item in missing if (made := made_at(item)) is not None and self._is_old(made)}
        if self.network is Network.RESPONSE:
            return old
        there, past = await requests_past_retention(self.connection, missing, self.retention)
        return past | (old - there)

    async def _requests(self, lines: Sequence[Line], every: Sequence[Line], window: Window, outcome: Audit) -> None:
        wanted: dict[UUID, tuple[Line, RequestRecord]] = {}
        cancelled: dict[UUID, tuple[Line, RequestRecord]] = {}
        read = await asyncio.to_thread(_requests_of, lines)
        for line in lines:
            if (record := read.get(line.number)) is None:
                if self.network is self.stream.sender:
                    outcome.quarantined += 1  # sealed while captured; its receiver set it aside
                else:
                    outcome.findings.append(self._finding(line, None, Kind.DIFFERENT, "the record is no request"))
                continue
            (wanted if record.kind == "request" else cancelled)[record.request_id] = (line, record)
        found = await request_rows(self.connection, list(wanted))
        past = await self._past_batches(window)
        for request_id, (line, record) in wanted.items():
            row = found.get(request_id)
            if row is not None:
                self._compared(line, request_id, request_differs(record, row), outcome)
            elif line.sequence in past:
                outcome.past_retention += 1
            else:
                outcome.findings.append(self._finding(line, request_id, Kind.MISSING, "no row"))
        await self._cancellations(cancelled, past, outcome)
        held = [UUID(named) for line in every if (named := request_named(line.body))]
        await self._extra(window, held, outcome)

    async def _cancellations(
        self, cancelled: dict[UUID, tuple[Line, RequestRecord]], past: set[int], outcome: Audit
    ) -> None:
        """Only the response network has a row for a cancellation."""
        if self.network is Network.REQUEST:
            outcome.agree += len(cancelled)
            return
        known = await cancelled_among(self.connection, list(cancelled))
        for request_id, (line, _) in cancelled.items():
            if request_id in known:
                outcome.agree += 1
            elif line.sequence in past:
                outcome.past_retention += 1
            else:
                finding = self._finding(line, request_id, Kind.MISSING, "no row")
                outcome.findings.append(finding.model_copy(update={"table": "cancellations"}))

    async def _past_batches(self, window: Window) -> set[int]:
        if self.network is Network.REQUEST:
            return await groups_past_retention(self.connection, self.epoch, window.sequences, self.retention)
        return {part.sequence for part in window.parts if part.done_at and self._is_old(part.done_at)}

    async def _extra(self, window: Window, ids: Sequence[UUID], outcome: Audit) -> None:
        found = await extra_rows(self.connection, self.stream, self.epoch, window.sequences, ids)
        for sequence, request_id in found:
            line = Line(sequence, 0, b"")
            outcome.findings.append(self._finding(line, request_id, Kind.EXTRA, "its batch does not hold it"))

    def _compared(self, line: Line, request_id: UUID, differs: Sequence[str], outcome: Audit) -> None:
        if differs:
            detail = f"not as in the batch: {', '.join(differs)}"
            outcome.findings.append(self._finding(line, request_id, Kind.DIFFERENT, detail))
        else:
            outcome.agree += 1

    def _finding(self, line: Line, request_id: UUID | None, kind: Kind, detail: str) -> Finding:
        return Finding(
            network=self.network,
            stream=self.stream,
            table="results" if self.stream is StreamName.RESULTS else "requests",
            kind=kind,
            epoch=self.epoch,
            sequence=line.sequence,
            record=line.number or None,
            request_id=request_id,
            detail=detail,
        )

    def _is_old(self, moment: datetime) -> bool:
        return (self.now - moment).total_seconds() > self.retention


def made_at(request_id: UUID) -> datetime | None:
    """The time in a UUIDv7 (RFC 9562, 5.7); None for another version."""
    return datetime.fromtimestamp((request_id.int >> 80) / 1000, UTC) if request_id.version == 7 else None


def _loaded(body: bytes) -> dict[str, Any]:
    try:
        loaded = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return loaded if isinstance(loaded, dict) else {}


def result_named(body: bytes) -> tuple[UUID, str] | None:
    """Request id and status of a record that is a result; None for any other."""
    loaded = _loaded(body)
    try:
        return UUID(str(loaded["request_id"])), str(loaded["status"])
    except (KeyError, ValueError):
        return None


def _results_of(lines: Sequence[Line]) -> dict[int, tuple[UUID, str, bytes]]:
    """By record number: request id, status and the SHA-256 of the body. Records that are no results are left out."""
    return {
        line.number: (*named, hashlib.sha256(line.body).digest())
        for line in lines
        if (named := result_named(line.body))
    }


def _requests_of(lines: Sequence[Line]) -> dict[int, RequestRecord]:
    """By record number. Records that are neither requests nor cancellations are left out."""
    found = {}
    for line in lines:
        with suppress(ValidationError):
            found[line.number] = RequestRecord.model_validate_json(line.body)
    return found


def request_named(body: bytes) -> str | None:
    """The id in a record that is a request; None for any other."""
    loaded = _loaded(body)
    if loaded.get("kind", "request") != "request":
        return None
    try:
        return str(UUID(str(loaded.get("request_id"))))
    except ValueError:
        return None


def request_differs(record: RequestRecord, row: Any) -> list[str]:
    """The fields in which a stored request differs from its record."""
    same: dict[str, Callable[[], bool]] = {
        "owner": lambda: row.user_id == record.user_id,
        "type": lambda: row.type == record.type,
        "priority": lambda: row.priority == record.priority,
        "params": lambda: _params_agree(record.params, row.params),
        "submitted_at": lambda: row.submitted_at == record.submitted_at,
        "deadline_at": lambda: row.deadline_at == record.deadline_at,
    }
    return [name for name, holds in same.items() if not holds()]


def _params_agree(wanted: dict[str, Any], stored: bytes) -> bool:
    """Compare the JSON as bytes."""
    return to_json(wanted) == stored
