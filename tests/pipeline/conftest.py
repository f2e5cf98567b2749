"""Two slides of small generated fields, and one undisturbed run over them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import run


def _draw(path: Path, seed: int) -> Path:
    """Write one generated field of 300 x 360 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    smear = generate_smear(seed, height=300, width=360, n_white=4, pixel_size_um=0.12)
    Image.fromarray(np.asarray(smear.image)).save(path)
    return path


@pytest.fixture(scope="session")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with slides ``anna`` (3 fields) and ``bert`` (2 fields)."""
    folder = tmp_path_factory.mktemp("smears")
    for i in range(5):
        _draw(folder / ("anna" if i < 3 else "bert") / f"field{i}.png", seed=i)
    return folder


@pytest.fixture(scope="session")
def finished(smears: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of `smears`; do not change it, `copy_of` it."""
    path = tmp_path_factory.mktemp("finished") / "study.dinobloom"
    run(smears, path).close()
    return path


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished study that a test may change."""
    shutil.copytree(finished, tmp_path / "copy.dinobloom")
    return tmp_path / "copy.dinobloom"


def _tables(path: Path) -> dict[str, str]:
    """Every CSV of a study, and its cell table's numbers, as text."""
    found = {p.name: p.read_text(encoding="utf-8") for p in sorted((path / "tables").iterdir())}
    with Study.open(path, read_only=True) as study:
        cells = study.cells
        found["X"] = str(np.asarray(cells.X).tolist())
        found["X_umap"] = str(np.asarray(cells.obsm["X_umap"]).tolist())
    return found


@pytest.fixture
def draw() -> Callable[..., Path]:
    """Function that writes one generated field."""
    return _draw


@pytest.fixture
def tables() -> Callable[[Path], dict[str, str]]:
    """Function that reads what a study says, to compare two of them."""
    return _tables
