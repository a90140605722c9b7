"""What is written of all parts: docs/bench.md, docs/bench.json, and by plots.py docs/bench/*.svg."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import growth, path, provisioning, reload, tutorial
from .hosts import ROOT, WORK, called

# The parts in the order in which they are measured and told.
PARTS = {
    "path": ("The way of a request", path),
    "reload": ("Reload, switch and restart", reload),
    "provisioning": ("Making a host and changing it", provisioning),
    "growth": ("Growth", growth),
    "tutorial": ("Slipway's defaults against a tutorial", tutorial),
}
INTRODUCTION = """\
# What it costs

`make bench` wrote this, with the same in [JSON](bench.json), rounds and all. It makes hosts with Debian 13, in
containers, as [its inventory](../bench/measure/inventory.yml) says, measures, and removes them. `make bench PART=path`
measures one part anew.

Times tell nothing of another machine, so that everything is a ratio to something that was measured beside it. What is
compared takes turns, in rounds; a figure is the median of its rounds' ratios, with the lowest and the highest in
brackets. CPU times are those of the hosts' control groups, per request; who asks is another host and not in them. A
request failed if its status was not 2xx or 3xx, or if it had no answer; each is counted, and none is tried again.
"""


def results(directory: Path = WORK) -> dict[str, Any]:
    """What was measured of each part, as far as it was."""
    files = {part: directory / f"{part}.json" for part in PARTS}
    return {part: json.loads(file.read_text()) for part, file in files.items() if file.exists()}


def data(measured: Mapping[str, Any]) -> dict[str, Any]:
    """All of it, with the tables and the plots that come of it."""
    parts = {
        part: {**result, "tables": [dataclasses.asdict(table) for table in PARTS[part][1].tables(result["found"])]}
        for part, result in measured.items()
    }
    plots = [
        dataclasses.asdict(plot) for part, result in measured.items() for plot in PARTS[part][1].plots(result["found"])
    ]
    return {"parts": parts, "plots": plots}


def page(measured: Mapping[str, Any]) -> Iterator[str]:
    """The lines of docs/bench.md."""
    yield from INTRODUCTION.splitlines()
    for part, (title, module) in PARTS.items():
        yield from ("", f"## {title}", "")
        if part not in measured:
            yield f"Not measured yet: `make bench PART={part}`."
            continue
        result = measured[part]
        small = " In small counts, which say little." if result["quick"] else ""
        yield f"On {result['machine']}.{small}"
        for table in module.tables(result["found"]):
            yield from table.lines()


def write(measured: Mapping[str, Any], directory: Path = ROOT / "docs") -> None:
    """Write page, data and plots."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "bench.md").write_text("\n".join(page(measured)) + "\n")
    file = directory / "bench.json"
    file.write_text(json.dumps(data(measured), indent=1) + "\n")
    command: list[str | Path] = [WORK / "venv/bin/python", "-m", "measure.plots", file, directory / "bench"]
    called(command, env={**os.environ, "PYTHONPATH": str(ROOT / "bench")})
