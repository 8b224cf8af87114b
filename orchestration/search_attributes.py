"""Search attributes of workflows: stream, batch and number of records."""

from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

from models.streams import BatchRef

STREAM = SearchAttributeKey.for_keyword("AirlockStream")
BATCH = SearchAttributeKey.for_int("AirlockBatch")
RECORDS = SearchAttributeKey.for_int("AirlockRecords")


def search_attributes(batch: BatchRef) -> TypedSearchAttributes:
    """The search attributes of a workflow that works on these batches."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(STREAM, batch.stream.value),
            SearchAttributePair(BATCH, batch.sequence),
            SearchAttributePair(RECORDS, batch.records),
        ]
    )
