"""The table of schedules: what it takes, what it refuses, and what it fills in."""

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from configuration.cadences import DEFAULT_CADENCES, Cadence, check_cadences


def test_the_cadences_are_those_of_the_design() -> None:
    assert {name: cadence.every for name, cadence in DEFAULT_CADENCES.items()} == {
        "export-settings": 60,
        "export-results": 120,
        "system-monitoring": 300,
        "cache-maintenance": 3600,
    }
    assert {name for name, cadence in DEFAULT_CADENCES.items() if cadence.overlap_policy != "skip"} == {
        "export-results"
    }
    assert DEFAULT_CADENCES["export-results"].follow


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "either every"),
        ({"every": 60, "cron": "* * * * *"}, "either every"),
        ({"cron": "* * * *"}, "five fields"),
        ({"cron": "0 * * * * *"}, "five fields"),
        ({"cron": ""}, "five fields"),
        ({"every": 60, "time_zone": "Mars/Olympus"}, "unknown time zone"),
        ({"every": 0.5}, "greater than or equal to 1"),
        ({"every": 60, "jitter": -1}, "greater than or equal to 0"),
        ({"every": 60, "overlap": "allow-all"}, "skip"),
        ({"every": 60, "catch_up": 5}, "greater than or equal to 10"),
        ({"every": 60, "evry": 60}, "Extra inputs"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Cadence.model_validate(given)


def test_an_interval_or_a_cron_expression_in_a_time_zone_is_taken() -> None:
    assert Cadence(every=1.5).every == 1.5
    assert Cadence(cron="30 2 * * 1-5", time_zone="Europe/Istanbul").cron == "30 2 * * 1-5"


@pytest.mark.parametrize(
    ("cadence", "seconds"),
    [
        (Cadence(every=300), 300),
        (Cadence(every=2), 10),
        (Cadence(cron="* * * * *"), 60),
        (Cadence(every=300, catch_up=20), 20),
    ],
)
def test_a_missed_run_is_made_up_for_within_about_one_interval(cadence: Cadence, seconds: int) -> None:
    assert cadence.catch_up_window == timedelta(seconds=seconds)


def test_schedules_that_are_not_named_keep_their_cadence() -> None:
    checked = check_cadences({"export-results": Cadence(every=7)})
    assert checked == DEFAULT_CADENCES | {"export-results": Cadence(every=7, overlap="buffer-one")}


def test_a_schedule_that_is_none_of_ours_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"export-reports.*there are export-settings"):
        check_cadences({"export-reports": Cadence(every=7)})


@pytest.mark.parametrize(
    ("given", "overlap"),
    [
        (Cadence(every=7), "buffer-one"),
        (Cadence(every=7, overlap="buffer-one"), "buffer-one"),
        (Cadence(every=7, follow=False), "skip"),
        (Cadence(every=7, follow=False, overlap="buffer-one"), "buffer-one"),
        (Cadence(every=7, follow=False, overlap="skip"), "skip"),
    ],
)
def test_a_run_that_follows_its_stream_has_the_next_one_wait_behind_it(given: Cadence, overlap: str) -> None:
    checked = check_cadences({"export-results": given})["export-results"]
    assert (checked.overlap_policy, checked.follow) == (overlap, given.follow)


def test_a_run_that_follows_its_stream_does_not_leave_every_second_run_out() -> None:
    with pytest.raises(ValueError, match=r'overlap skip would skip every second run.*set "follow": false'):
        check_cadences({"export-results": Cadence(every=7, overlap="skip")})


@pytest.mark.parametrize("name", ["export-settings", "system-monitoring", "cache-maintenance"])
def test_only_results_may_wait_for_a_release_window(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: follow is for export-results only"):
        check_cadences({name: Cadence(every=7, follow=False)})
