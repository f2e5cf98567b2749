"""Whole-process time and peak memory of the main job over the 364 BCCD fields, and of a second run over them.

Run it with ``python benchmarks/run_bccd.py [--data ../shared/data] [--runs 3]``. The command line runs in processes of
its own, so that imports and just-in-time compilation count. Writes ``benchmarks/results/run_bccd.json``.
Targets: at most 240 s and 3 GiB on two cores; the second run under 5 s.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import RESULTS, machine


def measured(command: list[str]) -> dict[str, float]:
    """Seconds and peak memory (GiB, of the largest process) of one command."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return {"seconds": round(seconds, 2), "peak_gib": round(usage.ru_maxrss / 2**20, 3)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    images = options.data / "bccd" / "images"
    first, second, steps = [], [], []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            study = Path(folder) / "bccd.dinobloom"
            command = [sys.executable, "-m", "napari_dinobloom", "run", str(images), "-o", str(study)]
            first.append(measured(command))
            second.append(measured(command))
            record = next((study / "runs").glob("*.json"))
            steps.append(json.loads(record.read_text(encoding="utf-8"))["seconds"])
            report_mb = round((study / "report.html").stat().st_size / 1e6, 1)
    result = {
        "fields": len(list(images.glob("*.jpg"))),
        "run": {key: statistics.median(r[key] for r in first) for key in first[0]},
        "all_runs": first,
        "second_run": {key: statistics.median(r[key] for r in second) for key in second[0]},
        "seconds_per_step": {name: statistics.median(s[name] for s in steps) for name in steps[0]},
        "report_mb": report_mb,
        "machine": machine(),
    }
    print(json.dumps(result, indent=1))
    (RESULTS / "run_bccd.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        raise SystemExit("take the memory limit away first (ulimit -v unlimited)")
    main()
