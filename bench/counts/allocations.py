"""Memory that Python allocates for a batch of 1,000 fixed results of 1 KB, where records are handled one by one.

It is the same in every run of one Python version. Memory that zstd and SHA-256 allocate themselves is not counted.
"""

import gc
import hashlib
import sys
import tracemalloc
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from bench.counts.counting import Count, Counts
from bench.counts.functions import words
from exchange.wire.batch import open_wire, pack, to_wire
from exchange.wire.keys import ensure_link_keys, load_link_keys
from exchange.wire.manifest import Manifest, sign_manifest
from fulfilment.applying import parse_results
from models.streams import GENESIS, Network, StreamName

RECORDS = 1000
SLACK = 0.03
"""Tolerance: Python's free lists differ a little from run to run."""


def count_allocations(root: Path) -> Counts:
    """Count the allocations of packing, opening and parsing."""
    ensure_link_keys(root)
    keys = {network: load_link_keys(root / network) for network in Network}
    records = [record(number) for number in range(RECORDS)]
    raw_bytes, payload = pack(records)
    manifest = Manifest(
        link="counts",
        stream=StreamName.RESULTS,
        epoch=1,
        sequence=1,
        first_record=1,
        last_record=RECORDS,
        count=RECORDS,
        raw_bytes=raw_bytes,
        payload_bytes=len(payload),
        payload_sha256=hashlib.sha256(payload).hexdigest(),
        previous=GENESIS.hex(),
        key_id=keys[Network.RESPONSE].key_id,
        sealed_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    wire = to_wire(*sign_manifest(keys[Network.RESPONSE], manifest), payload)
    numbered = list(enumerate(records, start=1))
    work: dict[str, Callable[[], object]] = {
        "pack": lambda: pack(records),
        "open": lambda: open_wire(keys[Network.REQUEST], wire),
        "parse": lambda: _to_the_end(parse_results(numbered)),
    }
    counts: Counts = {"python.pack.payload": Count(len(payload) / RECORDS, "bytes a record", SLACK)}
    for name, do in work.items():
        blocks, peak = allocated(do)
        counts[f"python.{name}.objects"] = Count(blocks / RECORDS, "blocks of memory kept, a record", SLACK)
        counts[f"python.{name}.peak"] = Count(peak / RECORDS, "bytes at the peak, a record", SLACK)
    return counts


def allocated(do: Callable[[], object]) -> tuple[int, int]:
    """Number of memory blocks that the result keeps, and the peak of bytes in use while it was computed."""
    do()
    gc.collect()
    gc.disable()
    try:
        before = sys.getallocatedblocks()
        result = do()
        blocks = sys.getallocatedblocks() - before
        del result
        tracemalloc.start()
        try:
            began, _ = tracemalloc.get_traced_memory()
            do()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    finally:
        gc.enable()
    return blocks, peak - began


def record(number: int) -> bytes:
    """A result in the form in which it crosses the link; the same bytes in every run."""
    return orjson.dumps(
        {
            "request_id": UUID(int=0x0198C0DE_0000_7000_8000_000000000000 + number),
            "status": "completed",
            "data": [{"words": words(number)}],
            "returned": 1,
            "total": 1,
            "truncated": False,
            "error": None,
            "executed_at": "2026-01-01T00:00:00Z",
            "duration_ms": 1.5,
        }
    )


def _to_the_end(work: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine that only yields to the event loop, without the event loop and its allocations."""
    try:
        while True:
            work.send(None)
    except StopIteration:
        pass
