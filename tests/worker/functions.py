"""What the workers under test execute. Each call is written down; some go on only when the test opens the gate."""

import asyncio
import json
import os
from pathlib import Path


def _room() -> Path:
    return Path(os.environ["TEST_ROOM"])


async def answer(number: int, waits: bool = False) -> list[dict[str, int]]:
    """One row that says which request this was and which process answered it."""
    line = json.dumps({"number": number, "pid": os.getpid()}) + "\n"
    with (_room() / "calls").open("a") as calls:
        calls.write(line)
    while waits and not (_room() / "gate").exists():  # noqa: ASYNC110, another process opens it
        await asyncio.sleep(0.02)
    return [{"number": number, "pid": os.getpid()}]
