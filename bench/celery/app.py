"""The Celery application of the response network: its configuration, each choice with its reason.

Runs in `.venv-celery`, with environment variables set by `servers.py`.
"""

import json
import os
from dataclasses import replace
from typing import Any

from celery import Celery

from bench.celery.profiles import PROFILES

PROFILE = PROFILES[os.environ["BENCH_PROFILE"]]
if "BENCH_VISIBILITY" in os.environ:
    PROFILE = replace(PROFILE, visibility_timeout=int(os.environ["BENCH_VISIBILITY"]))
CADENCES: dict[str, float] = json.loads(os.environ["BENCH_CADENCES"])
"""Seconds; in the old pipeline, 120 for results, 60 for settings and 1 for requests."""
LINK_TASKS = ("pull_requests", "export_results", "export_settings")

app = Celery("bench.celery", broker=os.environ["BENCH_BROKER"], include=["bench.celery.tasks"])
app.conf.update(
    task_acks_late=True,  # a task survives the death of its worker
    task_reject_on_worker_lost=True,  # and that of its child process
    worker_prefetch_multiplier=1,  # so that a dead worker holds back only the tasks that it was executing
    task_publish_retry=True,
    task_ignore_result=True,  # results are rows; nobody reads return values
    # A queue of its own, so that calls over the link do not wait behind executions.
    task_routes={f"bench.celery.tasks.{name}": "link" for name in LINK_TASKS},
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,  # the broker may be away for any time
    worker_cancel_long_running_tasks_on_connection_loss=True,  # late-acknowledged ones would be executed twice
    broker_transport_options=PROFILE.broker_options,
    visibility_timeout=PROFILE.visibility_timeout,  # the documentation asks for both to be the same
    timezone="UTC",
)


def every(seconds: float, task: str, *arguments: Any) -> dict[str, Any]:
    """An entry of Beat's schedule. A run that could not start in time expires, so that one run follows an outage."""
    return {
        "task": f"bench.celery.tasks.{task}",
        "schedule": seconds,
        "args": arguments,
        "options": {"expires": max(seconds, 5.0)},
    }


app.conf.beat_schedule = {
    "pull-requests": every(CADENCES["pull-requests"], "pull_requests"),
    "export-results": every(CADENCES["export-results"], "export_results"),
    "export-settings": every(CADENCES["export-settings"], "export_settings"),
}
if PROFILE.sweep_after is not None:
    app.conf.beat_schedule["sweep"] = every(15.0, "sweep", PROFILE.sweep_after)
