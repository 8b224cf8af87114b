"""References to batches: how many they are, what a workflow about them is called, and back from its id."""

import pytest

from models.streams import BatchRef, StreamName, named_by

LONE = BatchRef(stream=StreamName.REQUESTS, epoch=2, sequence=7)
RANGE = BatchRef(stream=StreamName.RESULTS, epoch=1, sequence=12, first=9)


def test_a_reference_names_one_batch_or_several() -> None:
    assert (LONE.begin, LONE.batches, str(LONE)) == (7, 1, "requests 2.7")
    assert (RANGE.begin, RANGE.batches, str(RANGE)) == (9, 4, "results 1.9-12")


@pytest.mark.parametrize(("batch", "name"), [(LONE, "execute-requests-2.7"), (RANGE, "execute-results-1.9-12")])
def test_a_workflows_id_names_its_batches(batch: BatchRef, name: str) -> None:
    assert batch.workflow_id("execute") == name
    assert named_by(name) == batch


@pytest.mark.parametrize("name", ["pull-requests", "export-results-2026-01-02T03:04:05Z", "execute-letters-1.1", ""])
def test_an_id_of_another_kind_names_none(name: str) -> None:
    assert named_by(name) is None
