"""When a group is looked at: seldom, but in time for its deadline."""

import pytest

from models.looks import LOOKS, until_look


@pytest.mark.parametrize(
    ("look", "deadline_in", "seconds"),
    [
        (0, None, LOOKS[0]),
        (2, None, LOOKS[2]),
        (99, None, 60.0),
        (0, 3.0, 3.0),
        (4, 1000.0, 60.0),
        (4, 59.5, 59.5),
        (0, 0.0, 0.05),
        (0, -7.0, 0.05),
    ],
)
def test_a_look_comes_at_its_time_or_at_the_deadline(look: int, deadline_in: float | None, seconds: float) -> None:
    assert until_look(look, deadline_in) == seconds


def test_looks_become_rarer() -> None:
    assert list(LOOKS) == sorted(LOOKS)
