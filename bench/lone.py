"""How long a lone request takes, from its submission to its result in the caller's hands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from bench.aims import Aim, beats, line
from bench.asks import fresh, submissions
from bench.contestants import Start, airlock, celery, plain
from bench.figures import LIMIT, OURS, RIVAL, Figure, Line, Options, Spread, in_turn
from bench.load.order import Order, Outcome
from bench.load.running import clean_load
from bench.steps import STEPS, steps

WARM_EVERY, WARM_SCATTER, WARM_SECONDS, WARM_UP = 0.3, 1.0, 60.0, 5.0
"""Warm requests: one every 0.3 s on average, at irregular times, for a minute."""
COLD_EVERY, COLD_SCATTER, COLD_SECONDS = 8.0, 0.25, 120.0
"""Cold requests: 6 to 10 s lie between two of them."""
LEAST_SECONDS = {WARM_EVERY: 2.0, COLD_EVERY: 3 * COLD_EVERY}
"""At a small scale."""
POLLING = (1.0, 0.1, 0.05, 0.02)
"""Seconds from one pull of Celery's to the next."""
AIMS_MS = {"p50": 65.0, "p99": 400.0}
COLD_AIM = 1.2
"""Cold requests may take this many times as long as warm ones."""


@dataclass(frozen=True)
class Taken:
    """One round of one contestant. Celery polls whether or not requests come, so it has no cold requests."""

    warm: Outcome
    cold: Outcome | None = None


class Lone(Figure):
    """Milliseconds from submission to result of lone requests: one every 0.3 s, and with none for 6 s before it."""

    name = "lone"
    rounds = 3

    async def measure(self, options: Options) -> Sequence[Line]:
        """Each round starts each contestant anew, one at a time."""
        rivals: Mapping[str, Start] = {f"{RIVAL} {every:g} s": partial(celery, pull_every=every) for every in POLLING}
        starts: Mapping[str, Start] = {OURS: airlock, LIMIT: plain, **rivals}
        passed: dict[str, Mapping[str, float]] = {}
        runs = {name: partial(_one, start, name, options, passed) for name, start in starts.items()}
        taken = await in_turn(runs, options.rounds, 0, lambda what, got: options.say(f"{what} {_in_words(got)}"))
        warm = {name: [each.warm for each in rounds] for name, rounds in taken.items()}
        cold = {
            name: [each.cold for each in rounds if each.cold is not None]
            for name, rounds in taken.items()
            if not name.startswith(RIVAL)
        }
        details = {"warm": _details(warm), "cold": _details(cold), "steps": passed}
        return [*_warm_lines(warm, passed.get("warm", {}), details), *_cold_lines(warm, cold, passed.get("cold", {}))]


async def _one(start: Start, name: str, options: Options, passed: dict[str, Mapping[str, float]]) -> Taken:
    directory = fresh(options.root, name)
    async with start(directory) as contestant:

        async def load(kind: str, every: float, scatter: float, seconds: float, warm_up: float) -> Outcome:
            began = datetime.now(UTC)
            order = Order(
                contestant.port,
                submissions(answered=True, prefix="/executed" if name == LIMIT else ""),
                max(LEAST_SECONDS[every], seconds * options.scale),
                rate=1 / every,
                scatter=scatter,
                warm_up=warm_up,
                headers=contestant.headers,
            )
            outcome = await clean_load(order, directory / kind)
            if name == OURS:
                passed[kind] = await steps(contestant.request_database, contestant.response_database, began)
            return outcome

        warm = await load("warm", WARM_EVERY, WARM_SCATTER, WARM_SECONDS, WARM_UP)
        if name.startswith(RIVAL):
            return Taken(warm)
        return Taken(warm, await load("cold", COLD_EVERY, COLD_SCATTER, COLD_SECONDS, COLD_EVERY))


def _warm_lines(
    taken: Mapping[str, Sequence[Outcome]], passed: Mapping[str, float], details: Mapping[str, object]
) -> list[Line]:
    """Celery counts with the cadence that is best in the quantile."""
    lines = []
    for quantile, aim in AIMS_MS.items():
        spreads = {name: _spread(outcomes, quantile) for name, outcomes in taken.items()}
        rivals = {name: spread for name, spread in spreads.items() if name.startswith(RIVAL)}
        best = min(rivals, key=lambda name: rivals[name].median)
        cadence = best.removeprefix(RIVAL + " ")
        medians = ", ".join(f"{name.removeprefix(RIVAL + ' ')}: {rivals[name].median:.0f}" for name in rivals)
        lines.append(
            line(
                f"lone request every {WARM_EVERY:g} s, {quantile}",
                "ms",
                [Aim(aim, at_most=True), beats(RIVAL, at_most=True)],
                {OURS: spreads[OURS], LIMIT: spreads[LIMIT], RIVAL: rivals[best]},
                f"at irregular times; Celery pulling every {cadence}, its best (median, {medians} ms);"
                " limit: the same queries and INSERTs in one process, without a link; " + _steps(passed),
                details if quantile == "p50" else None,
                less_is_better=True,
            )
        )
    return lines


def _cold_lines(
    warm: Mapping[str, Sequence[Outcome]], cold: Mapping[str, Sequence[Outcome]], passed: Mapping[str, float]
) -> list[Line]:
    medians = {name: _spread(outcomes, "p50") for name, outcomes in cold.items()}
    pairs = zip(medians[OURS].rounds, _spread(warm[OURS], "p50").rounds, strict=True)
    return [
        line(
            "lone request, none for 6 s before it, p50",
            "ms",
            [Aim(AIMS_MS["p50"], at_most=True)],
            medians,
            f"6 to 10 s lie between two; Celery polls all the time, so this is no different for it; {_steps(passed)}",
            less_is_better=True,
        ),
        line(
            "lone request, cold beside warm, p50",
            "× warm",
            [Aim(COLD_AIM, at_most=True)],
            {OURS: Spread(tuple(one / other for one, other in pairs))},
            "the medians of the same round",
            less_is_better=True,
        ),
    ]


def _steps(passed: Mapping[str, float]) -> str:
    return "Airlock's last round, in ms: " + ", ".join(f"{STEPS[step]} {after:.0f}" for step, after in passed.items())


def _details(taken: Mapping[str, Sequence[Outcome]]) -> dict[str, object]:
    return {name: [vars(each) for each in outcomes] for name, outcomes in taken.items()}


def _spread(outcomes: Sequence[Outcome], quantile: str) -> Spread:
    return Spread(tuple(each.latency_ms[quantile] for each in outcomes))


def _in_words(taken: Taken) -> str:
    outcomes = {"warm": taken.warm} | ({"cold": taken.cold} if taken.cold else {})
    return "; ".join(
        f"{kind} " + ", ".join(f"{name} {outcome.latency_ms[name]:.0f} ms" for name in AIMS_MS)
        for kind, outcome in outcomes.items()
    )
