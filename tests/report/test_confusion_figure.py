"""The figure of confused classes: squares where they belong, and names that no drawing program may interpret."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from napari_dinobloom.report.confusion_figure import draw_confusion


def drawn(counts: list[list[int]], path: Path, names: list[str] | None = None) -> np.ndarray:
    names = names or list("ab")
    table = pd.DataFrame(counts, index=names, columns=names)
    draw_confusion({"1-NN": table}, "title", "note", path)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"), np.int64)


def test_squares_are_dark_where_classes_are_taken_for_each_other(tmp_path: Path) -> None:
    right = drawn([[9, 0], [0, 4]], tmp_path / "right.png")
    wrong = drawn([[0, 9], [4, 0]], tmp_path / "wrong.png")
    empty = drawn([[0, 0], [0, 0]], tmp_path / "empty.png")
    dark = np.abs(right - empty).sum(axis=2) > 150
    rows, columns = np.nonzero(dark & (np.abs(right - wrong).sum(axis=2) > 150))
    middle = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
    falling = (rows < middle[0]) == (columns < middle[1])
    assert falling.mean() > 0.95  # from the upper left to the lower right
    rows, columns = np.nonzero((np.abs(wrong - empty).sum(axis=2) > 150) & (np.abs(right - wrong).sum(axis=2) > 150))
    assert ((rows < middle[0]) != (columns < middle[1])).mean() > 0.95


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_names_are_drawn_as_they_are(tmp_path: Path, ending: str) -> None:
    names = ["$x^", "<b>", "a name that is far too long for a figure of this kind"]
    table = pd.DataFrame(np.eye(3, dtype=int), index=names, columns=names)
    path = draw_confusion({"1-NN": table, "linear probe": table}, "$t_", "\\note", tmp_path / f"x.{ending}")
    assert path.stat().st_size > 3000
