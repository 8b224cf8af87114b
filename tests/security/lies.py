"""Validly signed lies of a captured request network, for every call of the link. Seeded: a run can be replayed."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from exchange.link_keys.lists import KeyList
from exchange.wire.batch import to_bundle
from exchange.wire.messages import Heartbeat
from models.streams import StreamName
from tests.activities.crossing import LINK, new_id, request_record, result_record
from tests.link.false_server import Asked
from tests.security.captured import Captured, Chain, Lie, signed

TEXTS = ("", "\0", "\x1b]52;c;eA==\x07", "\u202eforged", "x" * 5000, "\n\r\t", "fork", "0198c0de", "%s {detail}")
NUMBERS: tuple[Any, ...] = (0, 1, 2, 5, 1000, 2**31 - 1, 2**31, 2**62, 2**63 - 1, 2**63, 10**30, -1, 1.5, None, "1", [])
STATUSES = (200, 204, 400, 401, 403, 404, 409, 409, 413, 423, 429, 500, 503)
MOMENTS = ("9999-12-31T23:59:59-14:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "1969-12-31T00:00:00Z")
HASHES = ("0" * 64, "ab" * 32, "xy", "")


class Lies:
    """Makes answers. What it says of the chain is often right, so that its lies reach the innermost checks."""

    def __init__(self, seed: int, captured: Captured) -> None:
        self._random = random.Random(seed)
        self._captured = captured
        self.kinds: dict[str, int] = {}

    def about(self, asked: Asked) -> Lie | None:
        """The lie about this call; some are the truth, where a lie would only stop the stream."""
        target = asked.target.partition("?")[0]
        is_push = asked.method == "POST" and target.endswith(("/batches", "/heartbeats", "/epochs"))
        if self._random.random() < (0.5 if is_push else 0.05):
            return None
        stream = target.split("/")[4] if target.startswith("/link/v1/streams/") else ""
        if self._random.random() < 0.25:
            return self._told("refusal", self._refusal())
        if target.endswith("/keys"):
            return self._told("keys", Lie(200, self._keys()))
        if target.endswith("/summaries"):
            question = orjson.loads(asked.body)
            return self._told(question["ask"], Lie(200, orjson.dumps(self._summary(stream, question))))
        if target.endswith(("/repairs", "/restorations")):
            again = self._random.random() < 0.5
            done = {"rebuilt": self._number(), "set_aside": self._number(), "taken_up_again": again}
            return self._told("repaired", Lie(200, self._json(done)))
        if asked.method == "GET" and target.endswith("/batches"):
            return self._told("answer", Lie(200, self._bundle()))
        if asked.method == "GET" and "/batches/" in target:
            return self._told("batch", Lie(200, self._wire()))
        if target.endswith(("/receipts", "/recoveries")):
            return self._told("taken", Lie(204))
        if target.endswith("/epochs") and stream == StreamName.REQUESTS:
            return self._told("heartbeat", Lie(200, self._message(Heartbeat.purpose, stream, "sequence")))
        return self._told("receipt", Lie(200, self._message("receipt", stream, "received", "applied", "quarantined")))

    def _told(self, kind: str, lie: Lie) -> Lie:
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        return lie

    def _one(self, *choices: Any) -> Any:
        return self._random.choice(choices)

    def _number(self) -> Any:
        return self._one(*NUMBERS) if self._random.random() < 0.3 else self._random.randrange(4)

    def _moment(self) -> Any:
        now = datetime.now(UTC)
        odd = (*MOMENTS, now + timedelta(hours=1), now - timedelta(hours=1))
        return self._one(*odd) if self._random.random() < 0.2 else now

    @staticmethod
    def _json(content: Any) -> bytes:
        return orjson.dumps(content, default=str) if _fits(content) else repr(content).encode()

    def _refusal(self) -> Lie:
        problem = {"type": f"urn:airlock:{self._one(*TEXTS)}", "detail": self._one(*TEXTS), "expected": self._number()}
        body = self._one(self._json(problem), b"", b"[" * 3000, b"\xff\x00", self._json(self._one(*TEXTS)))
        return Lie(422 if self._random.random() < 0.03 else self._one(*STATUSES), body)

    def _message(self, purpose: str, stream: str, *numbers: str) -> bytes:
        keys = self._captured.keys
        message: dict[str, Any] = {
            "link": self._one(LINK, LINK, LINK, "other"),
            "stream": stream,
            "epoch": self._one(1, 1, 1, 2, 3, 2**31 - 1, 2**31),
            "head": self._one(*HASHES),
            "key_id": keys.key_id,
            "issued_at": self._moment(),
        }
        message |= {name: self._number() for name in numbers}
        return signed(keys, purpose, {name: _capped(value) for name, value in message.items()})

    def _keys(self) -> bytes:
        keys = self._captured.keys
        own = [
            {"public_key": self._random.randbytes(32).hex()}
            | self._one({}, {}, {"revoked": True}, {"retires_at": self._moment()})
            for _ in range(self._random.randrange(13))
        ]
        message = {"link": LINK, "network": "request", "own": own, "known": [], "key_id": keys.key_id}
        return signed(keys, KeyList.purpose, message | {"issued_at": self._moment()})

    def _summary(self, stream: str, question: dict[str, Any]) -> dict[str, Any]:
        if question["ask"] == "head":
            epoch = self._one(1, 1, 2, 3, 50, 2**31 - 1)
            spans = [
                {"epoch": each, "through": _capped(self._one(0, 1, 3, 200, 2**62)), "previous_epoch": max(0, each - 1)}
                for each in range(max(1, epoch - 3), epoch + 1)
            ]
            return {
                "network": "request", "stream": stream, "epoch": epoch, "sequence": spans[-1]["through"],
                "record": self._one(0, 5, 2**62), "hash": self._one(*HASHES), "applied": self._one(0, 2**62),
                "stopped": self._one(None, *TEXTS), "epochs": spans, "read_at": self._moment(),
            }  # fmt: skip
        if question["ask"] == "digest":
            return {"count": self._one(0, 1, 5000, 2**62), "digest": self._one(*HASHES)}
        findings = [
            {
                "network": self._one("request", "request", "response"), "stream": stream,
                "table": self._one("requests", "results", "epochs", "sealed_batches", "nothing"),
                "kind": self._one("missing", "different", "extra"), "sequence": self._one(0, 1, 2, 2**62),
                "record": self._one(None, 1, 2**62), "request_id": str(new_id()), "detail": self._one(*TEXTS)[:500],
            }
            for _ in range(self._random.randrange(3))
        ]  # fmt: skip
        if question["ask"] == "orphans":
            return {"findings": findings}
        through = self._one(question["first"], question["last"], question["last"], 2**62)
        return {"through": through, "batches": _capped(self._number()), "findings": findings}

    def _bundle(self) -> bytes:
        wires = [self._wire() for _ in range(self._one(0, 1, 1, 1, 2, 3, 30))]
        return b"\xff\nabc" if self._random.random() < 0.1 else to_bundle(wires)

    def _wire(self) -> bytes:
        chain = self._captured.chain
        good = Chain(chain.keys, chain.stream, chain.epoch, chain.sequence, chain.record, chain.head)
        if self._random.random() < 0.3:
            lie = {
                self._one("stream", "epoch", "sequence", "first_record", "count", "parts", "raw_bytes", "sealed_at"):
                self._one("results", *MOMENTS, *(number for number in NUMBERS if _fits(number)))
            }  # fmt: skip
            return good.seal(self._records(), **lie)
        return chain.seal(self._records()) if self._random.random() < 0.9 else good.seal(self._records())

    def _records(self) -> list[bytes]:
        return [self._record() for _ in range(self._one(0, 1, 1, 1, 2, 3, 40))]

    def _record(self) -> bytes:
        request_id = new_id()
        record: bytes = self._one(
            request_record(request_id),
            request_record(request_id, self._one("rows", "nothing", "ro ws", "x" * 80)),
            request_record(request_id, params={"a": self._one(*TEXTS)}),
            request_record(request_id, submitted_at=self._one(*MOMENTS)),
            request_record(request_id, kind="cancellation"),
            result_record(request_id),
            b"{}", b"[]", b"null", b"\xff\x00", b"{" * 300, b"x" * 3000, b'"' + b"y" * 60_000 + b'"', b"",
        )  # fmt: skip
        return record


def _fits(content: Any) -> bool:
    """Whether orjson can write it."""
    try:
        orjson.dumps(content, default=str)
    except (TypeError, orjson.JSONEncodeError):
        return False
    return True


def _capped(number: Any) -> Any:
    return number if _fits(number) else 2**63 - 1
