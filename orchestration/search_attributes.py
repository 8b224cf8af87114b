"""Search attributes by which the Temporal Web UI finds workflows: stream, batch and number of records."""

from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

from models.streams import BatchRef

STREAM = SearchAttributeKey.for_keyword("AirlockStream")
BATCH = SearchAttributeKey.for_int("AirlockBatch")
RECORDS = SearchAttributeKey.for_int("AirlockRecords")


def search_attributes(batch: BatchRef) -> TypedSearchAttributes:
    """What a workflow about one batch is found by."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(STREAM, batch.stream.value),
            SearchAttributePair(BATCH, batch.sequence),
            SearchAttributePair(RECORDS, batch.records),
        ]
    )
