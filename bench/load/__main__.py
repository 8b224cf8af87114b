"""`python -m bench.load ORDER`: carries out the order in a file, prints the outcome. Both are JSON, see `order.py`."""

import asyncio
import gc
import sys
from pathlib import Path

from bench.load.generator import Generator
from bench.load.order import Order, Outcome


async def _carry_out(order: Order) -> Outcome:
    return await Generator(order).run()


if __name__ == "__main__":
    gc.freeze()
    gc.disable()  # nothing here is a cycle that lasts, and a collection would look like a slow answer
    print(asyncio.run(_carry_out(Order.from_json(Path(sys.argv[1]).read_text()))).to_json())
