"""The table of cadences: which schedule runs when. Workers make the Temporal Schedules from it."""

from datetime import timedelta
from functools import cache
from typing import Literal
from zoneinfo import available_timezones

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.streams import StreamName

time_zones = cache(available_timezones)
"""Names of all time zones. Looking them up reads some 600 files, which takes 20 ms."""


class Cadence(BaseModel):
    """When a schedule fires. Exactly one of ``every`` and ``cron``; durations in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: float | None = Field(None, ge=1, description="Seconds between runs")
    cron: str | None = Field(None, description="Cron expression, five fields")
    time_zone: str = Field("UTC", description="IANA time zone of the cron expression")
    jitter: float = Field(0, ge=0, description="Seconds by which a run may be delayed at random")
    overlap: Literal["skip", "buffer-one"] | None = Field(
        None, description="What happens at a tick while the last run goes on; the default depends on the schedule"
    )
    follow: bool = Field(
        True,
        description="export-results only. true: deliver results as they become ready. false: deliver at a tick what is"
        " ready then, and nothing else",
    )
    catch_up: float | None = Field(
        None, ge=10, description="Seconds within which a missed run is started late; by default about one interval"
    )

    @model_validator(mode="after")
    def _one_of_every_and_cron(self) -> "Cadence":
        if (self.every is None) == (self.cron is None):
            raise ValueError("give either every (seconds) or cron, not both")
        if self.cron is not None and len(self.cron.split()) != 5:
            raise ValueError(f"cron needs five fields, this has {len(self.cron.split())}: {self.cron!r}")
        if self.time_zone != "UTC" and self.time_zone not in time_zones():
            raise ValueError(f"unknown time zone {self.time_zone!r}: use an IANA name such as Europe/Istanbul")
        return self

    @property
    def overlap_policy(self) -> str:
        """The policy for a tick while the last run goes on."""
        return self.overlap or "skip"

    @property
    def catch_up_window(self) -> timedelta:
        """One interval, so that one run follows an outage, not many. Temporal's minimum is 10 s."""
        return timedelta(seconds=self.catch_up or max(10.0, self.every or 60.0))


EXPORT_SETTINGS = "export-settings"
EXPORT_RESULTS = "export-results"
SYSTEM_MONITORING = "system-monitoring"
CACHE_MAINTENANCE = "cache-maintenance"

SCHEDULE_OF = {
    StreamName.SETTINGS: EXPORT_SETTINGS,
    StreamName.RESULTS: EXPORT_RESULTS,
    StreamName.HEALTH: SYSTEM_MONITORING,
}
"""The schedule that delivers each stream that the response network pushes."""

DEFAULT_CADENCES = {
    EXPORT_SETTINGS: Cadence(every=60),
    EXPORT_RESULTS: Cadence(every=120, overlap="buffer-one"),
    SYSTEM_MONITORING: Cadence(every=300),
    CACHE_MAINTENANCE: Cadence(every=3600),
}


def is_followed(schedule_id: str, cadence: Cadence) -> bool:
    """Whether a run of this schedule lasts until the next tick. Such a run also answers a trigger."""
    return schedule_id == EXPORT_RESULTS and cadence.follow


def check_cadences(cadences: dict[str, Cadence]) -> dict[str, Cadence]:
    """Add the defaults of schedules that were not named. Raises ``ValueError`` for a name or value that is wrong."""
    unknown = sorted(set(cadences) - set(DEFAULT_CADENCES))
    if unknown:
        raise ValueError(f"no such schedule: {', '.join(unknown)}; there are {', '.join(DEFAULT_CADENCES)}")
    for name, cadence in cadences.items():
        if name != EXPORT_RESULTS and not cadence.follow:
            raise ValueError(f"{name}: follow is for {EXPORT_RESULTS} only")
    results = cadences.get(EXPORT_RESULTS)
    if results is not None and results.follow:
        if results.overlap == "skip":
            raise ValueError(
                f"{EXPORT_RESULTS}: overlap skip would skip every second run, since a run lasts until the next one"
                ' waits. Leave overlap out, or set "follow": false'
            )
        cadences = cadences | {EXPORT_RESULTS: results.model_copy(update={"overlap": "buffer-one"})}
    return DEFAULT_CADENCES | cadences
