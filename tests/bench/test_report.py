"""What a run says: nothing is rounded away that matters, and what falls short is said."""

import json
from pathlib import Path

import pytest

from bench.aims import Aim, beats, line
from bench.figures import LIMIT, OURS, RIVAL, Line, Spread, alternate
from bench.report import COLUMNS, Report, comparison, falls_short, notes, number, rows

MACHINE = {"cores": "2", "cpu": "a processor"}


def a_line(ours: tuple[float, ...] = (90.0, 100.0, 120.0), what: str = "speed", less_is_better: bool = False) -> Line:
    measured = {OURS: Spread(ours), LIMIT: Spread((200.0,)), RIVAL: Spread((50.0,))}
    return line(
        what, "calls/s", [Aim(0.7, beside=LIMIT)], measured, "a note", {"all": [1]}, less_is_better=less_is_better
    )


def a_report(*lines: Line, not_measured: dict[str, str] | None = None) -> Report:
    return Report("2026-11-22T10:00:00+00:00", MACHINE, 1.0, {"figure": lines}, not_measured or {}, {"figure": 1.5})


def test_a_row_has_medians_spreads_and_ratios() -> None:
    (row,) = rows(a_report(a_line()))
    assert len(row) == len(COLUMNS)
    assert row == ("speed, calls/s", "100 (90.0 to 120)", "200", "50.0", "0.50 ×", "2.00 ×", "≥ 0.7 × limit", "NO")


def test_a_contestant_that_is_not_there_and_an_aim_that_is_not_there_are_dashes() -> None:
    (row,) = rows(a_report(line("waiting", "s", [], {OURS: Spread((1.5,))}, less_is_better=True)))
    dash = "–"  # noqa: RUF001
    assert row == ("waiting, s (less is better)", "1.50", dash, dash, dash, dash, dash, dash)


def test_what_falls_short_is_named_with_by_how_much() -> None:
    said = falls_short(a_report(a_line(), not_measured={"other": "no server"}))
    assert said == [
        "speed falls short: 0.5 × limit instead of ≥ 0.7 × limit, 29% short",
        "other was not measured: no server",
    ]
    assert falls_short(a_report(a_line((150.0,)))) == []


@pytest.mark.parametrize(
    ("aim", "ours", "met", "short"),
    [
        (Aim(150.0, at_most=True), 150.0, True, ""),
        (Aim(150.0, at_most=True), 180.0, False, "180 ms instead of ≤ 150 ms, 20% over"),
        (Aim(500.0), 400.0, False, "400 ms instead of ≥ 500 ms, 20% short"),
        (Aim(0.0, at_most=True), 2.0, False, "2 ms instead of ≤ 0 ms"),
        (beats(RIVAL), 50.0, True, ""),
        (beats(RIVAL, at_most=True), 60.0, False, "1.2 × celery instead of ≤ 1 × celery, 20% over"),
        (Aim(1.0, beside=LIMIT), 60.0, False, "limit was not measured"),
    ],
)
def test_an_aim_is_a_number_or_a_share_of_anothers(aim: Aim, ours: float, met: bool, short: str) -> None:
    made = line("what", "ms", [aim], {OURS: Spread((ours,)), RIVAL: Spread((50.0,))})
    assert (made.met, made.short) == (met, short)


def test_of_two_aims_both_must_be_met() -> None:
    made = line("what", "ms", [Aim(10.0), Aim(200.0)], {OURS: Spread((100.0,))})
    assert (made.met, made.aim) == (False, "≥ 10 ms; ≥ 200 ms")


def test_a_rival_that_did_nothing_is_beaten() -> None:
    assert beats(RIVAL).is_met({OURS: Spread((1.0,)), RIVAL: Spread((0.0,))})


def test_json_keeps_every_round_and_reads_back_the_same(tmp_path: Path) -> None:
    report = a_report(a_line(), not_measured={"other": "no server"})
    path = tmp_path / "run.json"
    path.write_text(json.dumps(report.as_json()))
    assert json.loads(path.read_text())["figures"]["figure"]["lines"][0]["measured"][OURS] == {
        "median": 100.0,
        "lowest": 90.0,
        "highest": 120.0,
        "rounds": [90.0, 100.0, 120.0],
    }
    again = Report.read(path)
    assert (rows(again), falls_short(again), notes(again)) == (rows(report), falls_short(report), notes(report))
    assert again.as_json() == report.as_json()
    assert again.machine == MACHINE


@pytest.mark.parametrize("content", ["", "[]", '{"format": 99}', '{"format": 1}', '{"format": 1, "figures": 7}'])
def test_what_is_no_earlier_run_is_refused_with_its_name(content: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"run\.json cannot be read as an earlier run: "):
        Report.read(path)


@pytest.mark.parametrize(
    ("now", "less_is_better", "meaning"),
    [
        ((200.0, 210.0, 220.0), False, "better"),
        ((200.0, 210.0, 220.0), True, "WORSE"),
        ((40.0, 50.0, 60.0), False, "WORSE"),
        ((40.0, 50.0, 60.0), True, "better"),
        ((110.0, 150.0, 190.0), False, "within the spread"),
        ((50.0, 60.0, 90.0), False, "within the spread"),
    ],
)
def test_a_difference_counts_only_beyond_the_spread(now: tuple[float, ...], less_is_better: bool, meaning: str) -> None:
    then = a_report(a_line(less_is_better=less_is_better), a_line(what="gone"))
    (row,) = comparison(a_report(a_line(now, less_is_better=less_is_better), a_line(what="new")), then)
    assert row[0] == "speed, calls/s"
    assert row[3:] == (f"{now[1] / 100:.2f} ×", meaning)


@pytest.mark.parametrize(("amount", "text"), [(12345.6, "12,346"), (99.96, "100.0"), (12.34, "12.3"), (0.5, "0.50")])
def test_numbers_have_about_three_digits(amount: float, text: str) -> None:
    assert number(amount) == text


async def test_contestants_take_turns_and_the_warm_up_does_not_count() -> None:
    order: list[str] = []

    async def run(name: str) -> float:
        order.append(name)
        return float(len(order))

    said: list[str] = []
    spreads = await alternate({"a": lambda: run("a"), "b": lambda: run("b")}, 3, 1, said.append)
    assert order == ["a", "b"] * 4
    assert (spreads["a"].rounds, spreads["b"].rounds) == ((3.0, 5.0, 7.0), (4.0, 6.0, 8.0))
    assert len(said) == 6
