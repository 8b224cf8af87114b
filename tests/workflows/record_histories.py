"""Record what the replay tests replay: `python -m tests.workflows.record_histories`, from the clone.

Every workflow goes through every kind of failure of `failures`, on a real server. Each history is a line of
`tests/workflows/histories/<workflow>.ndjson`. With ``--temporal HOST:PORT --namespace NAME`` the histories of a running
Airlock are replayed instead, and nothing is written.

Record anew after a workflow was changed on purpose, and say in the commit why runs of before may be given up: whoever
upgrades while such runs are under way sees them stuck. A change that must spare them goes behind `workflow.patched`,
and the old histories stay beside the new, in files of other names.
"""

import argparse
import asyncio
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHistory
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer

from embedded.temporal import SEARCH_ATTRIBUTES, find_temporal
from orchestration.client import DATA
from tests.workflows.conftest import WORKFLOWS
from tests.workflows.failures import LONG_HISTORY, carry_out

HISTORIES = Path(__file__).with_name("histories")


LEFT_OUT = ("stackTrace", "workerInstanceKey", "taskId", "workerVersion", "meteringMetadata", "requestId")
"""What tells of the machine, or nothing to a replay."""


def scrubbed(history: WorkflowHistory) -> dict[str, Any]:
    """The history as JSON, without what tells of the machine: identities, names of queues made from them, paths."""

    def scrub(item: Any) -> Any:
        if isinstance(item, list):
            return [scrub(part) for part in item]
        if not isinstance(item, dict):
            return item
        kept = {name: scrub(value) for name, value in item.items() if name not in LEFT_OUT}
        if "identity" in kept:
            kept["identity"] = "worker"
        if kept.get("kind") == "TASK_QUEUE_KIND_STICKY":
            kept["name"] = "sticky"
        return kept

    scrubbed: dict[str, Any] = scrub(history.to_json_dict())
    return scrubbed


def recorded() -> dict[str, WorkflowHistory]:
    """All of them, by name."""
    found = [json.loads(line) for file in sorted(HISTORIES.glob("*.ndjson")) for line in file.read_text().splitlines()]
    return {each["workflowId"]: WorkflowHistory.from_json(each.pop("workflowId"), each) for each in found}


async def record() -> None:
    """Write the histories. Raises where one does not replay."""
    options = {"limit.historyCount.suggestContinueAsNew": LONG_HISTORY}
    environment = await WorkflowEnvironment.start_local(
        dev_server_existing_path=find_temporal(),
        dev_server_log_level="error",
        dev_server_extra_args=[
            *(part for item in SEARCH_ATTRIBUTES.items() for part in ("--search-attribute", "=".join(item))),
            *(part for item in options.items() for part in ("--dynamic-config-value", "{}={}".format(*item))),
        ],
        data_converter=DATA,
    )
    lines: defaultdict[str, list[str]] = defaultdict(list)
    async with environment:
        replayer = Replayer(workflows=WORKFLOWS, data_converter=DATA)
        for name, handle in sorted((await carry_out(environment.client)).items()):
            first = environment.client.get_workflow_handle(handle.id, run_id=handle.result_run_id)
            history = await first.fetch_history()
            await replayer.replay_workflow(history)
            content = {"workflowId": name} | scrubbed(history)
            lines[name.partition("-")[0]].append(json.dumps(content, separators=(",", ":")))
    HISTORIES.mkdir(exist_ok=True)
    for workflow, histories in lines.items():
        (HISTORIES / f"{workflow}.ndjson").write_text("\n".join(histories) + "\n")
        print(f"{workflow}: {len(histories)} histories")


async def replay_all(address: str, namespace: str) -> None:
    """Replay what this Temporal has. Raises at the first difference."""
    client = await Client.connect(address, namespace=namespace, data_converter=DATA)
    replayer = Replayer(workflows=WORKFLOWS, data_converter=DATA)
    histories = client.list_workflows().map_histories()
    await replayer.replay_workflows(histories)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--temporal", metavar="HOST:PORT", help="replay what is there instead of recording")
    parser.add_argument("--namespace", default="response")
    given = parser.parse_args()
    asyncio.run(replay_all(given.temporal, given.namespace) if given.temporal else record())


if __name__ == "__main__":
    main()
