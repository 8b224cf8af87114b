"""The first requests of a new installation. They show that both networks and the link work."""

import asyncio
import secrets
import time
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from rich.text import Text

from models.printable import printable

REQUESTS: list[dict[str, Any]] = [
    {"type": "airport", "params": {"iata": "IST"}, "name": "Istanbul's airport"},
    {"type": "airports-in-country", "params": {"country": "IS", "limit": 3}, "name": "Three airports of Iceland"},
    {
        "type": "airports-near",
        "params": {"latitude": 46.2, "longitude": 6.15, "radius_km": 60, "limit": 3},
        "name": "The three nearest to Geneva",
    },
]
READY_SECONDS = 60.0


class SampleFailed(Exception):
    """A sample request was not answered, or not completed."""


async def run_samples(request_api: str, api_key: str) -> None:
    """Submit the sample requests and print their results. Raises `SampleFailed` with the reason."""
    headers = {"Authorization": f"Bearer {api_key}"}
    async with httpx.AsyncClient(base_url=request_api, headers=headers, timeout=45, trust_env=False) as http:
        await _settings_have_crossed(http)
        started = time.perf_counter()
        answer = await http.post("/v1/requests", json=REQUESTS, headers={"Idempotency-Key": secrets.token_hex(16)})
        if answer.status_code != 202:
            raise SampleFailed(f"the sample requests were not accepted: {answer.status_code} {answer.text}")
        ids = answer.json()["ids"]
        results = await asyncio.gather(*(_result(http, request_id) for request_id in ids))
        elapsed = time.perf_counter() - started
    table = Table(title=f"{len(results)} sample requests, answered in {elapsed * 1000:.0f} ms", title_justify="left")
    for column in ("request", "status", "rows", "first row"):
        table.add_column(column)
    for request, result in zip(REQUESTS, results, strict=True):
        first = result["data"][0] if result["data"] else {}
        shown = ", ".join(str(first[key]) for key in ("iata", "name", "country", "distance_km") if first.get(key))
        told = (request["name"], result["status"], f"{result['returned']} of {result['total']}", shown)
        table.add_row(*(Text(printable(str(item))) for item in told))
        if result["status"] != "completed":
            raise SampleFailed(f"the sample request {request['name']!r} ended as {result['status']}: {result['error']}")
    Console().print(table)


async def _settings_have_crossed(http: httpx.AsyncClient) -> None:
    """Wait for the first settings snapshot, which makes the API key known in the request network."""
    until = time.monotonic() + READY_SECONDS
    while True:
        answer = await http.get("/v1/request-types")
        if answer.status_code == 200 and answer.json()["request_types"]:
            return
        if time.monotonic() > until:
            raise SampleFailed(
                f"no settings arrived in the request network within {READY_SECONDS:.0f} s (last answer:"
                f" {answer.status_code} {answer.text}); see the logs of response-worker and request-worker"
            )
        await asyncio.sleep(0.1)


async def _result(http: httpx.AsyncClient, request_id: str) -> dict[str, Any]:
    answer = await http.get(f"/v1/requests/{request_id}/result", params={"wait": 30})
    if answer.status_code != 200:
        raise SampleFailed(f"request {request_id} has no result after 30 s: {answer.status_code} {answer.text}")
    loaded: dict[str, Any] = answer.json()
    return loaded
