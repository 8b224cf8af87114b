"""What the python executor calls here. Its module's name, its text and what it raises are for the protected side."""

from typing import Any

from tests.security.canaries import PYTHON_TEXT


async def answers(**_: Any) -> list[dict[str, str]]:
    return [{"colour": "blue"}]


def raises(**_: Any) -> list[Any]:
    raise RuntimeError(f"could not read {PYTHON_TEXT}")
