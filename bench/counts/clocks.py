"""Postpones periodic work while counts are taken, because its amount depends on how long the measurement takes."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import activities.executing
import activities.importing
import activities.pulling
import api.request.dispatching
import exchange.link_keys.introduction
import exchange.link_keys.live_keys
import fulfilment.first_reads
import monitoring.link_watch
import monitoring.waiting
import monitoring.workflow_watch
import orchestration.resident
import storage.attendance

NEVER = 1e6
"""Seconds."""

Constants = list[tuple[ModuleType, str, float]]
"""Module, name of the constant in it, value during the measurement."""

PERIODIC: Constants = [
    (activities.pulling, "LOOK_SECONDS", NEVER),
    (activities.executing, "FLUSH_SECONDS", NEVER),  # results are committed when enough are there, not by time
    (activities.pulling, "POLL_SECONDS", 60.0),  # the longest poll that the API allows
    (activities.pulling, "ROUND_SECONDS", NEVER),
    (api.request.dispatching, "LOOK_SECONDS", NEVER),
    (api.request.dispatching, "TOGETHER_SECONDS", 0.0),  # groups that come one after the other share no workflow
    (exchange.link_keys.introduction, "TELL_SECONDS", NEVER),
    (exchange.link_keys.live_keys, "LOOK_SECONDS", NEVER),
    (fulfilment.first_reads, "FLUSH_SECONDS", NEVER),
    (monitoring.link_watch, "EVERY_SECONDS", 1e9),  # one success is recorded; longer than the machine has been up
    (monitoring.workflow_watch, "LOOK_SECONDS", NEVER),
    (monitoring.waiting, "LOOK_SECONDS", NEVER),
    (orchestration.resident, "ROUND_SECONDS", NEVER),
    (storage.attendance, "LEASE_SECONDS", NEVER),
    (storage.attendance, "RENEW_SECONDS", NEVER),
]
ATTENDING: Constants = [
    (activities.importing, "ATTENDS_SECONDS", -1.0),  # applying ends when nothing is left
    (activities.importing, "RENEW_SECONDS", 0.0),
]


@contextmanager
def replaced(constants: Constants) -> Iterator[None]:
    """Give these constants their values for the block. Raises ``AttributeError`` for one that does not exist."""
    before = [(module, name, getattr(module, name)) for module, name, _ in constants]
    try:
        for module, name, value in constants:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
