"""``kill -9`` at any moment leaves a study that opens and resumes to the same tables."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import run


@pytest.mark.slow
def test_kill_and_resume(
    smears: Path, finished: Path, tmp_path: Path, tables: Callable[[Path], dict[str, str]]
) -> None:
    path = tmp_path / "s.dinobloom"
    moments = random.Random(0)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-m", "napari_dinobloom", "run", str(smears), "-o", str(path)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while not (path / "study.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 3))
        process.kill()
        process.wait()
        Study.open(path, read_only=True).cells  # noqa: B018 - it opens and reads
    run(smears, path)
    assert tables(path) == tables(finished)
