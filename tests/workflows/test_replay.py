"""Runs of before go on under the code of today: every recorded history is replayed.

Where this fails after a change to a workflow, see `record_histories`.
"""

import base64
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio import workflow
from temporalio.workflow import NondeterminismError

from configuration.home import CLONE
from models.outcomes import DrainOutcome
from models.streams import StreamName
from tests.workflows.failures import Failure, every_run
from tests.workflows.record_histories import recorded
from tests.workflows.replay import replay
from workflows.timing import OVER_THE_LINK

REPLAY = (sys.executable, "-m", "tests.workflows.replay")
RECORDED = recorded()
SETTINGS = "ExportSettings-delivering-retried"
SHOWN_BY = {
    Failure.RETRIED: "LinkUnavailable",
    Failure.REFUSED: "StreamStopped",
    Failure.WAITED_FOR: "RETRY_STATE_TIMEOUT",
    Failure.HEARTBEAT: "TIMEOUT_TYPE_HEARTBEAT",
    Failure.LASTS: "TIMEOUT_TYPE_START_TO_CLOSE",
    Failure.CANCELLED: "workflowExecutionCancelRequestedEventAttributes",
    Failure.STOPPED: "activityTaskStartedEventAttributes",
    Failure.KILLED: "TIMEOUT_TYPE_HEARTBEAT",
    Failure.TASK_FAILED: "workflowTaskFailedEventAttributes",
    Failure.CONTINUED: "workflowExecutionContinuedAsNewEventAttributes",
}
"""What is in a history in which this happened. A worker that stops in order leaves little."""
A_PATH = re.compile(r"(?<![\w.])/(?:home|root|tmp|usr|var|opt|srv|mnt|Users|private)/|[A-Z]:\\\\")


@workflow.defn(name="ExportSettings", sandboxed=False)
class WithoutSealing:
    """As `ExportSettings`, but it forgets to seal."""

    @workflow.run
    async def run(self) -> DrainOutcome:
        outcome: DrainOutcome = await workflow.execute_activity(
            "deliver", StreamName.SETTINGS, result_type=DrainOutcome, **OVER_THE_LINK
        )
        return outcome


def test_every_workflow_was_recorded_with_every_failure_of_each_of_its_activities() -> None:
    assert {run.name for run in every_run()} == RECORDED.keys(), "python -m tests.workflows.record_histories"
    for run in every_run():
        assert SHOWN_BY[run.failure] in RECORDED[run.name].to_json(), run.name


@pytest.mark.parametrize("name", RECORDED)
async def test_a_recorded_history_replays(name: str) -> None:
    await replay(RECORDED[name])


async def test_a_replay_tells_when_a_workflow_decides_otherwise() -> None:
    with pytest.raises(NondeterminismError):
        await replay(RECORDED[SETTINGS], [WithoutSealing])


def test_a_downloaded_history_is_replayed_by_a_command(tmp_path: Path) -> None:
    content = RECORDED[SETTINGS].to_json_dict()
    file = tmp_path / "history.json"
    file.write_text(json.dumps(content))
    good = subprocess.run([*REPLAY, file, "--debug"], cwd=CLONE, capture_output=True, text=True, check=False)
    assert (good.returncode, "no difference" in good.stdout) == (0, True), good.stderr
    scheduled = next(each for each in content["events"] if "activityTaskScheduledEventAttributes" in each)
    scheduled["activityTaskScheduledEventAttributes"]["activityType"]["name"] = "another"
    file.write_text(json.dumps(content))
    bad = subprocess.run([*REPLAY, file], cwd=CLONE, capture_output=True, text=True, check=False)
    assert (bad.returncode, "another" in bad.stderr) == (1, True), bad.stderr


def texts(item: Any) -> Iterator[str]:
    """Every text in a history, payloads decoded."""
    if isinstance(item, dict):
        if set(item) == {"metadata", "data"}:
            yield base64.b64decode(item["data"]).decode()
        for value in item.values():
            yield from texts(value)
    elif isinstance(item, list):
        for value in item:
            yield from texts(value)
    elif isinstance(item, str):
        yield item


def test_no_recorded_history_tells_of_the_machine_or_holds_a_secret() -> None:
    machine = (str(CLONE), socket.gethostname())
    for history in RECORDED.values():
        found = list(texts(history.to_json_dict()))
        assert not [text for text in found if any(name in text for name in machine)]
        assert not [text for text in found if A_PATH.search(text) or "@" in text or "://" in text or "alk_" in text]
