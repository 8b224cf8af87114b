"""The tasks of the response network: pull requests, execute them, export results and settings. Runs in `.venv-celery`.

Every task may run twice, at the same time or one after the other, and leaves the same rows. A row is committed before
the task that concerns it is sent, and a flag is set only after the other side has answered 2xx.
"""

import functools
import json
import os
import re
import time
from datetime import UTC, datetime
from typing import Any

import httpx
from kombu.exceptions import OperationalError as BrokerAway
from psycopg import DataError, OperationalError, ProgrammingError
from psycopg_pool import ConnectionPool, PoolTimeout

from bench.celery.app import app
from bench.celery.link_signature import HEADER, fits, sign
from sample.request_types import REQUEST_TYPES

TYPES = {kind["name"]: kind for kind in REQUEST_TYPES}
PAGE = int(os.environ.get("BENCH_PAGE", "500"))
"""Requests or results in one call."""
CHUNK = 10
"""Requests in one task."""
PULL_LOCK = 1
RETRIED: dict[str, Any] = {
    "autoretry_for": (OperationalError, PoolTimeout, httpx.HTTPError),
    "max_retries": None,
    "retry_backoff": True,
    "retry_backoff_max": 30,  # less than any visibility timeout: the broker must not deliver it again
    "retry_jitter": True,
}
_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
_WRAPPED = """
WITH answer AS MATERIALIZED ({query})
SELECT row_to_json(answer.*)::text, count(*) OVER () FROM answer LIMIT {limit}
"""


@functools.cache
def database() -> ConnectionPool:
    """The response network's database; opened in the child process that uses it, since connections survive no fork."""
    return _pool(os.environ["BENCH_DATABASE"])


@functools.cache
def source() -> ConnectionPool:
    """The airports, by a role that may only read."""
    return _pool(os.environ["BENCH_SOURCE"])


@functools.cache
def link() -> httpx.Client:
    """The request network's API. Connections are opened by this side alone."""
    return httpx.Client(base_url=os.environ["BENCH_LINK_URL"], timeout=30, trust_env=False)


def _pool(url: str) -> ConnectionPool:
    return ConnectionPool(url, min_size=1, max_size=2, timeout=10, check=ConnectionPool.check_connection, open=True)


@app.task
def pull_requests() -> int:
    """Fetch unconfirmed requests, store them, send tasks for them, then confirm them.

    Beat runs it again after a second, so there are no retries. One at a time: a second would send every task twice.
    """
    taken = 0
    with database().connection() as lock:
        if not lock.execute("SELECT pg_try_advisory_xact_lock(%s)", (PULL_LOCK,)).fetchone()[0]:
            return 0
        while page := _called("GET", f"/link/requests?limit={PAGE}")["requests"]:
            ids = [request["request_id"] for request in page]
            with database().connection() as connection, connection.cursor() as cursor:
                cursor.executemany(
                    "INSERT INTO requests (request_id, type, params) VALUES (%s, %s, %s)"
                    " ON CONFLICT (request_id) DO NOTHING",
                    [(request["request_id"], request["type"], json.dumps(request["params"])) for request in page],
                )
            send_executions(ids)
            _called("POST", "/link/requests/taken", {"request_ids": ids})
            taken += len(ids)
    return taken


@app.task(**RETRIED)
def execute_requests(request_ids: list[str]) -> None:
    """Execute requests and store a result for each, whether it completed or failed; the first result stays.

    Several per task, as the documentation advises for short work: a message for each would cost more than the work.
    """
    with database().connection() as connection:
        requests = connection.execute(
            "SELECT request_id, type, params FROM requests WHERE request_id = ANY(%s::uuid[])"
            " AND NOT EXISTS (SELECT FROM results WHERE results.request_id = requests.request_id)",
            (request_ids,),
        ).fetchall()
    for request_id, kind, params in requests:
        body = _executed(str(request_id), kind, params)
        with database().connection() as connection:
            connection.execute(
                "WITH done AS (INSERT INTO executions (request_id) VALUES (%(id)s))"
                " INSERT INTO results (request_id, body) VALUES (%(id)s, %(body)s) ON CONFLICT (request_id) DO NOTHING",
                {"id": request_id, "body": body},
            )
    try:
        export_results.delay()
    except BrokerAway:
        pass  # the results are stored: Beat's next export sends them


def send_executions(request_ids: list[str]) -> None:
    """Send the tasks that execute these. Raises `BrokerAway`; some may have been sent."""
    for begin in range(0, len(request_ids), CHUNK):
        execute_requests.delay(request_ids[begin : begin + CHUNK])


@app.task(**RETRIED)
def export_results() -> int:
    """Send unsent results, page by page. Several may run: each locks the rows that it takes."""
    sent = 0
    while True:
        with database().connection() as connection:
            rows = connection.execute(
                "SELECT request_id, body FROM results WHERE NOT exported ORDER BY finished_at LIMIT %s"
                " FOR UPDATE SKIP LOCKED",
                (PAGE,),
            ).fetchall()
            if not rows:
                return sent
            results = [{"request_id": str(request_id), "body": body} for request_id, body in rows]
            _called("POST", "/link/results", {"results": results})
            connection.execute(
                "UPDATE results SET exported = true WHERE request_id = ANY(%s)", ([row[0] for row in rows],)
            )
        sent += len(rows)


@app.task(**RETRIED)
def export_settings() -> int:
    """Send settings whose present version is unsent; the other side keeps the newest of each."""
    with database().connection() as connection:
        rows = connection.execute(
            "SELECT name, value, version FROM settings WHERE NOT exported AND visibility = 'public' FOR UPDATE"
        ).fetchall()
        if rows:
            settings = [{"name": name, "value": value, "version": version} for name, value, version in rows]
            _called("POST", "/link/settings", {"settings": settings})
            connection.execute("UPDATE settings SET exported = true WHERE name = ANY(%s)", ([row[0] for row in rows],))
    return len(rows)


@app.task
def sweep(age: float) -> int:
    """Send the task again for each request without a result for ``age`` seconds. Beat runs it periodically."""
    with database().connection() as connection:
        rows = connection.execute(
            "SELECT request_id FROM requests WHERE taken_at < now() - make_interval(secs => %s)"
            " AND NOT EXISTS (SELECT FROM results WHERE results.request_id = requests.request_id)"
            " ORDER BY taken_at LIMIT %s",
            (age, PAGE),
        ).fetchall()
    send_executions([str(request_id) for (request_id,) in rows])
    if _is_behind(age):
        export_results.delay()
    return len(rows)


def _is_behind(age: float) -> bool:
    with database().connection() as connection:
        found = connection.execute(
            "SELECT EXISTS (SELECT FROM results WHERE NOT exported"
            " AND finished_at < now() - make_interval(secs => %s))",
            (age,),
        ).fetchone()
    return bool(found[0])


def _called(method: str, target: str, content: dict[str, Any] | None = None) -> Any:
    """The other side's answer; raises `httpx.HTTPError` if it is no 2xx or its signature is wrong."""
    key = os.environ["BENCH_LINK_KEY"]
    body = b"" if content is None else json.dumps(content).encode()
    headers = {HEADER: sign(key, method, target, body), "Content-Type": "application/json"}
    answer = link().request(method, target, content=body, headers=headers)
    answer.raise_for_status()
    if not fits(key, method, target, answer.content, answer.headers.get(HEADER, "")):
        raise httpx.RemoteProtocolError("the answer's signature does not match")
    return json.loads(answer.content)


def _executed(request_id: str, kind: str, params: dict[str, Any]) -> str:
    """The result as JSON, in Airlock's form; raises `OperationalError` if the source is away."""
    begun = time.perf_counter()
    rows: list[str] = []
    total, error = None, None
    known = TYPES[kind]
    limit = known["limits"]["rows"]
    wanted = params.get(known["limits"].get("rows_param"))
    if isinstance(wanted, int):
        limit = min(limit, wanted)
    query = _WRAPPED.format(query=_PARAMETER.sub(r"%(\1)s", known["query"]), limit=limit)
    try:
        with source().connection() as connection:
            connection.execute(f"SET LOCAL statement_timeout = {known['limits']['timeout'] * 1000:d}")
            found = connection.execute(query, params).fetchall()
        rows, total = [row for row, _ in found], found[0][1] if found else 0
    except (DataError, ProgrammingError) as refused:
        error = {"reason": "invalid-params", "message": f"the database refused the query (SQLSTATE {refused.sqlstate})"}
    rest = {
        "returned": len(rows),
        "total": total,
        "truncated": total is not None and len(rows) < total,
        "error": error,
        "executed_at": datetime.now(UTC).isoformat(),
        "duration_ms": round((time.perf_counter() - begun) * 1000, 3),
    }
    status = "failed" if error else "completed"
    head = f'{{"request_id":"{request_id}","status":"{status}","data":['
    return head + ",".join(rows) + "]," + json.dumps(rest)[1:]
