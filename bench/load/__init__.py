"""The load generator: a separate process, the same for every contestant, that checks every answer.

It shares two cores with what it measures. So it uses `chaos.connection`, HTTP/1.1 on an `asyncio.Protocol`, which takes
some 40 µs a call, a tenth of httpx. `running.load` starts it.
"""
