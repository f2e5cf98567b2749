"""A process that computes on one device for `processes.ProcessCompute`: one line of JSON in, one out."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from napari_dinobloom.errors import DinoBloomError


def main() -> None:
    """Load the encoder that the first line describes, then serve a line at a time until the pipe is closed."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not stand among the answers

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    job = json.loads(sys.stdin.readline())
    folder, threads = Path(job.pop("folder")), job.pop("threads")
    try:
        from napari_dinobloom.encoders.encoder import load_compute

        compute = load_compute(**job, threads=threads)
    except DinoBloomError as error:
        answer({"error": str(error)})
        return
    answer({"block": compute.block})
    for line in sys.stdin:
        errand = json.loads(line)
        if "release" in errand:
            compute.release()
            answer({})
            continue
        pictures = np.fromfile(folder / "pictures", np.uint8).reshape(errand["shape"])
        parts = [pictures[start : start + compute.block] for start in range(0, len(pictures), compute.block)]
        try:
            results = np.concatenate(list(compute.stream(parts, errand["output"])))
        except DinoBloomError as error:
            answer({"error": str(error)})
            continue
        results.tofile(folder / "results")
        answer({"shape": list(results.shape)})
    shutil.rmtree(folder, ignore_errors=True)  # the one that asked may have been killed


if __name__ == "__main__":
    main()
