"""How long a lone request takes, from its submission to its result in the caller's hands.

Run while `./airlock up` runs:  .venv/bin/python bench/lone_requests.py [--requests 200] [--per-minute 200]
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import httpx

from configuration.home import read_up_file

AIRPORTS = ("IST", "GVA", "KEF", "SIN", "LHR", "JFK", "NRT", "SYD", "GRU", "CPT")


async def one(http: httpx.AsyncClient, iata: str) -> float:
    """Seconds from submission to result; fails when the result is not the airport that was asked for."""
    started = time.perf_counter()
    accepted = await http.post("/v1/requests", json={"type": "airport", "params": {"iata": iata}})
    accepted.raise_for_status()
    result = await http.get(f"/v1/requests/{accepted.json()['id']}/result", params={"wait": 30})
    elapsed = time.perf_counter() - started
    result.raise_for_status()
    if [row["iata"] for row in result.json()["data"]] != [iata]:
        raise SystemExit(f"asked for {iata}, got {result.text}")
    return elapsed


async def measure(requests: int, per_minute: float, warm_up: int) -> list[float]:
    """Submit at even times, whether or not the one before is answered."""
    up = read_up_file()
    if not up:
        raise SystemExit("airlock up is not running in this home: start it with ./airlock up")
    headers = {"Authorization": f"Bearer {up['api_key']}"}
    async with httpx.AsyncClient(base_url=up["request_api"], headers=headers, timeout=60, trust_env=False) as http:
        for number in range(warm_up):
            await one(http, AIRPORTS[number % len(AIRPORTS)])
        begin = time.perf_counter()
        running: list[asyncio.Task[float]] = []
        for number in range(requests):
            await asyncio.sleep(max(0.0, begin + number * 60 / per_minute - time.perf_counter()))
            running.append(asyncio.create_task(one(http, AIRPORTS[number % len(AIRPORTS)])))
        return list(await asyncio.gather(*running))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--per-minute", type=float, default=200.0)
    parser.add_argument("--warm-up", type=int, default=5, help="requests that are not counted, first")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    taken = sorted(asyncio.run(measure(given.requests, given.per_minute, given.warm_up)))
    figures = {
        "p50_ms": round(statistics.median(taken) * 1000),
        "p99_ms": round(taken[min(len(taken) - 1, int(len(taken) * 0.99))] * 1000),
        "max_ms": round(taken[-1] * 1000),
        "requests": len(taken),
        "per_minute": given.per_minute,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "date": datetime.now(UTC).date().isoformat(),
    }
    if given.json:
        print(json.dumps(figures))
    else:
        print(
            f"{figures['requests']} lone requests at {given.per_minute:g} a minute, submission to result:"
            f" p50 {figures['p50_ms']} ms, p99 {figures['p99_ms']} ms, max {figures['max_ms']} ms"
            f" ({figures['machine']}, {figures['date']})"
        )


if __name__ == "__main__":
    main()
