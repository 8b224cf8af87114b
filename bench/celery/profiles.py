"""Configurations of the Celery build: as its documentation recommends, and with additional precautions."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """One configuration of the same code. Times in seconds."""

    name: str
    description: str
    visibility_timeout: int
    """After this time the broker delivers an unacknowledged message again."""
    append_only: bool
    """Whether Redis writes every command to its append-only file. Its default is snapshots only."""
    sweep_after: int | None
    """Age after which Beat sends a task again for a request without a result; None: never."""

    @property
    def broker_options(self) -> dict[str, int]:
        """Celery's ``broker_transport_options``."""
        options = {"visibility_timeout": self.visibility_timeout}
        if self.visibility_timeout < 3600:
            # kombu looks for unacknowledged messages every 100 s by default; its documentation says to shorten that.
            options |= {"unacked_restore_interval": 5, "unacked_restore_throttle": 1}
        return options

    @property
    def redis_options(self) -> dict[str, str]:
        """Options of redis-server: its defaults, written out, and the differences."""
        options = {"save": "3600 1 300 100 60 10000", "appendonly": "no", "maxmemory-policy": "noeviction"}
        return options | ({"appendonly": "yes", "appendfsync": "everysec"} if self.append_only else {})


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "documented",
            "Celery and Redis as documented: late acknowledgement, visibility timeout of an hour, snapshots",
            visibility_timeout=3600,
            append_only=False,
            sweep_after=None,
        ),
        Profile(
            "tuned",
            "visibility timeout of a minute, looked at every 5 s, and an append-only file",
            visibility_timeout=60,
            append_only=True,
            sweep_after=None,
        ),
        Profile(
            "swept",
            "tuned, and a table of our own: Beat sends tasks again for requests without a result for a minute",
            visibility_timeout=60,
            append_only=True,
            sweep_after=60,
        ),
    )
}
