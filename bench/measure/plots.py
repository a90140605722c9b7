"""Draws the plots that a file of results describes: ``python -m measure.plots RESULTS.json DIRECTORY``.

It runs on matplotlib's own virtual environment. A file differs from the one before only where figures do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot

INK, FAINT = "#222222", "#d9d9d9"
COLOURS = ("#1f5a8a", "#e08a1e", "#6c9a3b", "#a9a9a9")
SETTINGS = {
    "svg.hashsalt": "slipway",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "legend.frameon": False,
}


def bars(axes: Any, plot: Mapping[str, Any]) -> None:
    """Draw horizontal bars, the first on top."""
    rows = list(plot["bars"].items())
    places = range(len(rows))
    left = [0.0] * len(rows)
    for number, name in enumerate(plot["segments"]):
        lengths = [segments[number] for _, (segments, _) in rows]
        axes.barh(places, lengths, left=left, height=0.7, color=COLOURS[number], label=name or None)
        left = [start + length for start, length in zip(left, lengths, strict=True)]
    for place, end, (_, (_, spread)) in zip(places, left, rows, strict=True):
        error = [[spread["median"] - spread["low"]], [spread["high"] - spread["median"]]]
        axes.errorbar(spread["median"], place, xerr=error, color=INK, linewidth=1, capsize=2)
        axes.annotate(
            f"{spread['median']:.2f}",
            (max(end, spread["high"]), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(places, [name for name, _ in rows])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.02)
    axes.grid(axis="x")
    axes.set_xlabel(plot["axis"])
    if plot["limit"]:
        axes.axvline(plot["limit"], color=INK, linestyle="--", linewidth=1, label=plot["limited"])
    if len(plot["segments"]) > 1 or plot["limit"]:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


def lines(axes: Any, plot: Mapping[str, Any]) -> None:
    """Draw lines, with a legend."""
    for number, (name, points) in enumerate(plot["lines"].items()):
        places = [int(place) for place in points]
        medians = [spread["median"] for spread in points.values()]
        errors = [
            [spread["median"] - spread["low"] for spread in points.values()],
            [spread["high"] - spread["median"] for spread in points.values()],
        ]
        axes.errorbar(
            places, medians, yerr=errors, color=COLOURS[number], marker="o", markersize=4, capsize=2, label=name
        )
    if plot["limit"]:
        axes.axhline(plot["limit"], color=INK, linestyle="--", linewidth=1, label=plot["limited"])
    axes.set_xticks(sorted({int(place) for points in plot["lines"].values() for place in points}))
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.set_xlabel(plot["axes"][0])
    axes.set_ylabel(plot["axes"][1])
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


def draw(plot: Mapping[str, Any], directory: Path) -> None:
    """Draw a plot into a file of its name."""
    is_bars = "bars" in plot
    height = 1.2 + 0.32 * len(plot["bars"]) if is_bars else 4.5
    figure, axes = pyplot.subplots(figsize=(9, height))
    kind: Callable[[Any, Mapping[str, Any]], None] = bars if is_bars else lines
    kind(axes, plot)
    axes.set_title(plot["title"], loc="left", fontweight="bold")
    # Without the date and matplotlib's version.
    nothing = {"Date": None, "Creator": None}
    figure.savefig(directory / f"{plot['name']}.svg", bbox_inches="tight", facecolor="white", metadata=nothing)
    pyplot.close(figure)


def main(results: str, target: str) -> None:
    """Draw all plots."""
    mpl.use("svg")
    mpl.rcParams.update(SETTINGS)
    directory = Path(target)
    directory.mkdir(parents=True, exist_ok=True)
    for plot in json.loads(Path(results).read_text())["plots"]:
        draw(plot, directory)


if __name__ == "__main__":
    main(*sys.argv[1:])
