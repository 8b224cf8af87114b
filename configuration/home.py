"""Where state lives, and what a running `up` says of itself there."""

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
    """What a running ``airlock up`` wrote of its addresses and keys; empty when none runs in this home."""
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
