import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chaos.plan import FaultKind, make_plan
from cli.program import app


def test_the_plan_is_printed_and_nothing_is_done() -> None:
    ended = CliRunner().invoke(app, ["chaos", "--seed", "5", "--minutes", "10", "--plan", "--json"])
    assert ended.exit_code == 0
    assert json.loads(ended.stdout) == [fault.as_json() for fault in make_plan(5, 10)]
    shown = CliRunner().invoke(app, ["chaos", "--seed", "5", "--plan"]).stdout
    assert all(kind.value in shown for kind in FaultKind)


def test_only_the_kinds_that_are_named_are_planned() -> None:
    ended = CliRunner().invoke(app, ["chaos", "--plan", "--json", "--faults", "kill, flush"])
    assert {fault["kind"] for fault in json.loads(ended.stdout)} == {"kill", "flush"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--faults", "earthquake"], "there is no kind of fault 'earthquake'"),
        (["--minutes", "0.1", "--faults", "link-slow"], "no room for a fault"),
    ],
    ids=str,
)
def test_what_cannot_be_run_is_a_sentence_and_exit_code_2(arguments: list[str], says: str) -> None:
    ended = CliRunner().invoke(app, ["chaos", *arguments])
    assert ended.exit_code == 2
    assert says in ended.stderr


def test_a_directory_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("…")
    ended = CliRunner().invoke(app, ["chaos", "--minutes", "1", "--home", str(tmp_path)])
    assert ended.exit_code == 2
    assert "is not empty" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
