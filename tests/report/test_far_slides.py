"""Slides unlike the reference are named in a report's cautions."""

from __future__ import annotations

import numpy as np
import pandas as pd

from napari_dinobloom.report.overview import _far


def _cells(far: dict[str, tuple[int, int]]) -> pd.DataFrame:
    rows = [(slide, 3.0 if i < n else 1.0) for slide, (n, total) in far.items() for i in range(total)]
    return pd.DataFrame(rows, columns=["slide", "distance"]).assign(reason="")


def test_one_slide_unlike_the_reference_among_many_is_named() -> None:
    cells = _cells({"good": (1, 400), "other": (30, 60), "short": (10, 10)})
    found = _far(cells, {"distance_limit": 2.0})
    assert found is not None
    assert found.level == "warning", "of all cells under a tenth is far, but of one slide half"
    assert found.items == (("other", "30 of 60 cells"),)


def test_a_few_far_cells_are_a_note_and_none_are_nothing() -> None:
    note = _far(_cells({"good": (3, 400)}), {"distance_limit": 2.0})
    assert note is not None
    assert (note.level, note.items) == ("note", ())
    assert _far(_cells({"good": (0, 40)}), {"distance_limit": 2.0}) is None
    assert _far(_cells({"good": (0, 40)}).assign(distance=np.nan), {"distance_limit": 2.0}) is None
