"""The comparison must be able to fail: every way of being wrong is made by hand, and named."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from chaos.airports import expected
from chaos.judging import Census, Discrepancy, Fate, judge_answers, judge_census, judge_settings
from chaos.ledger import Ledger
from tests.chaos.ledgers import Written, airport

TOO_SMALL = {"type": "airports-near", "params": {"latitude": 46.2, "longitude": 6.15, "radius_km": 5e-324}}
NEAR = {"type": "airports-near", "params": {"latitude": 46.2, "longitude": 6.15, "radius_km": 60, "limit": 3}}
PLACES = ("rows here", "rows there")
AT_ONCE = frozenset(["rows here"])


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path / "ledger")


@pytest.fixture
def good(written: Written) -> Written:
    """Three requests under two keys, one of which was sent twice, and a submission that was refused as it must be."""
    written.intend("one", airport(), NEAR)
    written.accept("one", "a", "b")
    written.accept("one", "a", "b")
    written.intend("two", TOO_SMALL)
    written.accept("two", "c")
    written.intend("bad", airport("no code"), refused=True)
    written.line("refused", key="bad", status=422, text="params.iata: …")
    for request_id, request in (("a", airport()), ("b", NEAR), ("c", TOO_SMALL)):
        written.answer(request_id, request)
    return written


def judged(ledger: Ledger) -> list[tuple[Fate, str]]:
    return [(each.fate, each.what) for each in judge_answers(ledger, expected)]


def census(ledger: Ledger, **changed: Any) -> Census:
    """Everything where it must be, apart from what is changed."""
    ids = [accepted.request_id for accepted in ledger.accepted()]
    by_key = {key: sent.answers[0][1] for key, sent in ledger.sent.items() if sent.answers}
    places = {place: Counter(ids) for place in PLACES}
    whole: dict[str, Any] = {"places": places, "at_once": AT_ONCE, "by_key": by_key}
    return Census(**(whole | changed))


def test_nothing_is_found_where_nothing_is_wrong(good: Written) -> None:
    ledger = good.read()
    assert judged(ledger) == []
    assert list(judge_census(ledger, census(ledger))) == []


def test_an_accepted_request_without_a_result_is_unanswered(written: Written) -> None:
    written.intend("one", airport())
    written.accept("one", "a")
    assert judged(written.read()) == [(Fate.UNANSWERED, "a")]


def test_an_accepted_request_that_nobody_knows_any_more_is_lost(good: Written) -> None:
    good.intend("three", airport())
    good.accept("three", "d")
    good.line("missing", id="d", status=404, text="There is no request d of yours")
    good.line("missing", id="a", status=404, text="There is no request a of yours")
    assert judged(good.read()) == [(Fate.LOST, "a"), (Fate.LOST, "d")]


def test_a_submission_that_was_never_answered_is_unanswered(good: Written) -> None:
    good.intend("three", airport())
    assert judged(good.read()) == [(Fate.UNANSWERED, "three")]


def test_a_refusal_without_a_reason_is_named(good: Written) -> None:
    good.intend("three", airport())
    good.line("refused", key="three", status=401, text="unknown key")
    good.intend("four", airport("no code"), refused=True)
    good.line("refused", key="four", status=404, text="not found")
    assert judged(good.read()) == [(Fate.REFUSED, "three"), (Fate.REFUSED, "four")]


def test_two_lists_of_ids_for_one_key_are_doubled(good: Written) -> None:
    good.accept("two", "d")
    assert judged(good.read()) == [(Fate.DOUBLED, "two")]


def test_too_many_and_too_few_ids_are_named(written: Written) -> None:
    written.intend("one", airport())
    written.accept("one", "a", "b")
    written.intend("two", airport(), airport())
    written.accept("two", "c")
    for request_id in ("a", "c"):
        written.answer(request_id, airport())
    assert judged(written.read()) == [(Fate.DOUBLED, "one"), (Fate.LOST, "two")]


def test_one_id_for_two_keys_or_twice_in_a_list_is_named(good: Written) -> None:
    good.intend("three", airport())
    good.accept("three", "a")
    good.intend("four", airport(), airport())
    good.accept("four", "d", "d")
    good.answer("d", airport())
    assert judged(good.read()) == [(Fate.ALTERED, "a"), (Fate.LOST, "d")]


@pytest.mark.parametrize(
    "changed",
    [
        {"data": []},
        {"data": [{"iata": "IST"}]},
        {"returned": 2},
        {"total": 2},
        {"truncated": True},
        {"status": "failed"},
        {"error": {"reason": "timeout"}},
        {"request_id": "b"},
    ],
    ids=str,
)
def test_a_result_that_says_something_else_is_altered(written: Written, changed: dict[str, Any]) -> None:
    written.intend("one", airport())
    written.accept("one", "a")
    written.answer("a", airport(), **changed)
    found = list(judge_answers(written.read(), expected))
    assert {(each.fate, each.what) for each in found} == {(Fate.ALTERED, "a")}
    assert all(each.expected and each.found for each in found)


def test_a_failure_for_another_reason_is_altered_unless_it_is_excused(written: Written) -> None:
    away = {"reason": "source-unavailable", "message": "…"}
    written.intend("one", TOO_SMALL, airport())
    written.accept("one", "a", "b")
    written.answer("a", TOO_SMALL, error=away)
    written.answer("b", airport(), status="failed", error=away, data=[], returned=0, total=None)
    ledger = written.read()
    assert judged(ledger) == [(Fate.ALTERED, "a"), (Fate.ALTERED, "b")]
    assert list(judge_answers(ledger, expected, lambda body: body["error"] == away)) == []


def test_a_result_that_changes_between_two_readings_is_altered(good: Written) -> None:
    good.line("again", id="b", digest="0" * 64)
    assert judged(good.read()) == [(Fate.ALTERED, "b")]


def test_what_is_missing_or_there_twice_in_a_place_is_named(good: Written) -> None:
    ledger = good.read()
    places = {"rows here": Counter("abc"), "rows there": Counter("abb")}
    assert list(judge_census(ledger, census(ledger, places=places))) == [
        Discrepancy(Fate.LOST, "c", "once among rows there", "not there"),
        Discrepancy(Fate.DOUBLED, "b", "once among rows there", "2 times"),
    ]


def test_what_has_no_result_yet_must_be_where_it_was_accepted_and_nowhere_else(good: Written) -> None:
    good.intend("three", airport())
    good.accept("three", "d")
    ledger = good.read()
    places = {"rows here": Counter("abcd"), "rows there": Counter("abc")}
    assert list(judge_census(ledger, census(ledger, places=places))) == []
    places = {"rows here": Counter("abc"), "rows there": Counter("abcd")}
    found = [(each.fate, each.what) for each in judge_census(ledger, census(ledger, places=places))]
    assert found == [(Fate.LOST, "d")]


def test_what_nobody_asked_for_is_doubled(good: Written) -> None:
    ledger = good.read()
    places = {place: Counter("abcd") for place in PLACES}
    assert [(each.fate, each.what) for each in judge_census(ledger, census(ledger, places=places))] == [
        (Fate.DOUBLED, "d"),
        (Fate.DOUBLED, "d"),
    ]


def test_a_submission_without_an_answer_may_be_there_wholly_or_not_at_all(good: Written) -> None:
    good.intend("three", airport(), airport())
    ledger = good.read()
    whole = census(ledger)
    assert list(judge_census(ledger, whole)) == []
    kept = dict(whole.by_key) | {"three": ["d", "e"]}
    there = {place: Counter("abcde") for place in PLACES}
    assert list(judge_census(ledger, Census(there, AT_ONCE, kept))) == []
    half = {place: Counter("abcd") for place in PLACES}
    assert {(each.fate, each.what) for each in judge_census(ledger, Census(half, AT_ONCE, kept))} == {(Fate.LOST, "e")}
    short = Census(half, AT_ONCE, dict(whole.by_key) | {"three": ["d"]})
    assert {(each.fate, each.what) for each in judge_census(ledger, short)} == {(Fate.ALTERED, "three")}


def test_a_key_that_stands_for_other_ids_or_that_nobody_used_is_doubled(good: Written) -> None:
    ledger = good.read()
    by_key = {"one": ["a", "b"], "two": ["d"], "bad": ["e"], "nobody's": ["f"]}
    found = {(each.fate, each.what) for each in judge_census(ledger, census(ledger, by_key=by_key))}
    assert found == {(Fate.DOUBLED, "two"), (Fate.DOUBLED, "bad"), (Fate.DOUBLED, "nobody's")}


def test_records_that_were_set_aside_are_named(good: Written) -> None:
    ledger = good.read()
    assert [each.fate for each in judge_census(ledger, census(ledger, quarantined=1))] == [Fate.BROKEN]


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ({"a": 2, "b": "x"}, []),
        ({"a": 1, "b": "x"}, [(Fate.ALTERED, "a")]),
        ({"b": "x"}, [(Fate.LOST, "a")]),
        ({"a": 2, "b": "y"}, []),
        ({"a": 2, "b": "z"}, [(Fate.ALTERED, "b")]),
        ({"a": 2, "b": "x", "s": 9}, [(Fate.ALTERED, "s")]),
        ({"a": 2, "b": "x", "other": 1}, []),
    ],
    ids=str,
)
def test_settings_are_as_accepted_last_and_secret_ones_do_not_cross(
    written: Written, there: dict[str, Any], found: list[tuple[Fate, str]]
) -> None:
    for name, value, visibility, accepted in (
        ("a", 1, "public", True),
        ("a", 2, "public", True),
        ("b", "x", "public", True),
        ("b", "y", "public", False),
        ("s", 9, "secret", True),
    ):
        written.line("setting-intended", name=name, value=value, visibility=visibility)
        if accepted:
            written.line("setting-accepted", name=name, value=value, visibility=visibility)
    assert [(each.fate, each.what) for each in judge_settings(written.read(), there)] == found
