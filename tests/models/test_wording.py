"""Numbers in sentences."""

import pytest

from models.wording import counted


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [
        (0, "record", "0 records"),
        (1, "record", "1 record"),
        (5000, "record", "5000 records"),
        (2, "batch", "2 batches"),
        (1, "batch", "1 batch"),
        (3, "cache key", "3 cache keys"),
        (2, "query", "2 queries"),
    ],
)
def test_one_is_not_a_plural(number: int, noun: str, said: str) -> None:
    assert counted(number, noun) == said
