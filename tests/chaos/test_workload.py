from collections import Counter
from itertools import islice

import pytest

from chaos.airports import expected
from chaos.workload import setting_changes, submissions


def test_the_same_seed_asks_the_same_and_another_seed_something_else() -> None:
    assert list(submissions(3, 20, 30)) == list(submissions(3, 20, 30))
    assert list(submissions(3, 20, 30)) != list(submissions(4, 20, 30))
    assert list(islice(setting_changes(3), 50)) == list(islice(setting_changes(3), 50))


def test_it_asks_at_the_rate_that_was_wanted_and_never_under_the_same_key_for_two_things() -> None:
    made = list(submissions(1, 40, 100))
    asked = sum(len(submission.requests) for submission in made)
    assert asked == pytest.approx(4000, abs=10)
    assert len({submission.key for submission in made}) == len(made)
    assert all(0 <= submission.at < 100 for submission in made)


def test_there_is_some_of_everything() -> None:
    made = list(submissions(1, 40, 100))
    sorts = Counter(
        expected(request["type"], request["params"]).status
        for submission in made
        if not submission.refused
        for request in submission.requests
    )
    assert sorts["completed"] > 3000
    assert sorts["failed"] > 50
    assert sum(submission.refused for submission in made) > 10
    assert {submission.repeat for submission in made} == {None, "together", "afterwards"}
    assert {isinstance(submission.body, list) for submission in made} == {True, False}
    assert {change.visibility for change in islice(setting_changes(1), 50)} == {"public", "secret"}
