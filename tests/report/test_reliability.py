"""The reliability figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_dinobloom.errors import InputError
from napari_dinobloom.predict.calibration import expected_calibration_error, reliability
from napari_dinobloom.report.reliability import draw_reliability


def test_the_figure_shows_the_error_and_reads_no_markup(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    p = random.dirichlet((1, 1, 1), 300)
    y = random.integers(0, 3, 300)
    table = reliability(p, y)
    path = draw_reliability({r"$\frac{1$ before": table, "after": table}, tmp_path / "r.svg", note="PBC $x")
    written = path.read_text(encoding="utf-8")
    assert "<!-- ECE " + f"{expected_calibration_error(p, y):.3f}" in written
    assert r"$\frac{1$ before" in written
    draw_reliability({"one": table.assign(n=0)}, tmp_path / "r.png")
    with Image.open(tmp_path / "r.png") as picture:
        assert picture.width > picture.height / 2


def test_a_figure_needs_a_known_ending_and_a_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ends in"):
        draw_reliability({}, tmp_path / "r.txt")
    with pytest.raises(ValueError, match="No reliability table"):
        draw_reliability({}, tmp_path / "r.png")
