"""Both networks with partitions: the served app, the signed link, activities by hand; a user of each partition."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from activities.executing import ExecutionActivities
from exchange.auditing import Auditor
from exchange.batch import unpack
from exchange.manifest import Manifest
from exchange.remote_side import RemoteSide
from exchange.row_checks import result_named
from exchange.verification import StreamReport
from models.requests import RequestRecord
from models.streams import Network, StreamName, in_order, partition_of
from storage.partitions import begin_partitions, partitions_in_use
from tests.activities.crossing import table
from tests.api_request.serving import User, new_user
from tests.conftest import Side
from tests.verification.world import RETENTION, World

REQUESTS, RESULTS = StreamName.REQUESTS, StreamName.RESULTS


def user_of(partition: int, partitions: int = 4) -> User:
    """One whose records go in this partition, where there are so many."""
    while partition_of((user := new_user()).user_id, partitions) != partition:
        pass
    return user


USERS = [user_of(number) for number in range(4)]
"""One of each partition, of four."""


@dataclass
class PartitionedWorld(World):
    """Its steps take all partitions that are in use."""

    executors: list[ExecutionActivities] = field(default_factory=list)
    """By the number of partitions that results are spread over, from 1."""

    async def respread(self, partitions: int) -> None:
        """The response network's setting from now on, as its worker takes it up."""
        self.executing = self.executors[partitions - 1]
        async with self.networks.response.engine.begin() as connection:
            await begin_partitions(connection, RESULTS, partitions)

    def side(self, network: Network) -> Side:
        return self.networks.request if network is Network.REQUEST else self.networks.response

    async def ask(self, user: User, count: int = 1, url: str = "") -> list[UUID]:
        """Submit requests of one user's, a call for each; gives their ids."""
        ids: list[UUID] = []
        async with user.calls(url or self.url) as http:
            for _ in range(count):
                answer = await http.post("/v1/requests", json={"type": "rows"})
                assert answer.status_code == 202, answer.text
                ids.append(UUID(answer.json()["id"]))
        return ids

    async def all_asked(self, count: int = 1, users: Sequence[User] = USERS) -> dict[User, list[UUID]]:
        return {user: await self.ask(user, count) for user in users}

    async def in_use(self, kind: StreamName) -> list[StreamName]:
        """At the sender."""
        async with self.side(kind.sender).engine.connect() as connection:
            return await partitions_in_use(connection, kind)

    async def carry_on(self) -> None:
        for stream in await self.in_use(REQUESTS):
            await self.pulled(stream)
        for stream in await self.in_use(RESULTS):
            await self.delivery.drain(stream, lambda _: None)
            await self.apply(stream)

    async def pulled(self, stream: StreamName) -> None:
        """And executed."""
        while batch := await self.pull.once(stream, 0):
            await self.execute(batch)

    async def verify(self) -> list[StreamReport]:
        near = Auditor(self.networks.response.engine, Network.RESPONSE, RETENTION)
        places = [*(await near.streams()).streams, *(await RemoteSide(self.link).streams()).streams]
        return await self.verifier.verify(in_order([*StreamName, *(place.stream for place in places)]))

    async def sealed(self, kind: StreamName) -> dict[StreamName, list[UUID]]:
        """The requests that the batches of each partition are about, in the order of their records."""
        found: dict[StreamName, list[UUID]] = {}
        for stream, manifest, payload in await table(
            self.side(kind.sender),
            "SELECT stream, manifest, payload FROM sealed_batches WHERE split_part(stream, '.', 1) = :kind"
            " AND voided_at IS NULL ORDER BY stream, epoch, sequence",
            kind=kind,
        ):
            for line in unpack(Manifest.model_validate_json(manifest), payload):
                named = result_named(line)
                request_id = named[0] if named else RequestRecord.model_validate_json(line).request_id
                found.setdefault(StreamName(stream), []).append(request_id)
        return found

    async def statuses(self, user: User, ids: Sequence[UUID]) -> list[str]:
        async with user.calls(self.url) as http:
            return [(await http.get(f"/v1/requests/{request_id}")).json()["status"] for request_id in ids]
