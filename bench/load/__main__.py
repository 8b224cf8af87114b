"""`python -m bench.load ORDER`: executes the order in a file and prints the outcome. Both are JSON, see `order.py`.

Exits with 1 if the generator itself fails; wrong answers are part of the outcome.
"""

import asyncio
import gc
import os
import sys
from pathlib import Path
from typing import Any

from bench.load.generator import Generator
from bench.load.order import Order, Outcome


async def _carry_out(order: Order) -> Outcome:
    asyncio.get_running_loop().set_exception_handler(_break)
    return await Generator(order).run()


def _break(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Exit at an error in a callback: asyncio would only log it, and its call would look unanswered."""
    loop.default_exception_handler(context)
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    gc.freeze()
    gc.disable()  # no reference cycles accumulate here, and a collection would look like a slow answer
    print(asyncio.run(_carry_out(Order.from_json(Path(sys.argv[1]).read_text()))).to_json())
