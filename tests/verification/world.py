"""Both networks at work without Temporal: real databases, the served app, the signed link, activities by hand."""

import secrets
import time
from dataclasses import dataclass
from uuid import UUID

from temporalio.testing import ActivityEnvironment

from activities.executing import ExecutionActivities
from activities.importing import ImportActivities
from exchange.audit.auditor import Auditor
from exchange.audit.summaries import RepairableSide
from exchange.audit.verifier import StreamReport, Verifier
from exchange.carriers.http import LinkClient
from exchange.recovery.local_side import LocalSide
from exchange.recovery.remote_side import RemoteSide
from exchange.recovery.repair import RepairOutcome, repair_differences
from exchange.transfer.delivery import Delivery
from exchange.transfer.incoming import incoming_stream
from exchange.transfer.pulling import Pull
from exchange.transfer.sealing import Sealer
from models.streams import BatchRef, Network, StreamName
from tests.activities.crossing import LINK, new_id, submit
from tests.activities.residents import apply
from tests.conftest import Networks

RETENTION = 3600.0
REQUESTS, RESULTS, SETTINGS = StreamName.REQUESTS, StreamName.RESULTS, StreamName.SETTINGS


@dataclass
class World:
    """What happens between the two networks, a step at a time."""

    networks: Networks
    link: LinkClient
    pull: Pull
    delivery: Delivery
    executing: ExecutionActivities
    importing: ImportActivities
    url: str

    async def submitted(self, count: int = 3, hours_ago: int = 0) -> list[UUID]:
        """``hours_ago``: by the time in their ids."""
        ids = [old_id(hours_ago) if hours_ago else new_id() for _ in range(count)]
        await submit(self.networks, *ids)
        return ids

    async def answered(self, count: int = 3, hours_ago: int = 0) -> list[UUID]:
        """Requests that have gone all the way."""
        ids = await self.submitted(count, hours_ago)
        await self.carry_on()
        return ids

    async def carry_on(self) -> None:
        """Pull, execute, deliver and apply what there is."""
        while batch := await self.pull.once(REQUESTS, 0):
            await self.execute(batch)
        for stream in (RESULTS, SETTINGS):
            await self.delivery.drain(stream, lambda _: None)
            await self.apply(stream)

    async def execute(self, batch: BatchRef) -> None:
        await ActivityEnvironment().run(self.executing.execute_batches, batch)

    async def apply(self, stream: StreamName) -> None:
        async with self.networks.request.engine.begin() as connection:
            cursor = await incoming_stream(connection, stream)
        if cursor.sequence:
            newest_batch = BatchRef(stream=stream, epoch=cursor.epoch, sequence=cursor.sequence)
            await apply(self.networks.request, self.importing, newest_batch)

    async def publish(self, *records: bytes) -> None:
        """A new settings snapshot, delivered and applied."""
        async with self.networks.response.engine.begin() as connection:
            await Sealer(self.networks.response.keys, LINK).seal_snapshot(connection, SETTINGS, records)
        await self.carry_on()

    @property
    def verifier(self) -> Verifier:
        near = Auditor(self.networks.response.engine, Network.RESPONSE, RETENTION)
        return Verifier({Network.RESPONSE: near, Network.REQUEST: RemoteSide(self.link)}, settle_seconds=0.05)

    async def verify(self) -> list[StreamReport]:
        return await self.verifier.verify(list(StreamName))

    async def repair(self) -> tuple[list[StreamReport], RepairOutcome]:
        side = self.networks.response
        near = LocalSide(side.engine, Network.RESPONSE, RETENTION, side.keys)
        sides: dict[Network, RepairableSide] = {Network.RESPONSE: near, Network.REQUEST: RemoteSide(self.link)}
        return await repair_differences(self.verifier, sides, await self.verify())


def found(reports: list[StreamReport]) -> set[tuple[str, str, str, str]]:
    """Network, table, kind, and the request id or batch, of everything that differs."""
    return {
        (item.network.value, item.table, item.kind.value, str(item.request_id or item.sequence))
        for report in reports
        for item in report.findings
    }


def old_id(hours_ago: int) -> UUID:
    """A UUIDv7 as it would have been made then."""
    moment = int(time.time() * 1000) - hours_ago * 3_600_000
    return UUID(int=moment << 80 | 7 << 76 | 2 << 62 | secrets.randbits(62))
