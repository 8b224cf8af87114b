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
from tests.workflows.conftest import WORKFLOWS
from tests.workflows.record_histories import HISTORIES
from tests.workflows.replay import load, replay
from workflows.timing import OVER_THE_LINK

REPLAY = (sys.executable, "-m", "tests.workflows.replay")
RECORDED = sorted(HISTORIES.glob("*.json"))
A_PATH = re.compile(r"(?<![\w.])/(?:home|root|tmp|usr|var|opt|srv|mnt|Users|private)/|[A-Z]:\\\\")


@workflow.defn(name="ExportSettings", sandboxed=False)
class WithoutSealing:
    """As `ExportSettings`, but it forgets to seal."""

    @workflow.run
    async def run(self) -> DrainOutcome:
        outcome: DrainOutcome = await workflow.execute_activity(
            "drain", StreamName.SETTINGS, result_type=DrainOutcome, **OVER_THE_LINK
        )
        return outcome


@pytest.mark.parametrize("kind", WORKFLOWS, ids=lambda kind: kind.__name__)
def test_every_workflow_has_a_recorded_history_that_took_more_than_one_step(kind: type) -> None:
    lengths = [len(load(file).events) for file in RECORDED if file.stem.startswith(f"{kind.__name__}-")]
    assert max(lengths, default=0) > 10, "record histories with: python -m tests.workflows.record_histories"


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
async def test_a_recorded_history_replays(file: Path) -> None:
    await replay(file)


async def test_a_replay_tells_when_a_workflow_decides_otherwise() -> None:
    with pytest.raises(NondeterminismError):
        await replay(HISTORIES / "ExportSettings-1.json", [WithoutSealing])


@pytest.mark.parametrize("options", [(), ("--debug",)])
def test_a_downloaded_history_is_replayed_by_a_command(tmp_path: Path, options: tuple[str, ...]) -> None:
    content = json.loads((HISTORIES / "ExportSettings-1.json").read_text())
    del content["workflowId"]  # the Web UI's file has none
    file = tmp_path / "history.json"
    file.write_text(json.dumps(content))
    good = subprocess.run([*REPLAY, file, *options], cwd=CLONE, capture_output=True, text=True, check=False)
    assert (good.returncode, "no difference" in good.stdout) == (0, True), good.stderr
    scheduled = next(each for each in content["events"] if "activityTaskScheduledEventAttributes" in each)
    scheduled["activityTaskScheduledEventAttributes"]["activityType"]["name"] = "another"
    file.write_text(json.dumps(content))
    bad = subprocess.run([*REPLAY, file, *options], cwd=CLONE, capture_output=True, text=True, check=False)
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


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_a_recorded_history_tells_nothing_of_the_machine_and_no_secret(file: Path) -> None:
    found = list(texts(json.loads(file.read_text())))
    machine = (str(CLONE), socket.gethostname())
    assert not [text for text in found if any(name in text for name in machine)]
    assert not [text for text in found if A_PATH.search(text) or "@" in text or "://" in text or "alk_" in text]
