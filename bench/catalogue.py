"""All figures, in the order in which they are measured. A new one is a subclass of `Figure` and a line here."""

from bench.drain import Drain
from bench.figures import Figure
from bench.growth import Growth
from bench.idle import IdleCost
from bench.lone import Lone
from bench.memory import Memory
from bench.read import Read
from bench.scaling import Scaling
from bench.startup import Startup
from bench.submission import Submission
from bench.sustained import Sustained
from bench.takeover import Takeover
from bench.temporal_cost import TemporalCost

FIGURES: tuple[type[Figure], ...] = (
    Lone,
    Sustained,
    Submission,
    Read,
    Drain,
    Memory,
    Growth,
    TemporalCost,
    IdleCost,
    Takeover,
    Startup,
    Scaling,
)


def described(figure: type[Figure]) -> str:
    """The first sentence of the figure's docstring."""
    return " ".join((figure.__doc__ or "").split()).partition(". ")[0].rstrip(".")


def chosen(names: list[str]) -> list[Figure]:
    """The figures of these names, or all if none is named, in the catalogue's order.

    Raises `LookupError` for an unknown name.
    """
    known = {figure.name: figure for figure in FIGURES}
    if unknown := [name for name in names if name not in known]:
        raise LookupError(f"there is no figure {unknown[0]!r}; there are {', '.join(known)}")
    return [figure() for name, figure in known.items() if not names or name in names]
