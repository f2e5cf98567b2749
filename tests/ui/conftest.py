"""Fixtures of the interface tests: a painted smear, a stand-in for the pipeline, a finished study."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from painted import FakeRun, paint
from qtpy.QtCore import QEvent, QThreadPool
from qtpy.QtWidgets import QApplication

from napari_dinobloom.io.smear import write_picture
from napari_dinobloom.io.study import Study
from napari_dinobloom.progress import drain


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pass over a warning that napari's own default colours raise in scikit-image, once a process."""
    for item in items:
        if item.get_closest_marker("gui"):
            item.add_marker(pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning"))


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail where a test leaves a window, or a thread of ours, behind."""
    if request.node.get_closest_marker("gui") is None:
        yield
        return
    threads = set(threading.enumerate())
    windows = {id(widget) for widget in QApplication.topLevelWidgets()} if QApplication.instance() else set()
    yield
    app = QApplication.instance()
    deadline = time.monotonic() + 5
    while True:
        gc.collect()
        if app is not None:
            app.sendPostedEvents(None, QEvent.Type.DeferredDelete)
            app.processEvents()
        left = [w for w in QApplication.topLevelWidgets() if id(w) not in windows] if app is not None else []
        left = [f"{type(w).__module__}.{type(w).__name__}" for w in left if w.isVisible() or ours(w)]
        fresh = [t for t in threading.enumerate() if t not in threads and t.name not in ENDING_LATER]
        running = [t.name for t in fresh if ours(getattr(t, "_target", None))]
        pool = QThreadPool.globalInstance()
        running += ["a worker"] * (pool.activeThreadCount() if pool is not None else 0)
        if not (left or running) or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert not left, f"windows were left behind: {left}"
    assert not running, f"threads were left behind: {running}"


ENDING_LATER = ("dinobloom-lock", "napari-dinobloom getting ready")
"""Threads of an open study, as a viewer's study is closed when the viewer is collected, which pytest keeps until later;
and of what is loaded once in a process."""


def ours(thing: object) -> bool:
    """Whether a widget, or the function that a thread runs, is one of this package."""
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return str(module).startswith("napari_dinobloom")


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
