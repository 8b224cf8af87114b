"""Bringing a batch back from the other side, which has its original bytes: a received one or one sealed here."""

from dataclasses import dataclass

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from exchange.batch import SealedBatch, open_wire, to_wire
from exchange.errors import Fork, Malformed
from exchange.keys import LinkKeys
from exchange.manifest import Manifest, hash_of, verify_manifest
from exchange.summaries import Healed
from models.streams import GENESIS, Network, StreamName
from storage.incoming import incoming_stream, lock_receiving
from storage.outgoing import lock_sealing, outgoing_stream
from storage.restoring import restore_received, restore_sealed
from storage.verification import KeptBatch, kept_batches, newest_stored

log = structlog.get_logger(__name__)


def keys_of_sender(keys: LinkKeys, stream: StreamName, network: Network) -> LinkKeys:
    """The keys by which batches of this stream may be signed: our own alone, or those that we trust alone."""
    if stream.sender is not network:
        return keys
    own = {**keys.own, keys.key_id: keys.signing.public_key()}
    return LinkKeys(keys.signing, keys.key_id, own)


@dataclass(frozen=True)
class Restorer:
    """One side's batches. What is taken must be signed by its sender and be what the chain goes on from."""

    engine: AsyncEngine
    network: Network
    keys: LinkKeys

    async def stored(self, stream: StreamName, epoch: int, sequence: int) -> bytes | None:
        """The bytes of a batch as they crossed, sealed or received here; None where it or its payload is gone."""
        async with self.engine.connect() as connection:
            kept = await self._kept(connection, stream, epoch, sequence)
        if kept is None or kept.payload is None:
            return None
        return to_wire(kept.manifest, kept.signature, kept.payload)

    async def restore(self, stream: StreamName, wire: bytes) -> Healed:
        """Put a batch back from its original bytes. Raises `LinkError` when they are not; nothing is changed then."""
        is_sender = stream.sender is self.network
        sealed, _ = open_wire(keys_of_sender(self.keys, stream, self.network), wire)
        manifest = sealed.manifest
        if manifest.stream is not stream:
            raise Malformed(f"a batch of {manifest.stream} came for {stream}")
        async with self.engine.begin() as connection:
            await (lock_sealing if is_sender else lock_receiving)(connection, stream)
            await self._check_place(connection, sealed)
            batch = KeptBatch(
                sequence=manifest.sequence,
                first_record=manifest.first_record,
                records=manifest.count,
                hash=sealed.hash,
                manifest=sealed.manifest_bytes,
                signature=sealed.signature,
                payload=sealed.payload,
                done_at=None,
            )
            if is_sender:
                await restore_sealed(connection, stream, manifest.epoch, batch, manifest.raw_bytes, manifest.sealed_at)
            else:
                await restore_received(connection, stream, manifest.epoch, batch)
        log.warning("verification.restored", batch=f"{stream} {manifest.epoch}.{manifest.sequence}")
        return Healed(rebuilt=1)

    async def kept(self, connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int) -> KeptBatch:
        """A batch as it is stored; raises `Malformed` where it is not."""
        batch = await self._kept(connection, stream, epoch, sequence)
        if batch is None:
            raise Malformed(f"batch {epoch}.{sequence} of {stream} is not stored here: restore it first")
        return batch

    def manifest(self, stream: StreamName, batch: KeptBatch) -> Manifest:
        """Its manifest, the signature verified once more: what is rebuilt must be what the sender sealed."""
        return verify_manifest(keys_of_sender(self.keys, stream, self.network), batch.manifest, batch.signature)

    async def _check_place(self, connection: AsyncConnection, sealed: SealedBatch) -> None:
        """Raises unless such a batch was stored here, and the chain goes on from exactly this one."""
        manifest = sealed.manifest
        stream, epoch, sequence = manifest.stream, manifest.epoch, manifest.sequence
        if stream.sender is self.network:
            out = await outgoing_stream(connection, stream)
            end = (out.epoch, out.sequence, out.hash)
        else:
            come = await incoming_stream(connection, stream)
            end = (come.epoch, come.sequence, come.hash)
        newest = end[1] if epoch == end[0] else (await newest_stored(connection, self.network, stream)).get(epoch, 0)
        if epoch > end[0] or (sequence > newest and epoch == end[0]):
            raise Malformed(f"batch {epoch}.{sequence} of {stream} was never stored here")
        if (epoch, sequence) == end[:2]:
            wanted = end[2]
        elif sequence < newest:
            following = self.manifest(stream, await self.kept(connection, stream, epoch, sequence + 1))
            wanted = bytes.fromhex(following.previous)
        else:
            wanted = await self._last_of_its_epoch(connection, sealed)
        if sealed.hash != wanted:
            raise Fork(f"{stream}: the chain goes on from another batch {epoch}.{sequence} than the one offered")

    async def _last_of_its_epoch(self, connection: AsyncConnection, sealed: SealedBatch) -> bytes:
        """What the last batch of an ended epoch must hash to: nothing goes on from it. Where its place is empty, it is
        enough that its sender signed it as the one that follows the batch before it."""
        manifest = sealed.manifest
        here = await self._kept(connection, manifest.stream, manifest.epoch, manifest.sequence)
        if here is not None:
            return here.hash
        before = GENESIS
        if manifest.sequence > 1:
            kept = await self.kept(connection, manifest.stream, manifest.epoch, manifest.sequence - 1)
            before = hash_of(kept.manifest)
        return sealed.hash if manifest.previous == before.hex() else b""

    async def _kept(
        self, connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int
    ) -> KeptBatch | None:
        kept = await kept_batches(connection, self.network, stream, epoch, sequence, sequence)
        return kept[0] if kept else None
