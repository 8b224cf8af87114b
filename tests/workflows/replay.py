"""Replay a downloaded history under the code of today: `python -m tests.workflows.replay FILE`, from the clone.

FILE is what the Web UI downloads from a workflow's page, or what `temporal workflow show -w ID -n NAMESPACE -o json`
prints. Nothing is called: the workflow's code runs with the recorded answers. Exit code 0 when it decides as it did
then; 1, with the first difference, when it does not. With ``--debug`` it runs without the sandbox and without the
deadlock detector, so that a `breakpoint()` in the workflow stops there.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from orchestration.client import DATA
from tests.workflows.conftest import WORKFLOWS

DESCRIPTION = "Replay a downloaded history under the code of today."


def load(file: Path) -> WorkflowHistory:
    """A downloaded history. It does not say the workflow's id."""
    return WorkflowHistory.from_json(file.stem, json.loads(file.read_text()))


async def replay(history: WorkflowHistory, workflows: Sequence[type] = WORKFLOWS, debug: bool = False) -> None:
    """Raises what the replay found wrong."""
    runner = UnsandboxedWorkflowRunner() if debug else SandboxedWorkflowRunner()
    replayer = Replayer(workflows=workflows, data_converter=DATA, workflow_runner=runner, debug_mode=debug)
    await replayer.replay_workflow(history)


def main(arguments: Sequence[str]) -> int:
    """Gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.workflows.replay", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--debug", action="store_true", help="no sandbox and no deadlock detector, for breakpoint()")
    given = parser.parse_args(arguments)
    try:
        asyncio.run(replay(load(given.file), debug=given.debug))
    except Exception as error:
        print(f"{given.file}: {error}", file=sys.stderr)
        return 1
    print(f"{given.file}: replayed, {len(load(given.file).events)} events, no difference")
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # as worker.py: temporalio may crash in the interpreter's shutdown, after all work
