"""The command line in this process, told of real servers by its environment."""

from collections.abc import Callable

import pytest
from temporalio.testing import WorkflowEnvironment
from typer.testing import CliRunner, Result

from cli.program import app
from tests.conftest import Networks
from tests.schedules.conftest import client, temporal

__all__ = ["client", "temporal"]

Airlock = Callable[..., Result]


@pytest.fixture
def airlock() -> Airlock:
    """Runs a command; its output and error output are apart."""
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """No running ``airlock up`` and no variable tells anything."""
    monkeypatch.setenv("AIRLOCK_HOME", str(tmp_path))
    monkeypatch.chdir(str(tmp_path))
    for name in ("DATABASE_URL", "TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE"):
        for network in ("REQUEST", "RESPONSE"):
            monkeypatch.delenv(f"AIRLOCK_{network}_{name}", raising=False)


@pytest.fixture
def configured(
    no_home: None, networks: Networks, temporal: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> Networks:
    """The response network's variables point to real servers."""
    monkeypatch.setenv("AIRLOCK_RESPONSE_DATABASE_URL", networks.response.url)
    monkeypatch.setenv("AIRLOCK_RESPONSE_TEMPORAL_ADDRESS", temporal.client.service_client.config.target_host)
    monkeypatch.setenv("AIRLOCK_RESPONSE_TEMPORAL_NAMESPACE", temporal.client.namespace)
    return networks
