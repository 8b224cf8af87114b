"""Draws the figures that `plot.py` writes to standard input into a file. Runs in `.venv-celery`; needs matplotlib.

Each figure has a chart of its own, since units differ. A contestant has the same colour in all of them.
"""

import json
import sys
from typing import Any

import matplotlib as mpl

mpl.use("agg")

from matplotlib import pyplot as plt

COLOURS = {"airlock": "#1f6f8b", "limit": "#b8b8b8", "celery": "#e0a458"}
COLUMNS = 3
WIDTH, HEIGHT = 4.2, 2.6
"""Of one figure, in inches."""


def draw(content: dict[str, Any], path: str) -> None:
    """Draw a bar per contestant; the whisker spans the lowest and the highest round."""
    figures = content["figures"]
    columns = min(COLUMNS, len(figures))
    lines = -(-len(figures) // columns)
    sheet, places = plt.subplots(
        lines, columns, figsize=(WIDTH * columns, HEIGHT * lines), squeeze=False, layout="constrained"
    )
    sheet.suptitle(content["title"])
    for place, figure in zip(places.flat, figures, strict=False):
        bars = figure["bars"]
        median = [bar["median"] for bar in bars]
        spread = [[bar["median"] - bar["lowest"] for bar in bars], [bar["highest"] - bar["median"] for bar in bars]]
        names = [bar["name"] for bar in bars]
        drawn = place.barh(
            names,
            median,
            xerr=spread,
            color=[COLOURS.get(name, "#888888") for name in names],
            ecolor="#444444",
            capsize=3,
        )
        place.bar_label(drawn, labels=[bar["label"] for bar in bars], padding=6, fontsize=8)
        place.margins(x=0.25)
        place.invert_yaxis()
        place.set_title(f"{figure['title']}\n{figure['aim']}", fontsize=9)
        place.set_xlabel(figure["unit"], fontsize=8)
        place.tick_params(labelsize=8)
        place.spines[["top", "right"]].set_visible(False)
    for place in places.flat[len(figures) :]:
        place.set_visible(False)
    sheet.savefig(path)


if __name__ == "__main__":
    draw(json.load(sys.stdin), sys.argv[1])
