"""How many calls a second the submission endpoint takes on 64 connections."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

from bench.aims import Aim, line
from bench.asks import fresh, submissions
from bench.contestants import STARTS, Start, ask
from bench.figures import LIMIT, OURS, RIVAL, Figure, Line, NotMeasured, Options, Spread, in_turn
from bench.load.order import Order, Outcome
from bench.load.running import clean_load

CONNECTIONS = 64
SECONDS, WARM_UP = 8.0, 3.0
AIM = Aim(1.5, beside=LIMIT)
ALONE, WHOLE = ", alone", ", whole"


@dataclass(frozen=True)
class Taken:
    """One round of one contestant."""

    outcome: Outcome
    executed: int
    """Results that the response network had made by the end: they took part of the machine's time."""


class Submission(Figure):
    """Calls a second of the submission endpoint at 64 connections, each with one request, which is stored before the
    answer.
    """

    name = "submission"

    async def measure(self, options: Options) -> Sequence[Line]:
        """Each round starts each contestant anew, so that none works on its backlog while another is measured."""
        runs = {
            OURS + ALONE: partial(_one, STARTS[OURS], options, OURS, True),
            LIMIT: partial(_one, STARTS[LIMIT], options, LIMIT, False),
            RIVAL + ALONE: partial(_one, STARTS[RIVAL], options, RIVAL, True),
            OURS + WHOLE: partial(_one, STARTS[OURS], options, OURS, False),
            RIVAL + WHOLE: partial(_one, STARTS[RIVAL], options, RIVAL, False),
        }
        taken = await in_turn(runs, options.rounds, 0, lambda what, got: options.say(f"{what} {_said(got)}"))
        rates = {name: Spread(tuple(each.outcome.rate for each in got)) for name, got in taken.items()}
        details = {
            name: [vars(each.outcome) | {"executed": each.executed} for each in got] for name, got in taken.items()
        }
        limit = "limit: a route with one INSERT per call and nothing behind it"
        return [
            line(
                "submission, request network alone",
                "calls/s",
                [AIM],
                {OURS: rates[OURS + ALONE], LIMIT: rates[LIMIT], RIVAL: rates[RIVAL + ALONE]},
                f"the response network is suspended, as if it were slow and on another machine; {limit}",
                details,
            ),
            line(
                "submission, all on this machine",
                "calls/s",
                [AIM],
                {OURS: rates[OURS + WHOLE], LIMIT: rates[LIMIT], RIVAL: rates[RIVAL + WHOLE]},
                f"the requests are pulled, executed and delivered meanwhile, by Airlock and by Celery; {limit}",
            ),
        ]


def _said(taken: Taken) -> str:
    return f"{taken.outcome.rate:,.0f}/s, executed meanwhile {taken.executed:,} of {taken.outcome.good:,}"


async def _one(start: Start, options: Options, name: str, alone: bool) -> Taken:
    """One round of one contestant, which must have stored exactly the requests that it accepted."""
    directory = fresh(options.root, name)
    async with start(directory) as contestant:
        order = Order(
            contestant.port,
            submissions(),
            max(1.0, SECONDS * options.scale),
            connections=CONNECTIONS,
            warm_up=max(0.5, WARM_UP * options.scale),
            headers=contestant.headers,
        )
        with contestant.alone() if alone else nullcontext():
            outcome = await clean_load(order, directory / "load")
            stored = await contestant.stored()
            executed = await ask(contestant.response_database, "SELECT count(*) FROM results")
    if stored != outcome.good:
        raise NotMeasured(f"{name} accepted {outcome.good} requests and stored {stored}")
    return Taken(outcome, executed)
