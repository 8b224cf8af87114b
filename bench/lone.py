"""How long a lone request takes, from its submission to its result in the caller's hands."""

from collections.abc import Mapping, Sequence
from functools import partial

from bench.aims import Aim, beats, line
from bench.asks import fresh, submissions
from bench.contestants import Start, airlock, celery, plain
from bench.figures import LIMIT, OURS, RIVAL, Figure, Line, Options, Spread, in_turn
from bench.load.order import Order, Outcome
from bench.load.running import clean_load
from bench.steps import STEPS, steps

PER_MINUTE = 200
SECONDS = 60.0
WARM_UP = 5.0
POLLING = (1.0, 0.1, 0.05, 0.02)
"""Seconds from one pull of Celery's to the next."""
AIMS_MS = {"p50": 150.0, "p99": 400.0}


class Lone(Figure):
    """Milliseconds from submission to result of requests that come one by one, 200 a minute: p50 and p99."""

    name = "lone"
    rounds = 3

    async def measure(self, options: Options) -> Sequence[Line]:
        """Each round starts each contestant anew, one at a time."""
        rivals: Mapping[str, Start] = {f"{RIVAL} {every:g} s": partial(celery, pull_every=every) for every in POLLING}
        starts: Mapping[str, Start] = {OURS: airlock, LIMIT: plain, **rivals}
        passed: dict[str, Mapping[str, float]] = {}
        runs = {name: partial(_one, start, name, options, passed) for name, start in starts.items()}
        taken = await in_turn(runs, options.rounds, 0, lambda what, got: options.say(f"{what} {_said(got)}"))
        return [
            _line(quantile, aim, {name: _spread(outcomes, quantile) for name, outcomes in taken.items()}, taken, passed)
            for quantile, aim in AIMS_MS.items()
        ]


async def _one(start: Start, name: str, options: Options, passed: dict[str, Mapping[str, float]]) -> Outcome:
    directory = fresh(options.root, name)
    async with start(directory) as contestant:
        order = Order(
            contestant.port,
            submissions(answered=True, prefix="/executed" if name == LIMIT else ""),
            max(2.0, SECONDS * options.scale),
            rate=PER_MINUTE / 60,
            scatter=1.0,
            warm_up=WARM_UP,
            headers=contestant.headers,
        )
        outcome = await clean_load(order, directory / "load")
        if name == OURS:
            passed[name] = await steps(contestant.request_database, contestant.response_database)
        return outcome


def _line(
    quantile: str,
    aim: float,
    spreads: dict[str, Spread],
    taken: Mapping[str, Sequence[Outcome]],
    passed: Mapping[str, Mapping[str, float]],
) -> Line:
    """The best of the rival's cadences counts, by this quantile."""
    rivals = {name: spread for name, spread in spreads.items() if name.startswith(RIVAL)}
    best = min(rivals, key=lambda name: rivals[name].median)
    said = ", ".join(f"{name.removeprefix(RIVAL + ' ')}: {spread.median:.0f}" for name, spread in rivals.items())
    return line(
        f"lone request, {quantile}",
        "ms",
        [Aim(aim, at_most=True), beats(RIVAL, at_most=True)],
        {OURS: spreads[OURS], LIMIT: spreads[LIMIT], RIVAL: rivals[best]},
        f"{PER_MINUTE} a minute, at irregular times; Celery pulling every {best.removeprefix(RIVAL + ' ')}, its best"
        f" (median, {said} ms);"
        " limit: the same queries and INSERTs in one process, which crosses nothing; Airlock's last round, in ms: "
        + ", ".join(f"{STEPS[step]} {after:.0f}" for step, after in passed.get(OURS, {}).items()),
        {name: [vars(each) for each in outcomes] for name, outcomes in taken.items()} | {"steps": dict(passed)},
        less_is_better=True,
    )


def _spread(outcomes: Sequence[Outcome], quantile: str) -> Spread:
    return Spread(tuple(each.latency_ms[quantile] for each in outcomes))


def _said(outcome: Outcome) -> str:
    return ", ".join(f"{name} {outcome.latency_ms[name]:.0f} ms" for name in AIMS_MS)
