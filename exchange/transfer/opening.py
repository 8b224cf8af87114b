"""Opening a received batch: its records again, as bytes."""

import asyncio

from exchange.transfer.incoming import ReceivedBatch
from exchange.wire.batch import unpack
from exchange.wire.manifest import Manifest

LARGE = 256 * 1024
"""Bytes of records from which a thread is worth its cost."""


async def records_of(stored: ReceivedBatch) -> list[bytes]:
    """The records of a batch that was verified when it was received. Raises `Malformed` where it has changed since."""
    manifest = Manifest.model_validate_json(stored.manifest)
    if manifest.raw_bytes < LARGE:
        return unpack(manifest, stored.payload)
    return await asyncio.to_thread(unpack, manifest, stored.payload)
