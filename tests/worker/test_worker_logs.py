"""What an operator reads of a worker: structured lines in its log, and one sentence in Temporal."""

import json
import signal

from temporalio.client import Client

from tests.worker.processes import Child, World, eventually


def lines(worker: Child) -> list[dict[str, object]]:
    return [json.loads(line) for line in worker.said.splitlines()]


async def test_what_temporals_sdk_warns_of_is_in_the_form_of_all_other_lines(world: World) -> None:
    worker = await world.run("worker.py", "request", AIRLOCK_LOG_FORMAT="json")
    await worker.says("worker.ready")
    client = await Client.connect(world.temporal, namespace="request")
    await client.start_workflow("NoSuchWorkflow", id="unknown", task_queue="airlock-request")
    await worker.says('"target"')
    await worker.ends(signal.SIGTERM)
    warned = [line for line in lines(worker) if line["level"] != "info"]
    assert {str(line["event"]) for line in warned if "target" in line} == {"Failing workflow task"}
    assert {line["level"] for line in warned if "target" not in line} == {"error"}, "from the SDK's Python half"
    assert lines(worker)[-1]["event"] == "worker.stopped"


async def test_a_failing_export_says_why_in_one_sentence_and_is_no_warning_at_once(world: World) -> None:
    worker = await world.worker("response")
    await worker.says("worker.ready")
    client = await Client.connect(world.temporal, namespace="response")

    async def last_failures() -> list[str]:
        found = []
        async for run in client.list_workflows("WorkflowType = 'ExportSettings' AND ExecutionStatus = 'Running'"):
            described = await client.get_workflow_handle(run.id, run_id=run.run_id).describe()
            for pending in described.raw_description.pending_activities:
                found += [pending.last_failure] if pending.HasField("last_failure") else []
        return [f"{each.message}{each.stack_trace}" for each in found if not each.HasField("cause")]

    await client.get_schedule_handle("export-settings").trigger()
    (failure,) = await eventually(last_failures, lambda: worker.said)
    assert failure.startswith("POST /link/v1/streams/settings/batches: All connection attempts failed")
    assert len(failure.splitlines()) == 1
    assert "[warning" not in worker.said, "it has only just begun"
    await worker.ends(signal.SIGTERM)
