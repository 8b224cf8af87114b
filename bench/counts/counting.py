"""What a count is: a number of something that is done, and by how much it may grow."""

from collections import Counter
from dataclasses import dataclass, field

EXACT = 0.0


@dataclass(frozen=True)
class Count:
    """``tolerance``: by which part of its value it may grow unseen; `EXACT`, by nothing at all."""

    value: float
    unit: str
    tolerance: float = EXACT


Counts = dict[str, Count]
"""By name: ``deliver.response.statements``."""


@dataclass
class Tally:
    """What one database was told."""

    statements: Counter[str] = field(default_factory=Counter)
    round_trips: int = 0
    commits: int = 0

    def add(self, statement: str, times: int) -> None:
        """A statement, so many times: the frame of a transaction and the pool's pings are round trips and no more."""
        self.round_trips += times
        if statement.startswith("COMMIT"):
            self.commits += times
        elif not statement.startswith(("BEGIN", "ROLLBACK")) and statement != ";":
            self.statements[statement] += times

    @property
    def told(self) -> int:
        """Statements proper."""
        return self.statements.total()
