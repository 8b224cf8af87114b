"""Batches of one network, as they cross."""

from exchange.transfer.outgoing import batch_after
from exchange.transfer.sealing import Sealer
from exchange.wire.batch import to_wire
from models.streams import StreamName
from tests.conftest import Side


async def seal(side: Side, stream: StreamName, *bodies: bytes) -> bytes:
    """Seal these records in one batch; gives its bytes on the wire."""
    async with side.engine.begin() as connection:
        batch = await Sealer(side.keys, "test").seal(connection, stream, list(bodies))
    return await sealed(side, stream, batch.sequence)


async def sealed(side: Side, stream: StreamName, sequence: int) -> bytes:
    """A batch that was sealed before."""
    async with side.engine.connect() as connection:
        stored = await batch_after(connection, stream, 1, sequence - 1)
    assert stored is not None
    assert stored.payload is not None
    return to_wire(stored.manifest, stored.signature, stored.payload)
