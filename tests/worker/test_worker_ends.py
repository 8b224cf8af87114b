"""Workers that stop, die and share: no request is lost, none has two results."""

import signal
import socket
from collections import Counter
from uuid import UUID

from temporalio.api.worker.v1 import WorkerHeartbeat
from temporalio.api.workflowservice.v1 import ListWorkersRequest
from temporalio.client import Client

from configuration.version import VERSION
from models.streams import Network
from tests.worker.processes import World, eventually

QUEUE = "airlock-response"


async def test_a_worker_that_stops_finishes_its_work_and_what_a_killed_one_left_is_taken_over(world: World) -> None:
    await world.worker("request")
    stopping = await world.worker("response")
    await world.begin()
    first = await world.submit(*({"number": number, "waits": True} for number in range(5)))
    await world.called(5)
    stopping.process.send_signal(signal.SIGTERM)
    await stopping.says("worker.stopping")
    assert not (world.home / "worker-response.ready").exists()
    assert stopping.process.returncode is None
    world.open_the_gate()
    assert await stopping.ends() == 0
    _, _, last_words = stopping.said.partition("worker.stopping")
    assert "worker.stopped" in last_words
    assert "Traceback" not in last_words
    assert set(await world.results(Network.RESPONSE)) == first

    world.close_the_gate()
    killed = await world.worker("response")
    second = await world.submit(*({"number": number, "waits": number >= 25} for number in range(5, 65)))

    async def those_that_do_not_wait_are_stored() -> bool:
        return len(await world.results(Network.RESPONSE)) == 25

    await eventually(those_that_do_not_wait_are_stored, lambda: killed.said)
    assert await killed.ends(signal.SIGKILL) == -signal.SIGKILL
    world.open_the_gate()
    last = await world.worker("response")
    await world.arrived(first | second)
    times = Counter(call["number"] for call in world.calls())
    assert set(times) == set(range(65))
    assert all(times[number] == 1 for number in range(25)), "what has a result is not executed again"
    assert await last.ends(signal.SIGTERM) == 0


async def test_two_workers_side_by_side_share_the_work_are_both_listed_and_do_nothing_twice(world: World) -> None:
    await world.worker("request")
    pair = [await world.worker("response"), await world.worker("response")]
    await world.begin()
    for worker in pair:
        await worker.says("worker.ready")
    ids: set[UUID] = set()

    async def both_have_worked() -> bool:
        """One request after the other, so that each is a workflow that either worker may take."""
        ids.update(await world.submit({"number": len(ids)}))
        await world.called(len(ids))
        return {call["pid"] for call in world.calls()} == {worker.pid for worker in pair}

    await eventually(both_have_worked, lambda: f"{len(ids)} requests, all executed by the same worker")
    await world.arrived(ids)
    assert sorted(call["number"] for call in world.calls()) == list(range(len(ids)))

    async def both_are_listed() -> bool:
        return len(await known_workers(world)) == 2

    await eventually(both_are_listed, lambda: "heartbeats of both workers")
    known = {beat.worker_identity: beat for beat in await known_workers(world)}
    assert set(known) == {f"response-worker {worker.pid}@{socket.gethostname()}" for worker in pair}
    for beat in known.values():
        version = beat.deployment_version
        assert (beat.task_queue, version.deployment_name, version.build_id) == (QUEUE, QUEUE, VERSION)
        assert beat.workflow_poller_info.is_autoscaling
        assert beat.activity_poller_info.is_autoscaling
    ready = world.home / "worker-response.ready"
    left = int(ready.read_text())
    assert left in {worker.pid for worker in pair}
    pair.sort(key=lambda worker: worker.pid == left)
    assert await pair[0].ends(signal.SIGTERM) == 0
    assert int(ready.read_text()) == left, "its neighbour runs on"
    assert await pair[1].ends(signal.SIGINT) == 0
    assert not ready.exists()


async def known_workers(world: World) -> list[WorkerHeartbeat]:
    """What `temporal worker list` shows of the response network, with the details that the heartbeats carry."""
    client = await Client.connect(world.temporal, namespace="response")
    answer = await client.workflow_service.list_workers(ListWorkersRequest(namespace="response"))
    return [worker.worker_heartbeat for worker in answer.workers_info]
