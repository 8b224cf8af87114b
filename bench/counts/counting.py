"""A count, with its tolerance, and the tally of the statements that one database received."""

from collections import Counter
from dataclasses import dataclass, field

EXACT = 0.0


@dataclass(frozen=True)
class Count:
    """``tolerance``: the share of its value by which it may grow; `EXACT` for none."""

    value: float
    unit: str
    tolerance: float = EXACT


Counts = dict[str, Count]
"""By name: ``deliver.response.statements``."""


@dataclass
class Tally:
    """Statements, round trips and commits of one database."""

    statements: Counter[str] = field(default_factory=Counter)
    round_trips: int = 0
    commits: int = 0

    def add(self, statement: str, times: int) -> None:
        """Count a statement, ``times`` times. BEGIN, ROLLBACK and the pool's pings count as round trips only."""
        self.round_trips += times
        if statement.startswith("COMMIT"):
            self.commits += times
        elif not statement.startswith(("BEGIN", "ROLLBACK")) and statement != ";":
            self.statements[statement] += times

    @property
    def told(self) -> int:
        """Number of statements without BEGIN, COMMIT and ROLLBACK."""
        return self.statements.total()
