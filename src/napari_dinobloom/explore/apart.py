"""Long loops in a process of their own, so that a window stays alive: they hold the interpreter's lock.

A second thread is no help against that: the window would stand still for as long as one pass over the cells takes, and
for half a minute while numba compiles. The process is this package's own ``python -m``, not a fork and not
`multiprocessing`, so that it starts the same from napari and from a script without a main guard. Arrays lie in ``.npy``
files of a private folder; nothing is pickled. The numbers are those of the same call in this process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import psutil

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.atomic import disk_errors
from napari_dinobloom.progress import Progress, Steps

Arrays = dict[str, npt.NDArray[Any]]

FEWEST = 1000
"""With fewer cells numba's loops are too short to be felt, once it has compiled them."""
LOOK = 0.1
"""Seconds between two looks at the process."""


class ApartError(DinoBloomError):
    """The process ended without a result; the message is its own."""


def wanted(count: int) -> bool:
    """Whether work on `count` cells should be done apart: in another thread than the main one, as jobs of a window."""
    return count >= FEWEST and threading.current_thread() is not threading.main_thread()


def iter_apart(task: str, arrays: Mapping[str, npt.NDArray[Any]], report: Progress, /, **options: Any) -> Steps[Arrays]:
    """Do a task of `TASKS` in a process of its own; it ends with the generator.

    Parameters
    ----------
    task : str
        ``layout``, ``neighbours`` or ``outlines``.
    arrays : mapping
        What the task needs.
    report : Progress
        Yielded as long as the process lives.
    **options
        Further arguments, as JSON can hold them.

    Raises
    ------
    ApartError
        The process was killed or failed.
    """
    with tempfile.TemporaryDirectory(prefix="napari-dinobloom-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with disk_errors(folder):
            for key, array in arrays.items():
                np.save(folder / f"{key}.npy", array, allow_pickle=False)
            (folder / "task.json").write_text(json.dumps({"task": task, "arrays": [*arrays], "options": options}))
        with (folder / "log.txt").open("wb") as log:
            process = _start(folder, log)
            try:
                while process.poll() is None:
                    yield report
                    try:
                        process.wait(LOOK)
                    except subprocess.TimeoutExpired:
                        continue
            finally:
                process.kill()
                process.wait()
        if process.returncode:
            raise ApartError(_reason(folder / "log.txt", process.returncode))
        found = json.loads((folder / "result.json").read_text())
        return {key: np.load(folder / f"out-{key}.npy", allow_pickle=False) for key in found}


def _start(folder: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the process; it imports this very package, and nothing that lies in the folder where napari was started."""
    home = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH", ""))))
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "napari_dinobloom.explore.apart", str(folder), str(os.getpid())],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _reason(log: Path, code: int) -> str:
    """Why the process ended, in a sentence."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    what = lines[-1] if lines else f"it was ended by the system (code {code}); free some memory"
    return f"The map could not be computed: {what}. What was there before is kept; try again."


def _layout(arrays: Arrays, **options: Any) -> Arrays:
    from napari_dinobloom.explore.graph import Graph
    from napari_dinobloom.explore.layout import lay_out

    graph = Graph(arrays["indices"], arrays["distances"], "exact", 1.0, 0)
    spots, strengths = lay_out(arrays["x"], graph, options["min_dist"], options["metric"], options["seed"])
    return {"spots": spots, "data": strengths.data, "columns": strengths.indices, "ends": strengths.indptr}


def _neighbours(arrays: Arrays, **options: Any) -> Arrays:
    from napari_dinobloom.explore.graph import descend

    return {"indices": descend(arrays["x"], options["size"], options["metric"])}


def _outlines(arrays: Arrays, **options: Any) -> Arrays:
    from napari_dinobloom.explore.suggest import outlines

    rings = outlines(arrays["xy"], options["size"])
    starts = np.cumsum([len(ring) for ring in rings])[:-1]
    return {"points": np.concatenate([np.zeros((0, 2)), *rings]), "starts": starts.astype(np.int64)}


TASKS = {"layout": _layout, "neighbours": _neighbours, "outlines": _outlines}


def _end_with(parent: psutil.Process, folder: Path) -> None:
    """Leave, and tidy up, as soon as the process that asked is gone.

    It is looked after by its number: a thread that waits on a pipe instead would keep Windows from loading libraries.
    """
    while parent.is_running():
        time.sleep(1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def main(folder: Path, parent: int) -> None:
    """Do the task that a folder describes, for the process with this number."""
    threading.Thread(target=_end_with, args=(psutil.Process(parent), folder), daemon=True).start()
    job = json.loads((folder / "task.json").read_text())
    arrays = {key: np.load(folder / f"{key}.npy", allow_pickle=False) for key in job["arrays"]}
    found = TASKS[job["task"]](arrays, **job["options"])
    for key, array in found.items():
        np.save(folder / f"out-{key}.npy", array, allow_pickle=False)
    (folder / "result.json").write_text(json.dumps([*found]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
