"""How the Celery build is configured, from what its documentation recommends to what a worried engineer would add."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """One configuration of the same code. Times in seconds."""

    name: str
    description: str
    visibility_timeout: int
    """After which the broker gives a message that nobody acknowledged to another worker."""
    append_only: bool
    """Whether Redis writes every command to its append-only file. Its own default is snapshots alone."""
    sweep_after: int | None
    """Age after which Beat sends a task again for a request that has no result; None: nothing looks."""

    @property
    def broker_options(self) -> dict[str, int]:
        """Celery's ``broker_transport_options``."""
        options = {"visibility_timeout": self.visibility_timeout}
        if self.visibility_timeout < 3600:
            # kombu looks for what was not acknowledged every 100 s; it says itself to look more often in such a case.
            options |= {"unacked_restore_interval": 5, "unacked_restore_throttle": 1}
        return options

    @property
    def redis_options(self) -> dict[str, str]:
        """What redis-server is started with: its own defaults, spelled out, and what differs from them."""
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
            "tuned, and a table of our own: Beat sends again what has had no result for a minute",
            visibility_timeout=60,
            append_only=True,
            sweep_after=60,
        ),
    )
}
