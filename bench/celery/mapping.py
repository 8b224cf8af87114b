"""The counterparts of Airlock's processes in the Celery build, so that both get the same plan from the same seed."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from chaos.plan import LINK, Fault


@dataclass(frozen=True)
class Counterpart:
    """The process that is hit instead of one of Airlock's."""

    name: str | None
    """None: there is no such process, and the fault is omitted, to Celery's advantage."""
    why: str


COUNTERPARTS = {
    "postgres": Counterpart("postgres", "the same server with the same settings"),
    "redis": Counterpart("redis", "a cache in Airlock; the broker of Celery's"),
    "temporal": Counterpart("beat", "Temporal schedules and queues; Beat schedules. The queue, Redis, is not hit here"),
    "request-api": Counterpart("request-api", "the same"),
    "response-api": Counterpart("response-api", "the same"),
    "response-worker": Counterpart("celery-worker", "pulls, executes and exports in both"),
    "request-worker": Counterpart(
        None, "the request network's API does its work, in the transaction that takes results"
    ),
    LINK: Counterpart(LINK, "the same proxy, between Celery's worker and the request network's API"),
}


def mapped(plan: Iterable[Fault], *, redis: bool) -> list[Fault]:
    """The faults for the Celery build, at the same times; those of Redis only if ``redis``."""
    hit = []
    for fault in plan:
        counterpart = COUNTERPARTS[fault.target].name
        if counterpart is not None and (redis or fault.target != "redis"):
            hit.append(replace(fault, target=counterpart))
    return hit
