"""Residents without Temporal: the run that an activity belongs to, and residents that leave when nothing is left."""

import dataclasses
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities import fulfilling, importing
from activities.importing import ImportActivities
from models.outcomes import ApplyOutcome
from models.streams import BatchRef, StreamName
from storage.attendance import RESULTS
from tests.activities.crossing import table
from tests.conftest import Side


def run_of(workflow_id: str, *details: Any, attempt: int = 1) -> ActivityEnvironment:
    """Where an activity of this workflow runs, of which an earlier attempt left these heartbeat details."""
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(
        environment.info, workflow_id=workflow_id, attempt=attempt, heartbeat_details=list(details)
    )
    return environment


def attend_briefly(patch: pytest.MonkeyPatch) -> None:
    """Residents leave as soon as they find nothing to do, and not minutes later."""
    for module in (importing, fulfilling):
        patch.setattr(module, "ATTENDS_SECONDS", 0.0)
        patch.setattr(module, "RENEW_SECONDS", 0.0)


async def attendant(side: Side, subject: str = RESULTS) -> str | None:
    """The workflow id of the run that attends, or that acceptance has asked for."""
    found = await table(
        side, "SELECT attendant FROM attendances WHERE subject = :subject AND attended_until > now()", subject=subject
    )
    return found[0][0] if found else None


async def apply(side: Side, work: ImportActivities, batch: BatchRef) -> ApplyOutcome:
    """Apply what is stored, as the run that acceptance has asked for. Call `attend_briefly` before."""
    of_results = batch.stream is StreamName.RESULTS
    workflow_id = (of_results and await attendant(side)) or batch.workflow_id("apply")
    outcome: ApplyOutcome = await run_of(workflow_id).run(work.apply_and_attend, batch)
    return outcome
