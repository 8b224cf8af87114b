"""Fuzzed bodies to the batch endpoint: no 5xx, nothing accepted, memory flat.

A few thousand here; a hundred thousand by ``AIRLOCK_FUZZED_BATCHES=100000 ./airlock test tests/security/\
test_fuzzed_batches.py -s``, which prints the numbers that docs/security.md gives.
"""

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from exchange.wire.http_signature import HEADER, HttpSigner
from models.streams import StreamName
from storage.database import rows, value
from tests.conftest import Networks
from tests.link.batches import seal
from tests.security.fuzzing import Body, Fuzzer
from tests.security.processes import ApiProcess, api_process

COUNT = int(os.environ.get("AIRLOCK_FUZZED_BATCHES", "3000"))
SEED = int(os.environ.get("AIRLOCK_FUZZ_SEED", "1"))
CALLERS = 16
WARM_UP = 1000
"""Bodies until the process holds what it needs: pools, caches, the allocator's arenas."""
FLAT_BYTES = 24 * 1024 * 1024
"""By so much the allocator's arenas may still vary: three batches of the largest size. A leak of 300 bytes a body shows
in a hundred thousand."""
TARGET = "/link/v1/streams/results/batches"
REFUSALS = {400, 401, 403, 409, 413, 422}


@pytest.fixture
async def served(networks: Networks, tmp_path: Path) -> AsyncIterator[ApiProcess]:
    """A request network of this test's own. Temporal and Redis are away: what is not accepted needs neither."""
    about = {"database_url": networks.request.url, "keys": str(networks.request.keys_directory), "link_id": "test"}
    away = {"temporal_address": "127.0.0.1:1", "redis_url": "redis://127.0.0.1:1/0"}
    async with api_process("request", tmp_path / "api", **about, **away) as process:
        yield process


async def contents(networks: Networks) -> dict[str, tuple[int, str]]:
    """Every table of the request network: rows, and a digest of them. Not who attends: the API goes on looking after
    the batch that is stored, whoever else calls.
    """
    async with networks.request.engine.connect() as connection:
        names = [
            name
            for (name,) in await rows(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            if name != "attendances"
        ]
        found = {}
        for name in sorted(names):
            text = await value(connection, f"SELECT string_agg(t::text, '|' ORDER BY t::text) FROM {name} AS t")
            count = await value(connection, f"SELECT count(*) FROM {name}")
            found[name] = count, hashlib.sha256((text or "").encode()).hexdigest()
    return found


async def test_nothing_of_what_is_fuzzed_is_accepted_or_breaks_anything_or_is_kept_in_memory(
    networks: Networks, served: ApiProcess
) -> None:
    keys = networks.response.keys
    signer, fuzzer = HttpSigner(keys, "test"), Fuzzer(SEED, keys, "test")
    statuses: Counter[int] = Counter()
    kinds: Counter[tuple[str, int]] = Counter()
    wrong: list[tuple[int, str, bytes]] = []
    left = iter(range(COUNT))
    resident = 0

    async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=60) as http:

        async def send(content: bytes, signed: bool = True) -> int:
            headers = {HEADER: signer.sign_request("POST", TARGET, content)} if signed else {}
            return (await http.post(TARGET, content=content, headers=headers)).status_code

        async def caller() -> None:
            nonlocal resident
            for number in left:
                body: Body = fuzzer.next()
                status = await send(body.content, body.signed)
                statuses[status] += 1
                kinds[body.kind, status] += 1
                if status not in REFUSALS or (not body.signed and status != 401):
                    wrong.append((status, body.kind, body.content[:200]))
                if number == min(WARM_UP, COUNT // 2):
                    resident = served.resident

        for _ in range(2):  # good ones are accepted: it is not for another reason that the others are refused
            assert await send(await seal(networks.response, StreamName.RESULTS, b"{}")) == 200
        before = await contents(networks)
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        assert not wrong, wrong[:5]
        assert await contents(networks) == before
        grown = served.resident - resident
        print(f"\n{COUNT} bodies, seed {SEED}: {dict(sorted(statuses.items()))}")
        for (kind, status), count in sorted(kinds.items()):
            print(f"  {status} {count:7d} {kind}")
        print(f"resident {resident / 2**20:.1f} MiB after the warm-up, {(resident + grown) / 2**20:.1f} MiB at the end")
        assert grown < FLAT_BYTES
        assert sum(statuses.values()) == COUNT
        assert {400, 401, 409} <= statuses.keys(), "the fuzzer no longer reaches the parser and the chain"
        assert await send(await seal(networks.response, StreamName.RESULTS, b"{}")) == 200
