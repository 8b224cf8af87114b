"""The home directory, and the file `up.json` that a running `airlock up` writes there."""

import json
import os
from pathlib import Path
from typing import Any

from models.errors import ConfigurationError

CLONE = Path(__file__).resolve().parent.parent


def home_directory() -> Path:
    """``AIRLOCK_HOME``, or ``.airlock`` in the clone."""
    return Path(os.environ.get("AIRLOCK_HOME") or CLONE / ".airlock").expanduser().resolve()


def read_up_file() -> dict[str, Any]:
    """The addresses and keys of a running ``airlock up``; empty if none runs in this home."""
    try:
        content = (home_directory() / "up.json").read_text()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    try:
        loaded = json.loads(content)
    except ValueError:
        loaded = None
    if not isinstance(loaded, dict):
        raise ConfigurationError(f"{home_directory() / 'up.json'} is damaged: stop airlock up, delete it, start again")
    return loaded
