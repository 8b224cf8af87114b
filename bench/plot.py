"""Draws a report: for each figure Airlock, its limit and its rival. matplotlib is installed beside Celery."""

import json
import subprocess
from pathlib import Path

from bench.celery.environment import make_environment
from bench.figures import LIMIT, OURS, RIVAL
from bench.report import Report, number

DRAWING = Path(__file__).with_name("drawing.py")
KINDS = (".svg", ".png")


def check_plot_file(path: Path) -> None:
    """Raise `ValueError` unless the file's name ends with .svg or .png."""
    if path.suffix.lower() not in KINDS:
        raise ValueError(f"{path} is no chart: name a file that ends with {' or '.join(KINDS)}")


def draw(report: Report, path: Path) -> None:
    """Write the chart. Raises `ValueError` if it cannot be drawn."""
    figures = [
        {
            "title": each.what,
            "unit": each.unit + (" (less is better)" if each.less_is_better else ""),
            "aim": f"aim: {each.aim}" + ("" if each.met else ", missed") if each.aim else "",
            "bars": [
                {
                    "name": name,
                    "median": spread.median,
                    "lowest": spread.lowest,
                    "highest": spread.highest,
                    "label": number(spread.median),
                }
                for name in (OURS, LIMIT, RIVAL)
                if (spread := each.measured.get(name)) is not None
            ],
        }
        for each in report.all_lines
    ]
    if not figures:
        raise ValueError("there is nothing to draw: no figure was measured")
    content = {"title": f"Airlock, {report.date[:10]}, {report.machine.get('cores', '?')} cores", "figures": figures}
    python = make_environment()
    drawn = subprocess.run(  # noqa: S603
        [str(python), "-P", str(DRAWING), str(path.resolve())],
        input=json.dumps(content),
        check=False,
        capture_output=True,
        text=True,
    )
    if drawn.returncode != 0:
        raise ValueError(
            f"the chart could not be drawn: {(drawn.stderr.strip() or 'no reason given').splitlines()[-1]}"
        )
