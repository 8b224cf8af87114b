"""What Airlock does by the clock is put off while counting: how often it happens says how long a run took, no more."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import ModuleType

import activities.announcing

import activities.executing
import activities.pulling
import api.request.dispatching
import exchange.link_keys.introduction
import exchange.link_keys.live_keys
import fulfilment.first_reads
import monitoring.link_watch
import workflows.exports
import workflows.timing

NEVER = 1e6
"""Seconds."""

PUT_OFF: list[tuple[ModuleType, str, float | timedelta | tuple[float, ...]]] = [
    (activities.announcing, "PAUSE_KNOWN_SECONDS", -1.0),  # an operator's pause is asked for each time
    (activities.executing, "FLUSH_SECONDS", NEVER),  # results are committed when enough are there, not by time
    (monitoring.link_watch, "EVERY_SECONDS", 1e9),  # a success is noted once; more than the machine has been up
    (activities.pulling, "POLL_SECONDS", 60.0),  # what the API allows at most
    (api.request.dispatching, "LOOK_SECONDS", NEVER),
    (api.request.dispatching, "TOGETHER_SECONDS", 0.0),  # a workflow for each group: none waits for the next
    (fulfilment.first_reads, "FLUSH_SECONDS", NEVER),
    (exchange.link_keys.introduction, "TELL_SECONDS", NEVER),
    (exchange.link_keys.live_keys, "LOOK_SECONDS", NEVER),
    (workflows.exports, "SHORTEST_RUN", timedelta()),  # a run that is over before this waits: one timer
    (workflows.timing, "SHORTEST_RUN", timedelta()),
    (workflows.timing, "LOOK_AGAIN", (8.0, NEVER)),  # a group's first look finds what went all the way meanwhile
]


@contextmanager
def nothing_by_the_clock() -> Iterator[None]:
    """For as long as the block runs. Raises ``AttributeError`` when one of them has another name by now."""
    before = [(module, name, getattr(module, name)) for module, name, _ in PUT_OFF]
    try:
        for module, name, much_later in PUT_OFF:
            setattr(module, name, much_later)
        yield
    finally:
        for module, name, content in before:
            setattr(module, name, content)
