"""`python -m bench.counts`: count what work costs, independent of the machine, and compare it with the last release.

Exit code 0 only if no count has grown beyond its tolerance. --record makes the present counts the new baseline; where
one has grown, --because gives the reason, which is kept with it.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from bench.counts.allocations import count_allocations
from bench.counts.baseline import BASELINE, Baseline, Measured, compare
from bench.counts.clocks import ATTENDING, PERIODIC, replaced
from bench.counts.orchestration import MARKS, run_orchestration
from bench.counts.orchestration import NAME as ORCHESTRATED
from bench.counts.servers import running_servers
from bench.counts.wire import counting_statements
from bench.counts.workloads import NAME as COUNTED
from bench.counts.workloads import run_workloads
from configuration.logs import configure_logs
from models.streams import Network


async def measure(root: Path) -> Measured:
    """Run all workloads in an empty directory; takes less than a minute."""
    allocations = count_allocations(root / "allocations")
    namespaces = [f"{name}-{network}" for name in (COUNTED, ORCHESTRATED) for network in Network]
    with counting_statements() as statements, replaced(PERIODIC):
        async with running_servers(root, [*namespaces, MARKS]) as servers:
            with replaced(ATTENDING):
                counts, told = await run_workloads(servers, root, statements)
            counts |= await run_orchestration(servers, root, statements)
    return Measured(counts | allocations, told)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.counts", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--record", action="store_true", help="make these counts the baseline")
    parser.add_argument("--because", default="", metavar="REASON", help="why recorded counts have grown")
    parser.add_argument("--baseline", type=Path, default=BASELINE, metavar="FILE", help="file of the baseline")
    parser.add_argument("--json", action="store_true", help="print everything that was counted")
    given = parser.parse_args()
    configure_logs("console", "ERROR")
    with tempfile.TemporaryDirectory(prefix="airlock-counts-") as directory:
        measured = asyncio.run(measure(Path(directory)))
    baseline = Baseline.read(given.baseline)
    found = compare(measured, baseline)
    if given.record:
        if found.grew and not given.because:
            print(*found.complaints, sep="\n", file=sys.stderr)
            print('Nothing was recorded: give the reason with --because "…".', file=sys.stderr)
            return 1
        kept = baseline.because if baseline else {}
        because = {name: reason for name, reason in kept.items() if name in measured.counts}
        because |= dict.fromkeys(found.grew, given.because)
        given.baseline.write_text(json.dumps(measured.to_json(because), indent=1, ensure_ascii=False) + "\n")
        print(f"{len(measured.counts)} counts recorded in {given.baseline}")
        return 0
    if given.json:
        said = {"grew": found.complaints, "can_be_lowered": found.can_be_lowered, "not_compared": found.not_compared}
        print(json.dumps(measured.to_json({}) | said, ensure_ascii=False))
    else:
        show(measured)
        print(*found.not_compared, *found.can_be_lowered, sep="\n")
    if found.complaints:
        print(*found.complaints, sep="\n", file=sys.stderr)
    return 1 if found.complaints else 0


def show(measured: Measured) -> None:
    """Print one line per count."""
    width = max(map(len, measured.counts))
    for name, count in sorted(measured.counts.items()):
        allowed = f"±{count.tolerance:.0%}" if count.tolerance else "exact"
        value = f"{count.value:,.0f}" if count.value == int(count.value) else f"{count.value:,.2f}"
        print(f"{name:{width}}  {value:>10}  {count.unit}  ({allowed})")


if __name__ == "__main__":
    sys.exit(main())
