"""Fields that are too large to be held: segmented tile by tile, with the same cells, also after a stop."""

from __future__ import annotations

import pytest

from napari_dinobloom.cells import learned
from napari_dinobloom.cells import segment as segmentation
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline.driver import iter_outcome
from napari_dinobloom.progress import drain


@pytest.fixture
def large(monkeypatch):
    """Count every field as large, in tiles of 150 pixels."""
    monkeypatch.setattr(segmentation, "IN_MEMORY", 1000)
    monkeypatch.setitem(learned.LearnedSegmenter.__init__.__kwdefaults__, "tile", 150)


@pytest.fixture
def field(tmp_path, draw):
    return draw(tmp_path / "images" / "field.png", 3)


def _cells(path):
    with Study.open(path, read_only=True) as study:
        return study.cells.obs[["y0", "x0", "y1", "x1", "area_px", "quality", "stain_strength"]].copy()


def test_a_large_field_has_the_cells_of_a_small_one(field, tmp_path, request):
    drain(iter_outcome(field, tmp_path / "whole.dinobloom", until="segment", pixel_size_um=0.12))
    request.getfixturevalue("large")
    messages = [
        r.message for r in iter_outcome(field, tmp_path / "tiles.dinobloom", until="segment", pixel_size_um=0.12)
    ]
    assert sum("white cells" in message for message in messages) == 6
    assert len(_cells(tmp_path / "whole.dinobloom")) > 1
    assert _cells(tmp_path / "tiles.dinobloom").equals(_cells(tmp_path / "whole.dinobloom"))
    assert not list((tmp_path / "tiles.dinobloom" / "masks").glob("*.tiles"))


def test_a_stopped_run_goes_on_after_the_last_finished_tile(field, tmp_path, large, monkeypatch):
    computed = []
    whole = learned.find_in
    monkeypatch.setattr(learned, "find_in", lambda *a: computed.append(a[1]) or whole(*a))
    steps = iter_outcome(field, tmp_path / "a.dinobloom", until="segment", pixel_size_um=0.12)
    while len(computed) < 4:
        next(steps)
    steps.close()
    drain(iter_outcome(field, tmp_path / "a.dinobloom", until="segment", pixel_size_um=0.12))
    assert len(computed) == len(set(computed)) == 6
