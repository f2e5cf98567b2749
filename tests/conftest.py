"""Fixtures that every room's tests share."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

os.environ.setdefault("MPLBACKEND", "Agg")


def _data_folder() -> Path:
    """The folder of real images: ``NAPARI_DINOBLOOM_DATA``, else ``../shared/data`` beside the checkout."""
    named = os.environ.get("NAPARI_DINOBLOOM_DATA")
    return Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what is missing where windows cannot be opened, instead of letting Qt end the process."""
    screen = {"DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"} & set(os.environ)
    if sys.platform.startswith("linux") and not screen and any(item.get_closest_marker("gui") for item in items):
        raise pytest.UsageError(
            "Tests of windows need a screen or Xvfb: run `python .ci/system_packages.py`, or leave them out with "
            '`pytest -m "not gui and not gpu"`.'
        )


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images (see its README.md)."""
    folder = _data_folder()
    if not (folder / "pbc.csv").is_file():
        pytest.skip(f"no real images in {folder}: set NAPARI_DINOBLOOM_DATA to the folder that holds pbc.csv")
    return folder


@pytest.fixture(scope="session")
def conformance(real_data: Path) -> tuple[ModuleType, dict[str, np.ndarray]]:
    """The rule that makes weights and pictures, and the numbers that the public implementation gives for them."""
    folder = real_data.parent / "conformance"
    spec = importlib.util.spec_from_file_location("conformance_rule", folder / "rule.py")
    assert spec is not None
    assert spec.loader is not None
    rule = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(rule)
    with np.load(folder / "golden.npz") as golden:
        return rule, {key: golden[key] for key in golden.files}


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what the package remembers about this machine out of the developer's own folders."""
    monkeypatch.setenv("NAPARI_DINOBLOOM_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("NAPARI_DINOBLOOM_CACHE", str(tmp_path_factory.mktemp("cache")))
