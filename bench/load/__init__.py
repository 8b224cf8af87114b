"""The load generator: a program of its own, the same for every contestant, that asks by HTTP and checks every answer.

It shares two cores with what it measures, so it writes HTTP/1.1 itself (`chaos.connection`), on an `asyncio.Protocol`
without streams: some 40 µs a call. httpx takes ten times that, and would then measure itself. `running.load` starts it.
"""
