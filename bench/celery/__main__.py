"""The Celery build under the load, the faults and the ledger of `airlock chaos`.

    .venv/bin/python -m bench.celery --seed 1 --minutes 10 [--profile documented] [--faults all] [--json]

Starts everything on free ports in a directory of its own. The first run creates `.venv-celery`. The same seed gives the
same requests and the same plan as in `airlock chaos`; `mapping.py` maps the targets of the faults. Exits with 0 if
nothing was lost, doubled or altered and everything was answered, with 1 otherwise.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path

from bench.celery.mapping import mapped
from bench.celery.profiles import PROFILES
from bench.celery.report import as_json, as_rows
from bench.celery.run import Report, Run, run
from chaos.judging import Discrepancy
from chaos.plan import make_plan
from configuration.logs import configure_logs


def main() -> int:
    """Run and print; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.celery", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long requests are submitted")
    parser.add_argument("--rate", type=float, default=20.0, help="requests per second")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds after that until all must be answered")
    parser.add_argument("--profile", choices=PROFILES, default="documented", help="see bench/celery/profiles.py")
    parser.add_argument(
        "--faults", choices=("all", "without-redis"), default="all", help="Redis is the broker, and may be spared"
    )
    parser.add_argument("--directory", type=Path, help="kept afterwards, with ledger and logs; there must be none yet")
    parser.add_argument("--plan", action="store_true", help="print the faults and do nothing")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    configure_logs(level="ERROR")  # standard output is for the report
    try:
        plan = mapped(make_plan(given.seed, given.minutes), redis=given.faults == "all")
    except ValueError as error:
        parser.error(str(error))
    if given.plan:
        for fault in plan:
            print(json.dumps(fault.as_json()))
        return 0
    wanted = Run(
        given.seed, given.minutes, given.rate, given.patience, PROFILES[given.profile], given.faults, tuple(plan)
    )
    with tempfile.TemporaryDirectory(prefix="bench-celery-") as temporary:
        directory = given.directory or Path(temporary) / "run"
        directory.mkdir(parents=True, mode=0o755)
        report = asyncio.run(_until_stopped(wanted, directory))
    if report is None:
        print("interrupted", file=sys.stderr)
        return 130
    if given.json:
        print(json.dumps(as_json(report)))
    else:
        for name, value in as_rows(report):
            print(f"{name:26} {value}")
        for fate, examples in _examples(report.summary.discrepancies).items():
            print(f"{fate}, for example: {examples}")
    return 0 if report.summary.is_good else 1


async def _until_stopped(wanted: Run, directory: Path) -> Report | None:
    """The report, or None after SIGINT or SIGTERM; everything is stopped in either case."""
    running = asyncio.ensure_future(run(wanted, directory))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        return await running
    except asyncio.CancelledError:
        return None


def _examples(discrepancies: list[Discrepancy], most: int = 3) -> dict[str, str]:
    """Some discrepancies of each kind."""
    found: dict[str, list[str]] = {}
    for each in discrepancies:
        found.setdefault(each.fate.value, []).append(f"{each.what} (expected {each.expected}; found {each.found})")
    return {fate: "; ".join(examples[:most]) for fate, examples in found.items()}


if __name__ == "__main__":
    sys.exit(main())
