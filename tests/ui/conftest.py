"""Fixtures of the interface tests: a painted smear, a stand-in for the pipeline, a finished study."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from painted import FakeRun, paint

from napari_dinobloom.io.smear import write_picture
from napari_dinobloom.io.study import Study
from napari_dinobloom.progress import drain


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pass over a warning that napari's own default colours raise in scikit-image, once a process."""
    for item in items:
        if item.get_closest_marker("gui"):
            item.add_marker(pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning"))


@pytest.fixture
def smear() -> np.ndarray:
    """(96, 128, 3) uint8 field with three cells."""
    return paint()


@pytest.fixture
def smear_file(tmp_path: Path, smear: np.ndarray) -> Path:
    """The painted field as a PNG file."""
    folder = tmp_path / "slide1"
    folder.mkdir()
    path = folder / "field.png"
    write_picture(path, smear)
    return path


@pytest.fixture
def fake_run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """Put a `FakeRun` in the place of the pipeline."""
    from napari_dinobloom import pipeline

    fake = FakeRun()
    monkeypatch.setattr(pipeline, "iter_run", fake)
    return fake


@pytest.fixture
def make_study(tmp_path: Path) -> Iterator[Callable[..., Study]]:
    """Return a function that makes a finished study of painted fields, one for each shift given."""
    made: list[Study] = []

    def make(*shifts: int, name: str = "smears") -> Study:
        folder = tmp_path / f"{name}-images"
        folder.mkdir()
        files = []
        for at, shift in enumerate(shifts or (0,), start=1):
            files.append(folder / f"field{at}.png")
            write_picture(files[-1], paint(shift))
        made.append(drain(FakeRun()(files, tmp_path / f"{name}.dinobloom", specimen="blood")))
        return made[-1]

    yield make
    for study in made:
        study.close()
