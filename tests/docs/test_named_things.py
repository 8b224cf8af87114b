"""The documents name only things that exist: links, files, modules, commands with their options, settings and tests."""

import ast
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.program import app
from configuration.home import CLONE
from configuration.settings import SETTINGS

DOCUMENTS = sorted(
    str(path.relative_to(CLONE))
    for path in [*CLONE.glob("*.md"), *CLONE.glob("docs/**/*.md"), CLONE / "deploy/README.md"]
)
ROOMS = [path.parent.name for path in CLONE.glob("*/__init__.py")] + ["tests"]
FILE = re.compile(r"(?<![\w/.<$~-])(?:[\w-]+/)*[\w-]+\.(?:py|md|json|mjs|txt|in|toml|yml|sql|conf)\b(?!:\d)")
MADE_WHEN_RUNNING = {
    *("up.json", "history.json", "now.json", "earlier.json", "summary.json", "baseline.json"),  # by a command
    *("0002_what_it_does.py", "cadences.py", "faults.ndjson"),
}
OTHER_PROGRAMS = {"airlock test", "airlock bench", "airlock chaos"}
"""Commands whose arguments are those of another program, or names that they check themselves."""
GENERAL_SETTINGS = re.compile(r"AIRLOCK_(HOME|LOG_FORMAT|LOG_LEVEL|FUZZED_(BATCHES|LIES)|FUZZ_SEED|[A-Z_]+_PORT)")


def text_of(document: str) -> str:
    return (CLONE / document).read_text()


def code_of(document: str) -> list[str]:
    """Fenced blocks, and code spans with their line breaks taken out."""
    text = text_of(document)
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.S | re.M)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    return blocks + [" ".join(span.split()) for span in spans]


def anchors_of(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (CLONE / document).parent / path if path else CLONE / document
        if not place.exists() or (anchor and anchor not in anchors_of(place)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_and_folders_exist(document: str) -> None:
    places = (CLONE, (CLONE / document).parent, CLONE / "docs/vectors", CLONE / "tests")
    tests = {path.name for path in (CLONE / "tests").rglob("test_*.py")}
    files = {name for code in code_of(document) for name in FILE.findall(code)} - MADE_WHEN_RUNNING - tests
    folders = {code for code in code_of(document) if re.fullmatch(r"[\w-]+(/[\w-]+)*/", code)}
    missing = {name for name in files | folders if not any((place / name).exists() for place in places)}
    assert not sorted(name for name in missing if not name.startswith(("home/", "/")))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_modules_and_what_is_in_them_exist(document: str) -> None:
    dotted = re.compile(rf"(?<![\w./@-])(?:{'|'.join(ROOMS)})(?:\.\w+)+\b(?!\.?\w*@|/)")
    named = {
        name
        for code in code_of(document)
        for name in dotted.findall(code)
        if not re.search(r"\.(py|md|json|sql|yml|conf)$", name)
    }
    assert not sorted(name for name in named if not is_defined(name))


def is_defined(dotted: str) -> bool:
    """Whether this is a module, or a name at the top of one. Nothing is imported but packages."""
    module, _, name = dotted.rpartition(".")
    for candidate, wanted in ((dotted, None), (module, name)):
        path = CLONE / candidate.replace(".", "/")
        source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if source.exists():
            return wanted is None or wanted in names_at_top(source)
    return False


def names_at_top(source: Path) -> set[str]:
    names = set()
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


@pytest.mark.parametrize("document", DOCUMENTS)
def test_programs_started_as_modules_exist(document: str) -> None:
    started = {name for code in code_of(document) for name in re.findall(r"python[\d.]* -m ([\w.]+)", code)}
    assert not sorted(name for name in started if importlib.util.find_spec(name) is None)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_and_their_options_exist(document: str) -> None:
    wrong = [line for code in code_of(document) for line in code.splitlines() if not is_command(line)]
    assert not wrong


def is_command(line: str) -> bool:
    """Whether each ``airlock …`` in this line is a command that exists, with options that it has."""
    for call in re.findall(r"(?:^|[\s/])(?:\./)?airlock ((?:[a-z-]+ ?)+.*)", line):
        words = call.partition("#")[0].split()
        command: Any = typer.main.get_command(app)
        path = "airlock"
        while getattr(command, "commands", None) and words and words[0] in command.commands:
            path += " " + words[0]
            command = command.commands[words.pop(0)]
        if path == "airlock" or (getattr(command, "commands", None) and words and re.fullmatch(r"[a-z-]+", words[0])):
            return path == "airlock" and bool(words) and words[0].startswith("-")
        known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
        if path not in OTHER_PROGRAMS and not options_in(words) <= known | {"--help"}:
            return False
    return True


def options_in(words: list[str]) -> set[str]:
    return {match[0] for word in words if (match := re.match(r"--[a-z][a-z-]*", word))}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_settings_exist(document: str) -> None:
    known = {
        f"{model.model_config['env_prefix']}{name}".upper()
        for model in SETTINGS.values()
        for name in model.model_fields
    }
    named = {name for code in code_of(document) for name in re.findall(r"\bAIRLOCK_[A-Z_]*[A-Z]\b", code)}
    meant = {expanded for name in named for expanded in expand(name)}
    known |= set(re.findall(r"AIRLOCK_[A-Z_]+", (CLONE / "docker-compose.yml").read_text()))
    assert not sorted(name for name in meant if name not in known and not GENERAL_SETTINGS.fullmatch(name))


def expand(name: str) -> Iterator[str]:
    """``AIRLOCK_N_…`` stands for both networks."""
    if name.startswith("AIRLOCK_N_"):
        yield from (name.replace("_N_", f"_{network.upper()}_", 1) for network in SETTINGS)
    else:
        yield name


def test_the_tests_that_the_threat_model_names_exist() -> None:
    functions = {
        node.name
        for path in (CLONE / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
    rows = [
        line.rsplit("|", 2)[1] for line in text_of("docs/security.md").splitlines() if ".py`" in line and "|" in line
    ]
    phrases = {phrase for row in rows for phrase in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", row)}
    assert phrases
    pattern = {phrase: re.compile(re.escape(phrase).replace(r"\ ", "_").replace("…", r"\w+")) for phrase in phrases}
    assert not sorted(phrase for phrase in phrases if not any(pattern[phrase].search(name) for name in functions))
