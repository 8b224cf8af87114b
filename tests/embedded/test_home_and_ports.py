"""The home directory and the ports: what is wrong with them is said in a sentence."""

import os
import socket
import stat
from pathlib import Path

import pytest

from embedded import ports
from embedded.errors import CannotStart
from embedded.home import Home


def test_a_home_is_private_and_so_is_what_it_holds(home: Home) -> None:
    home.write_up_file({"request_api": "http://127.0.0.1:1"})
    home.secret("password")
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    for path in (home.up_file, home.secrets / "password"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_home_that_an_older_airlock_left_open_is_closed(tmp_path: Path) -> None:
    root = tmp_path / "home"
    for directory in ("logs", "keys/request/trusted", "temporal"):
        (root / directory).mkdir(parents=True)
    for name in ("logs/postgres.log", "keys/request/trusted/a.pem", "temporal/temporal.db", "worker-request.ready"):
        (root / name).touch()
    for place in (root, *root.rglob("*")):
        place.chmod(0o777)
    with Home.open(root):
        open_places = [place for place in (root, *root.rglob("*")) if place.stat().st_mode & 0o077]
    assert open_places == []


def test_a_place_for_all_users_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "like-tmp"
    place.mkdir()
    place.chmod(0o1777)
    with pytest.raises(CannotStart, match="not yours alone"):
        Home.open(place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o1777


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_a_home_of_another_user_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "theirs"
    place.mkdir()
    os.chown(place, 12345, 12345)
    with pytest.raises(CannotStart, match="not yours alone"):
        Home.open(place)


def test_ports_of_redis_postgres_and_temporals_http_are_opened_on_request_only() -> None:
    chosen = ports.configured_ports({})
    assert (chosen.redis, chosen.postgres, chosen.temporal_http) == (None, None, None)
    assert ports.free_ports("redis").redis is not None
    assert ports.asked_for({"AIRLOCK_REDIS_PORT": "7000", "AIRLOCK_REQUEST_PORT": "1"}) == ["redis"]


def test_a_second_up_in_the_same_home_is_told_of_the_first(home: Home) -> None:
    home.say_who_holds_it("http://127.0.0.1:8000")
    with pytest.raises(CannotStart) as raised:
        Home.open(home.root)
    assert f"pid {os.getpid()}, http://127.0.0.1:8000" in str(raised.value)


def test_a_closed_home_can_be_opened_again(tmp_path: Path) -> None:
    Home.open(tmp_path / "home").close()
    Home.open(tmp_path / "home").close()


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(CannotStart, match="is a file, the home must be a directory"):
        Home.open(tmp_path / "home")
    with pytest.raises(CannotStart, match="is a file, the home must be a directory"):
        Home.open(tmp_path / "home" / "below")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o500)
    with pytest.raises(CannotStart, match="cannot be written"):
        Home.open(tmp_path / "home")


def test_a_home_of_a_newer_airlock_is_refused(tmp_path: Path) -> None:
    Home.open(tmp_path).close()
    (tmp_path / "version").write_text("99\n")
    with pytest.raises(CannotStart, match="made by a newer Airlock"):
        Home.open(tmp_path)


def test_a_secret_is_made_once(home: Home) -> None:
    assert home.secret("one") == home.secret("one") != home.secret("two")


def test_what_a_killed_up_left_is_taken_away(home: Home) -> None:
    home.up_file.write_text('{"pid": 1}')
    assert home.take_stale_up_file() == {"pid": 1}
    assert not home.up_file.exists()
    assert home.take_stale_up_file() == {}


def test_a_taken_port_is_said_with_holder_variable_and_way_out() -> None:
    chosen = ports.free_ports()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", chosen.temporal_ui))
        taken.listen()
        with pytest.raises(CannotStart) as raised:
            ports.check_free(chosen)
    said = str(raised.value)
    assert f"Port {chosen.temporal_ui} is taken by" in said
    assert f"(pid {os.getpid()})" in said
    assert "AIRLOCK_TEMPORAL_UI_PORT" in said
    assert "--free-ports" in said
    ports.check_free(chosen)


def test_ports_come_from_the_environment() -> None:
    chosen = ports.configured_ports({"AIRLOCK_REDIS_PORT": "7000"})
    assert (chosen.redis, chosen.request, chosen.temporal) == (7000, 8000, 7233)


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(CannotStart, match="AIRLOCK_POSTGRES_PORT"):
        ports.configured_ports({"AIRLOCK_POSTGRES_PORT": text})


def test_one_port_for_two_is_refused() -> None:
    with pytest.raises(CannotStart, match="AIRLOCK_REQUEST_PORT and AIRLOCK_RESPONSE_PORT are both 9000"):
        ports.configured_ports({"AIRLOCK_REQUEST_PORT": "9000", "AIRLOCK_RESPONSE_PORT": "9000"})
