"""Where settings come from, which source wins, and what is said of one that is missing or wrong."""

import json
import os
from pathlib import Path

import pytest

from configuration.settings import NetworkSettings, RequestSettings, ResponseSettings
from models.errors import ConfigurationError

DSN = "postgresql://airlock:hunter2@db:5432/{}"
SECRETS = ("hunter2", "t0psecret", "r3dis")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing configured at all: no variables, no .env, no secret files, no running `up`."""
    for name in list(os.environ):
        if name.startswith("AIRLOCK_"):
            monkeypatch.delenv(name)
    home, files = tmp_path / "home", tmp_path / "secrets"
    home.mkdir()
    files.mkdir()
    monkeypatch.setenv("AIRLOCK_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    for settings in (RequestSettings, ResponseSettings):
        monkeypatch.setitem(settings.model_config, "secrets_dir", files)
    return home


def up_file(home: Path, **changes: object) -> None:
    content = {
        "request_api": "http://127.0.0.1:8100",
        "response_api": "http://127.0.0.1:8101",
        "temporal": "127.0.0.1:7300",
        "namespaces": {"request": "request-up", "response": "response-up"},
        "redis": "redis://127.0.0.1:6390",
        "databases": {"request": DSN.format("up_request"), "response": DSN.format("up_response")},
        "sources": {"sample": DSN.format("sample")},
    }
    (home / "up.json").write_text(json.dumps(content | changes))


def database(settings: NetworkSettings) -> str:
    return settings.database_url.get_secret_value().rsplit("/", 1)[1]


def test_the_environment_wins_over_env_file_over_secret_files_over_a_running_up(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seen() -> str:
        return database(RequestSettings.load())

    up_file(home)
    assert seen() == "up_request"
    (home.parent / "secrets" / "airlock_request_database_url").write_text(DSN.format("from_file") + "\n")
    assert seen() == "from_file"
    (home / ".env").write_text(f"AIRLOCK_REQUEST_DATABASE_URL={DSN.format('dotenv')}\n")
    assert seen() == "dotenv"
    monkeypatch.setenv("AIRLOCK_REQUEST_DATABASE_URL", DSN.format("environment"))
    assert seen() == "environment"


def test_a_running_up_tells_each_network_its_own_addresses(home: Path) -> None:
    up_file(home)
    request, response = RequestSettings.load(), ResponseSettings.load()
    assert (database(request), database(response)) == ("up_request", "up_response")
    assert (request.port, response.port) == (8100, 8101)
    assert (request.temporal_namespace, response.temporal_namespace) == ("request-up", "response-up")
    assert request.temporal_address == response.temporal_address == "127.0.0.1:7300"
    assert request.redis_url.get_secret_value() == "redis://127.0.0.1:6390/0"
    assert response.redis_url.get_secret_value() == "redis://127.0.0.1:6390/1"
    assert response.link_url == "http://127.0.0.1:8100"
    assert response.sources["sample"].get_secret_value() == DSN.format("sample")
    assert request.keys == home / "keys" / "request"


def test_one_networks_variables_are_nothing_to_the_other(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_RESPONSE_DATABASE_URL", DSN.format("response"))
    assert database(ResponseSettings.load()) == "response"
    with pytest.raises(ConfigurationError):
        RequestSettings.load()


def test_without_anything_the_defaults_are_those_of_the_design(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_RESPONSE_DATABASE_URL", DSN.format("x"))
    settings = ResponseSettings.load()
    assert (settings.port, settings.link_url, settings.temporal_namespace) == (
        8001,
        "http://127.0.0.1:8000",
        "response",
    )
    assert settings.cadences["export-settings"].every == 60
    assert settings.drain_seconds == 30
    assert (settings.sources, settings.python_executors, settings.http_hosts) == ({}, [], [])


def test_a_missing_setting_is_named_with_what_to_do(home: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        RequestSettings.load()
    message = str(raised.value)
    assert "AIRLOCK_REQUEST_DATABASE_URL: not set" in message
    assert "./airlock up" in message


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("DATABASE_URL", "mysql://airlock:hunter2@db/x", "must start with postgresql://"),
        ("DATABASE_CONNECTIONS", "hunter2", "integer"),
        ("PORT", "70000", "65535"),
        ("LINK_ID", "Not A Link", "pattern"),
        ("LINK_URL", "db:5432", "pattern"),
        ("CADENCES", '{"export-reports": {"every": 5}}', "no such schedule"),
        ("CADENCES", '{"export-results": {"cron": "x"}}', "five fields"),
        ("CADENCES", "hunter2", "cadences"),
        ("SOURCES", "hunter2", "sources"),
        ("SOURCES", '["hunter2"]', "SOURCES"),
        ("RETENTION", "0", "greater than 0"),
    ],
)
def test_a_wrong_setting_is_named_with_the_reason_and_without_its_value(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv("AIRLOCK_RESPONSE_DATABASE_URL", DSN.format("x"))
    monkeypatch.setenv(f"AIRLOCK_RESPONSE_{variable}", value)
    with pytest.raises(ConfigurationError) as raised:
        ResponseSettings.load()
    assert said in str(raised.value)
    assert variable.lower() in str(raised.value).lower()
    assert not any(secret in str(raised.value) for secret in SECRETS)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__, "a traceback would show the value"


@pytest.mark.parametrize("content", ["", "torn {", "[]", "null", "{}", '{"request_api": 5}'])
def test_a_damaged_up_file_is_told_in_a_sentence(home: Path, content: str) -> None:
    (home / "up.json").write_text(content)
    if content == "{}":
        with pytest.raises(ConfigurationError, match="not set"):
            RequestSettings.load()
        return
    with pytest.raises(ConfigurationError, match=r"up\.json"):
        RequestSettings.load()


def test_no_secret_shows_when_settings_are_printed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_RESPONSE_DATABASE_URL", DSN.format("x"))
    monkeypatch.setenv("AIRLOCK_RESPONSE_REDIS_URL", "redis://:r3dis@cache:6379/0")
    monkeypatch.setenv("AIRLOCK_RESPONSE_TEMPORAL_API_KEY", "t0psecret")
    monkeypatch.setenv("AIRLOCK_RESPONSE_SOURCES", json.dumps({"ledger": DSN.format("ledger")}))
    settings = ResponseSettings.load()
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "ledger" in shown
    assert not any(secret in shown for secret in SECRETS)


def test_an_address_may_be_written_postgres(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_REQUEST_DATABASE_URL", "postgres://a@b/short")
    assert database(RequestSettings.load()) == "short"
