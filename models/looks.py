"""When a group of requests is looked at."""

LOOKS = (5.0, 10.0, 20.0, 40.0, 60.0)
"""Seconds from one look at a group of requests to the next, and then 60 s each. Nobody waits for a look: results and
callbacks do not depend on it, and a deadline has a look of its own. The first leaves time for the usual answer, so that
most groups cost one look; the last bounds how long a run outlives its group."""


def until_look(look: int, deadline_in: float | None) -> float:
    """Seconds until look number ``look`` (from 0): as `LOOKS` says, or when the earliest deadline passes."""
    seconds = LOOKS[min(look, len(LOOKS) - 1)]
    return seconds if deadline_in is None else max(0.05, min(seconds, deadline_in))
