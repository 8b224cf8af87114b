"""A limit on how often something is done, so that what comes close together is handled together."""

import time


class RateLimiter:
    """Turns so many ``seconds`` apart on average; the first after a rest of that length may be followed at once by one.

    So neither what comes alone waits, nor what happens to come right after it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due = float("-inf")
        """When the next turn would be, by the monotonic clock, had nobody gone before their time."""

    def take(self, seconds: float = 0.0) -> None:
        """A turn is taken now; the next one is for so many seconds after it, where that is more than usual."""
        now, distance = time.monotonic(), max(seconds, self._seconds)
        self._due = min(max(self._due, now), now + self._seconds) + distance

    def left(self) -> float:
        """Seconds until the next turn, never more than the distance; 0 and less: it may be taken."""
        return self._due - self._seconds - time.monotonic()
