"""`.env` and `up.json` are read where only their owner may write them, and nowhere else."""

import os
from pathlib import Path

import pytest

from configuration import home as homes
from configuration import trusted_files
from configuration.home import dotenv_files, dotenv_variables, read_up_file
from configuration.settings import RequestSettings

LINE = "AIRLOCK_REQUEST_LINK_ID={}\n"
STRANGER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone and a home, each with a `.env`, and another current directory."""
    clone, home, elsewhere = (tmp_path / name for name in ("clone", "home", "elsewhere"))
    for place in (clone, home, elsewhere):
        place.mkdir(mode=0o700)
    monkeypatch.setattr(homes, "CLONE", clone)
    monkeypatch.setattr(trusted_files, "_told", set())
    monkeypatch.setenv("AIRLOCK_HOME", str(home))
    monkeypatch.setenv("AIRLOCK_REQUEST_DATABASE_URL", "postgresql://somewhere/airlock")
    monkeypatch.delenv("AIRLOCK_REQUEST_LINK_ID", raising=False)
    monkeypatch.chdir(elsewhere)
    return clone


def write(place: Path, name: str) -> Path:
    file = place / ".env"
    file.write_text(LINE.format(name))
    file.chmod(0o600)
    return file


def seen() -> str:
    return RequestSettings.load().link_id


def test_the_current_directory_configures_nothing(clone: Path) -> None:
    write(Path.cwd(), "from-anywhere")
    assert (seen(), dotenv_variables()) == ("airlock", {})


def test_clone_and_home_configure_and_the_home_wins(clone: Path) -> None:
    write(clone, "from-the-clone")
    assert seen() == "from-the-clone"
    write(homes.home_directory(), "from-the-home")
    assert seen() == "from-the-home"
    assert dotenv_variables() == {"AIRLOCK_REQUEST_LINK_ID": "from-the-home"}


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_ignored_with_one_sentence(
    clone: Path, mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write(clone, "false").chmod(mode)
    assert (seen(), seen()) == ("airlock", "airlock")
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{clone / '.env'} is ignored, because other users may write {clone / '.env'}" in said


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o1777])
def test_so_is_a_file_in_a_directory_that_others_may_write(
    clone: Path, mode: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write(clone, "false")
    clone.chmod(mode)
    assert seen() == "airlock"
    assert f"other users may write {clone}:" in capsys.readouterr().err


def test_so_is_a_file_below_a_directory_in_which_others_may_rename(clone: Path) -> None:
    write(clone, "false")
    clone.parent.chmod(0o777)
    assert seen() == "airlock"
    clone.parent.chmod(0o1777)  # as /tmp: there nobody renames what is another's
    assert seen() == "false"


def test_a_link_is_as_good_as_what_it_points_to(clone: Path) -> None:
    target = write(Path.cwd(), "linked")
    (clone / ".env").symlink_to(target)
    assert seen() == "linked"
    Path.cwd().chmod(0o777)
    assert seen() == "airlock"


@as_root
@pytest.mark.parametrize("what", [".env", "."])
def test_what_belongs_to_another_user_is_ignored(clone: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    write(clone, "false")
    os.chown(clone / what, STRANGER, STRANGER)
    assert seen() == "airlock"
    assert "belongs to another user" in capsys.readouterr().err


def test_a_directory_in_place_of_the_file_and_no_file_are_nothing(clone: Path) -> None:
    assert dotenv_files() == []
    (clone / ".env").symlink_to(clone / "nowhere")
    assert dotenv_files() == []


def test_the_addresses_of_a_running_up_are_not_taken_from_others_either(clone: Path) -> None:
    file = homes.home_directory() / "up.json"
    file.write_text('{"request_api": "http://127.0.0.1:8100"}')
    file.chmod(0o600)
    assert read_up_file() == {"request_api": "http://127.0.0.1:8100"}
    file.chmod(0o666)
    assert read_up_file() == {}
