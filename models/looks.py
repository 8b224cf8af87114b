"""The times at which the workflow of a group of requests looks at it."""

LOOKS = (5.0, 10.0, 20.0, 40.0, 60.0)
"""Seconds between looks; the last value repeats. Results and callbacks do not depend on a look, and a deadline has its
own. The first value leaves time for the usual answer, so that most groups cost one look. The last value bounds how long
a run outlives its group."""


def until_look(look: int, deadline_in: float | None) -> float:
    """Seconds until look number ``look``, from 0: the value of `LOOKS`, or the time to the earliest deadline."""
    seconds = LOOKS[min(look, len(LOOKS) - 1)]
    return seconds if deadline_in is None else max(0.05, min(seconds, deadline_in))
