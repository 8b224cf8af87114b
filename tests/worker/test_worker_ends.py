"""Workers that stop, die and share: no request is lost, none has two results."""

import signal
import socket
from collections import Counter

from temporalio.api.worker.v1 import WorkerHeartbeat
from temporalio.api.workflowservice.v1 import ListWorkersRequest
from temporalio.client import Client

from configuration.version import VERSION
from models.streams import Network
from tests.worker.processes import World, eventually

QUEUE = "airlock-response"


async def test_a_stopping_worker_finishes_what_it_executes(world: World) -> None:
    request, response = await world.worker("request"), await world.worker("response")
    await world.begin()
    ids = await world.submit(*({"number": number, "waits": True} for number in range(5)))
    await world.called(5)
    response.process.send_signal(signal.SIGTERM)
    await response.says("worker.stopping")
    assert not (world.home / "worker-response.ready").exists()
    assert response.process.returncode is None
    world.open_the_gate()
    assert await response.ends() == 0
    _, _, last_words = response.said.partition("worker.stopping")
    assert "worker.stopped" in last_words
    assert "Traceback" not in last_words
    assert set(await world.results(Network.RESPONSE)) == ids

    await world.worker("response")
    await world.arrived(ids)
    assert len(world.calls()) == 5, "nothing was executed again"
    assert await request.ends(signal.SIGTERM) == 0


async def test_what_a_killed_worker_left_is_taken_over_and_nothing_has_two_results(world: World) -> None:
    await world.worker("request")
    killed = await world.worker("response")
    await world.begin()
    ids = await world.submit(*({"number": number, "waits": number >= 20} for number in range(60)))

    async def the_first_are_stored() -> bool:
        return len(await world.results(Network.RESPONSE)) == 20

    await eventually(the_first_are_stored, lambda: killed.said)
    assert await killed.ends(signal.SIGKILL) == -signal.SIGKILL
    world.open_the_gate()
    second = await world.worker("response")
    await world.arrived(ids)
    times = Counter(call["number"] for call in world.calls())
    assert set(times) == set(range(60))
    assert all(times[number] == 1 for number in range(20)), "what has a result is not executed again"
    assert await second.ends(signal.SIGTERM) == 0


async def test_two_workers_side_by_side_share_the_work_are_both_listed_and_do_nothing_twice(world: World) -> None:
    await world.worker("request")
    pair = [await world.worker("response"), await world.worker("response")]
    await world.begin()
    for worker in pair:
        await worker.says("worker.ready")
    ids = await world.submit({"number": 0})
    for number in range(1, 400):
        if {call["pid"] for call in world.calls()} == {worker.pid for worker in pair}:
            break
        ids |= await world.submit({"number": number})
    await world.arrived(ids)
    assert {call["pid"] for call in world.calls()} == {worker.pid for worker in pair}
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
    assert [await worker.ends(signal.SIGTERM) for worker in pair] == [0, 0]


async def known_workers(world: World) -> list[WorkerHeartbeat]:
    """What `temporal worker list` shows of the response network, with the details that the heartbeats carry."""
    client = await Client.connect(world.temporal, namespace="response")
    answer = await client.workflow_service.list_workers(ListWorkersRequest(namespace="response"))
    return [worker.worker_heartbeat for worker in answer.workers_info]


async def test_a_worker_that_stops_does_not_take_its_neighbours_ready_file_away(world: World) -> None:
    first = await world.worker("request")
    await first.says("worker.ready")
    second = await world.worker("request")
    await second.says("worker.ready")
    ready = world.home / "worker-request.ready"
    assert await first.ends(signal.SIGTERM) == 0
    assert ready.read_text().strip() == str(second.pid)
    assert await second.ends(signal.SIGINT) == 0
    assert not ready.exists()
