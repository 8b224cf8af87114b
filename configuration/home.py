"""The home directory, the file `up.json` that a running `airlock up` writes there, and the files `.env`."""

import json
import os
from pathlib import Path
from typing import Any

from configuration.trusted_files import is_trusted
from models.errors import ConfigurationError

CLONE = Path(__file__).resolve().parent.parent


def home_directory() -> Path:
    """``AIRLOCK_HOME``, or ``.airlock`` in the clone."""
    return Path(os.environ.get("AIRLOCK_HOME") or CLONE / ".airlock").expanduser().resolve()


def read_up_file() -> dict[str, Any]:
    """The addresses and keys of a running ``airlock up``; empty if none runs in this home."""
    path = home_directory() / "up.json"
    if not is_trusted(path):
        return {}
    try:
        content = path.read_text()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    try:
        loaded = json.loads(content)
    except ValueError:
        loaded = None
    if not isinstance(loaded, dict):
        raise ConfigurationError(f"{path} is damaged: stop airlock up, delete it, start again")
    return loaded


def dotenv_files() -> list[Path]:
    """The `.env` of the clone and that of the home, which wins; never that of the current directory."""
    return [path for path in dict.fromkeys((CLONE / ".env", home_directory() / ".env")) if is_trusted(path)]


def dotenv_variables() -> dict[str, str]:
    """The variables of these files."""
    from dotenv import dotenv_values

    found: dict[str, str] = {}
    for path in dotenv_files():
        found |= {name: value for name, value in dotenv_values(path).items() if value is not None}
    return found
