"""The virtual environment with Celery, created on first use. Airlock itself does not depend on it."""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

from configuration.home import CLONE

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
DIRECTORY = CLONE / ".venv-celery"
PYTHON = DIRECTORY / "bin" / "python"


def make_environment() -> Path:
    """The interpreter with the packages of `requirements.txt`. Raises `SystemExit` if they cannot be installed."""
    marker = DIRECTORY / "installed"
    wanted = f"{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()} {sys.version_info[:2]}"
    if not marker.exists() or marker.read_text() != wanted:
        print("installing Celery into .venv-celery (once)", file=sys.stderr, flush=True)
        venv.create(DIRECTORY, clear=True, with_pip=True)
        install = ["-m", "pip", "install", "-q", "--require-hashes", "-r", str(REQUIREMENTS)]
        if subprocess.run([str(PYTHON), *install], check=False, stdout=sys.stderr).returncode != 0:  # noqa: S603
            raise SystemExit("Celery could not be installed: see what pip says above, then run the same again")
        marker.write_text(wanted)
    return PYTHON
