"""A limit on how often something is done, so that items that arrive close together are handled together."""

import time


class RateLimiter:
    """One turn per ``seconds`` on average, with a burst of two after a pause.

    So neither an item that arrives alone waits, nor one that arrives right after it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due = float("-inf")
        """When the next turn is due without a burst, by the monotonic clock."""

    def take(self, seconds: float = 0.0) -> None:
        """Take a turn now. The next one is due after ``seconds``, if that is longer than usual."""
        now, distance = time.monotonic(), max(seconds, self._seconds)
        self._due = min(max(self._due, now), now + self._seconds) + distance

    def left(self) -> float:
        """Seconds until the next turn, at most ``seconds``. At 0 or less a turn may be taken."""
        return self._due - self._seconds - time.monotonic()
