"""Look-ups of the names that callers give for their callbacks, kept apart from everything else in the process.

A name server that does not answer holds a thread for as long as the system's resolver waits. So these look-ups have
threads of their own, a timeout, a cache, and each user has only a few of them.
"""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

THREADS = 16
PER_USER = 2
LOOKUP_SECONDS = 5.0
KEPT_SECONDS = 60.0
MAX_KEPT = 1000


class NameLookups:
    """Addresses of names. A failed look-up is remembered too."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="name-lookup")
        self._kept: dict[str, tuple[float, Sequence[str] | None]] = {}
        self._running: dict[str, asyncio.Future[Sequence[str] | None]] = {}
        self._of_user: Counter[UUID] = Counter()

    def close(self) -> None:
        """Begin no more look-ups. Does not wait for those that run."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def addresses(self, name: str, user_id: UUID) -> Sequence[str]:
        """The addresses of a name. Raises ``OSError`` if it has none, ``TimeoutError`` after `LOOKUP_SECONDS`."""
        kept_until, found = self._kept.get(name, (0.0, None))
        if time.monotonic() >= kept_until:
            if name not in self._running:
                if self._of_user[user_id] >= PER_USER:
                    raise TimeoutError("the look-ups of this user's other names are not answered yet")
                self._begin(name, user_id)
            async with asyncio.timeout(LOOKUP_SECONDS):
                found = await asyncio.shield(self._running[name])
        if not found:
            raise OSError("its host cannot be found")
        return found

    def _begin(self, name: str, user_id: UUID) -> None:
        self._of_user[user_id] += 1
        running = asyncio.get_running_loop().run_in_executor(self._threads, _look_up, name)
        self._running[name] = running

        def ended(done: "asyncio.Future[Sequence[str] | None]") -> None:
            del self._running[name]
            self._of_user[user_id] -= 1
            if not self._of_user[user_id]:
                del self._of_user[user_id]
            if not done.cancelled() and done.exception() is None:
                if len(self._kept) >= MAX_KEPT:
                    self._kept.clear()
                self._kept[name] = (time.monotonic() + KEPT_SECONDS, done.result())

        running.add_done_callback(ended)


def _look_up(name: str) -> Sequence[str] | None:
    """Every address once, or None."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    return list(dict.fromkeys(str(item[4][0]) for item in found))
