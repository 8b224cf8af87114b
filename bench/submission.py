"""How many calls a second the submission endpoint takes on 64 connections."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

from bench.aims import Aim, line
from bench.asks import fresh, submissions
from bench.contestants import STARTS, Start
from bench.figures import LIMIT, OURS, RIVAL, Figure, Line, NotMeasured, Options, Spread, in_turn
from bench.load.order import Order, Outcome
from bench.load.running import clean_load

CONNECTIONS = 64
SECONDS, WARM_UP = 8.0, 3.0
AIM = Aim(1.5, beside=LIMIT)
ALONE, WHOLE = ", alone", ", whole"


class Submission(Figure):
    """Calls a second of the submission endpoint at 64 connections, each one request that is stored, then answered."""

    name = "submission"

    async def measure(self, options: Options) -> Sequence[Line]:
        """Each round starts each contestant anew, so that none works off what it took while another is measured."""
        runs = {
            OURS + ALONE: partial(_one, STARTS[OURS], options, OURS, True),
            LIMIT: partial(_one, STARTS[LIMIT], options, LIMIT, False),
            RIVAL + ALONE: partial(_one, STARTS[RIVAL], options, RIVAL, True),
            OURS + WHOLE: partial(_one, STARTS[OURS], options, OURS, False),
            RIVAL + WHOLE: partial(_one, STARTS[RIVAL], options, RIVAL, False),
        }
        taken = await in_turn(runs, options.rounds, 0, lambda what, got: options.say(f"{what} {got.rate:,.0f}/s"))
        rates = {name: Spread(tuple(each.rate for each in outcomes)) for name, outcomes in taken.items()}
        details = {name: [vars(each) for each in outcomes] for name, outcomes in taken.items()}
        limit = "limit: a route with one INSERT per call and nothing behind it"
        return [
            line(
                "submission, request network alone",
                "calls/s",
                [AIM],
                {OURS: rates[OURS + ALONE], LIMIT: rates[LIMIT], RIVAL: rates[RIVAL + ALONE]},
                f"the response network stands still, as if it were on a machine of its own and behind; {limit}",
                details,
            ),
            line(
                "submission, all on this machine",
                "calls/s",
                [AIM],
                {OURS: rates[OURS + WHOLE], LIMIT: rates[LIMIT], RIVAL: rates[RIVAL + WHOLE]},
                f"what is submitted is pulled, executed and delivered meanwhile, by Airlock and by Celery; {limit}",
            ),
        ]


async def _one(start: Start, options: Options, name: str, alone: bool) -> Outcome:
    """One round of one contestant, which must have stored exactly what it accepted."""
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
    if stored != outcome.good:
        raise NotMeasured(f"{name} accepted {outcome.good} requests and stored {stored}")
    return outcome
