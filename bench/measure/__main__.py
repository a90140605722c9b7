"""Measures what it costs, part by part, and writes it into docs/bench.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys

from . import page
from .hosts import ROOT, WORK, Run, tell


def main() -> int:
    """Measure the parts that are wanted, write what there is of all, and return the exit status."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(page.PARTS)}; all without")
    parser.add_argument("--quick", action="store_true", help="small counts, which are not written into docs/")
    parser.add_argument("--keep", action="store_true", help="leave the hosts for a look")
    parser.add_argument("--write", action="store_true", help="only write what is measured already")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(page.PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: {', '.join(page.PARTS)}")

    run = Run(options.quick, options.keep)
    kept, docs = (WORK / "quick", WORK / "quick") if run.quick else (WORK, ROOT / "docs")
    kept.mkdir(parents=True, exist_ok=True)
    machine = f"a machine with {os.cpu_count()} CPUs ({platform.machine()}), Linux {platform.release()}"
    for part in [] if options.write else options.parts or page.PARTS:
        with run.attempt(part):
            result = {"machine": machine, "quick": run.quick, "found": page.PARTS[part][1].measure(run)}
            (kept / f"{part}.json").write_text(json.dumps(result, indent=1) + "\n")
    page.write(page.results(kept), docs)
    tell(f"this is in {(docs / 'bench.md').relative_to(ROOT)}")
    if run.failed:
        tell(f"not measured: {', '.join(run.failed)}")
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
