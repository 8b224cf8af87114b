"""Ledgers made by hand, line by line, as the load generator would have written them."""

import json
from pathlib import Path
from typing import Any

from chaos.airports import expected
from chaos.ledger import Ledger, digest, read_ledger


class Written:
    """Builds a ledger; times are whatever the test says."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[dict[str, Any]] = []

    def line(self, kind: str, at: float = 0.0, **fields: Any) -> None:
        self._lines.append({"at": at, "kind": kind, **fields})

    def intend(self, key: str, *requests: dict[str, Any], refused: bool = False, at: float = 0.0) -> None:
        self.line("intended", at, key=key, body=list(requests), refused=refused)

    def accept(self, key: str, *ids: str, at: float = 0.0) -> None:
        self.line("accepted", at, key=key, ids=list(ids))

    def answer(self, request_id: str, request: dict[str, Any], /, at: float = 0.0, **changed: Any) -> None:
        """The right result, apart from what is changed, read twice."""
        body = right(request_id, request) | changed
        self.line("result", at, id=request_id, body=body)
        self.line("again", at, id=request_id, digest=digest(body | {"source": "database"}))

    def read(self) -> Ledger:
        self._path.write_text("".join(json.dumps(line) + "\n" for line in self._lines))
        return read_ledger(self._path)


def airport(iata: str = "IST") -> dict[str, Any]:
    return {"type": "airport", "params": {"iata": iata}}


def right(request_id: str, request: dict[str, Any]) -> dict[str, Any]:
    """The result that a request must have."""
    wanted = expected(request["type"], request["params"])
    return {
        "request_id": request_id,
        "status": wanted.status,
        "data": list(wanted.rows),
        "returned": len(wanted.rows),
        "total": wanted.total,
        "truncated": wanted.total != len(wanted.rows) if wanted.total is not None else False,
        "error": {"reason": wanted.reason, "message": "…"} if wanted.reason else None,
        "executed_at": "2026-11-22T12:00:00Z",
        "duration_ms": 1.5,
        "source": "cache",
    }
