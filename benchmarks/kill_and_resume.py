"""Twenty ``kill -9`` at random moments of a run, each followed by a resume; the tables must equal an undisturbed run's.

Run it with ``python benchmarks/kill_and_resume.py [--kills 20] [--fields 40] [--data ../shared/data]``; writes
``benchmarks/results/kill_and_resume.json`` and ends with exit code 1 if a table differs.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import RESULTS, machine

from napari_dinobloom.io.study import Study


def command(images: Path, study: Path) -> list[str]:
    """The command line of the main job."""
    return [sys.executable, "-m", "napari_dinobloom", "run", str(images), "-o", str(study)]


def differences(one: Path, two: Path) -> list[str]:
    """Names of tables and arrays in which two studies differ."""
    names = sorted(p.name for p in (one / "tables").iterdir())
    found = [n for n in names if (one / "tables" / n).read_bytes() != (two / "tables" / n).read_bytes()]
    with Study.open(one, read_only=True) as first, Study.open(two, read_only=True) as second:
        a, b = first.cells, second.cells
        found += [] if a.obs.equals(b.obs) else ["obs"]
        found += [] if np.array_equal(a.X, b.X) else ["X"]
        found += [n for n in a.obsm if not np.array_equal(a.obsm[n], b.obsm[n])]
    return found


def main() -> None:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--fields", type=int, default=40)
    options = parser.parse_args()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    moments = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        for path in sorted((options.data / "bccd" / "images").glob("*.jpg"))[: options.fields]:
            shutil.copy(path, images)
        calm, torn = Path(folder) / "calm.dinobloom", Path(folder) / "torn.dinobloom"
        started = time.perf_counter()
        subprocess.run(command(images, calm), check=True, **quiet)
        whole = time.perf_counter() - started
        differ, at_step, resumed = [], [], 0
        for _ in range(options.kills):
            process = subprocess.Popen(command(images, torn), **quiet)
            time.sleep(moments.uniform(0, whole))
            process.kill()
            process.wait()
            steps = list(Study.open(torn, read_only=True).steps) if (torn / "study.json").exists() else []
            at_step.append(steps[-1] if steps else "start")
            if at_step[-1] == "report" or moments.random() < 0.3:
                subprocess.run(command(images, torn), check=True, **quiet)
                differ += differences(calm, torn)
                resumed += 1
                shutil.rmtree(torn)
        subprocess.run(command(images, torn), check=True, **quiet)
        differ += differences(calm, torn)
    result = {
        "kills": options.kills,
        "resumed_to_the_end": resumed + 1,
        "last_finished_step_when_killed": {n: at_step.count(n) for n in sorted(set(at_step))},
        "tables_that_differ": differ,
        "machine": machine(),
    }
    print(json.dumps(result, indent=1))
    (RESULTS / "kill_and_resume.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
