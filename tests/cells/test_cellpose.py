"""Against a stand-in for the package `cellpose` that finds what the test drew."""

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from napari_dinobloom.cells.background import find_background
from napari_dinobloom.cells.cellpose import LICENCE, CellposeSegmenter
from napari_dinobloom.cells.region import Region
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.cells.segmenter import Found, check_segmenter, get_segmenter, licence_of
from napari_dinobloom.errors import InputError, LicenceError
from napari_dinobloom.io.masks import FieldMasks, draw
from napari_dinobloom.progress import Progress, drain

SCALE = Scale(0.1, "user")

MODELS = """
import numpy as np
from scipy import ndimage

CALLS, LOADED = [], []

class CellposeModel:
    def __init__(self, gpu=False, pretrained_model="cpsam_v2"):
        if pretrained_model == "cpsam" and FAIL:
            raise OSError("no network")
        LOADED.append(pretrained_model)

    def eval(self, x, diameter=None, channel_axis=None, normalize=True):
        CALLS.append((x.shape, diameter, channel_axis, normalize))
        return ndimage.label(x[..., 1] < 200)[0].astype(np.uint16), [], []

FAIL = False
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The stand-in's module ``cellpose.models``: every dark piece is a cell."""
    package = tmp_path / "cellpose"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "models.py").write_text(textwrap.dedent(MODELS))
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("cellpose.models").models
    for name in ("cellpose", "cellpose.models"):
        sys.modules.pop(name, None)


class Nuclei:
    """A segmenter that knows the nuclei."""

    name, key, licence = "known", "known-1", ""

    def __init__(self, nuclei: np.ndarray) -> None:
        self.masks = FieldMasks.from_labels(nuclei, nuclei)

    def within(self, region):
        return self

    def iter_find(self, image, scale, *, light):
        yield Progress(0, 1, "")
        return Found(self.masks)


def _smear(height=300, width=400):
    """Picture with white cells (1 to 3), red cells without a nucleus, and the true labels."""
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 230, np.uint8)
    labels, nuclei = np.zeros((height, width), np.int32), np.zeros((height, width), np.int32)
    for number, (cy, cx) in enumerate([(60, 70), (150, 200), (240, 330)], start=1):
        disc = (y - cy) ** 2 + (x - cx) ** 2
        labels[disc < 40**2] = number
        nuclei[disc < 22**2] = number
    for cy, cx in [(60, 300), (240, 60)]:
        image[(y - cy) ** 2 + (x - cx) ** 2 < 37**2] = (220, 150, 150)
    image[labels > 0] = (200, 160, 200)
    nuclei[238:241, 58:61] = 9  # a platelet on a red cell, 0.09 um2
    return image, labels, nuclei


def _run(segmenter, image):
    return drain(segmenter.iter_find(image, SCALE, light=find_background(image)))


def test_only_cells_with_a_nucleus_are_kept_and_get_it(models):
    image, labels, nuclei = _smear()
    found = _run(CellposeSegmenter(Nuclei(nuclei), accept_licence=True), image)
    assert np.array_equal(draw(found.masks, labels.shape), labels)
    assert np.array_equal(draw(found.masks, labels.shape, "nuclei"), np.where(labels > 0, nuclei, 0))


def test_cellpose_is_told_the_size_of_cells_and_the_range_of_colours(models):
    image, _, nuclei = _smear()
    segmenter = CellposeSegmenter(Nuclei(nuclei), accept_licence=True)
    _run(segmenter, image)
    _run(segmenter, image)
    assert models.LOADED == ["cpsam"]  # loaded once
    (shape, diameter, axis, normalize), _ = models.CALLS
    assert shape == image.shape
    assert diameter == pytest.approx(100)  # 10 um at 0.1 um a pixel
    assert axis == 2
    low, high = np.percentile(image, (1, 99), axis=(0, 1))
    assert normalize["lowhigh"] == [[a, max(b, a + 1)] for a, b in zip(low, high, strict=True)]


@pytest.mark.parametrize("window", [64, 130, 256])
def test_windows_do_not_change_the_cells(models, window):
    image, labels, nuclei = _smear()
    small = Scale(0.5, "user")  # a margin of 60 pixels, wider than the cells' radius
    segmenter = CellposeSegmenter(Nuclei(nuclei), accept_licence=True, window=window)
    found = drain(segmenter.iter_find(image, small, light=find_background(image)))
    assert len(models.CALLS) > 1
    assert np.array_equal(draw(found.masks, labels.shape), labels)


def test_in_a_region_cells_across_its_border_are_seen_and_the_network_is_loaded_once(models):
    image, labels, nuclei = _smear()
    segmenter = CellposeSegmenter(Nuclei(nuclei), accept_licence=True, window=130)
    left = Region(np.array([[True, False], [True, False]]), 200.0, image)
    for _ in range(2):  # the second cell has its centre half a pixel beyond
        found = drain(segmenter.within(left).iter_find(image, Scale(0.5, "user"), light=find_background(image)))
        assert np.array_equal(draw(found.masks, labels.shape), np.where(labels < 3, labels, 0))
    assert models.LOADED == ["cpsam"]


def test_a_nucleus_belongs_to_the_cell_that_holds_most_of_it(models):
    image = np.full((100, 200, 3), 230, np.uint8)
    image[20:80, 20:99] = image[20:80, 100:180] = 120
    nuclei = np.zeros((100, 200), np.int32)
    nuclei[30:70, 70:110] = 1
    found = _run(CellposeSegmenter(Nuclei(nuclei), accept_licence=True), image)
    assert found.masks.boxes.tolist() == [[20, 20, 80, 99]]
    assert found.masks.nuclei[0].sum() == 40 * 29


def test_no_cells_at_all(models):
    found = _run(
        CellposeSegmenter(Nuclei(np.zeros((60, 60), np.int32)), accept_licence=True),
        np.full((60, 60, 3), 230, np.uint8),
    )
    assert len(found.masks) == 0


def test_the_licence_has_to_be_accepted(models):
    with pytest.raises(LicenceError, match=r"non-commercial.*--accept-licence.*accept_licence=True"):
        get_segmenter("cellpose")
    assert licence_of("cellpose") == LICENCE == get_segmenter("cellpose", accept_licence=True).licence
    assert "CC BY-NC" in LICENCE
    assert licence_of("learned") == ""


def test_what_is_not_installed_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for attempt in (lambda: check_segmenter("cellpose"), lambda: get_segmenter("cellpose", accept_licence=True)):
        with pytest.raises(InputError, match=r'pip install "napari-dinobloom\[cellpose\]"'):
            attempt()


def test_an_old_cellpose_is_refused(models, monkeypatch):
    monkeypatch.setattr("napari_dinobloom.cells.cellpose._version", lambda: "3.1.1")
    with pytest.raises(InputError, match=r"Cellpose 3\.1\.1 has no Cellpose-SAM"):
        check_segmenter("cellpose")


def test_weights_that_cannot_be_fetched_say_where_to_put_them(models):
    models.FAIL = True
    image, _, nuclei = _smear()
    with pytest.raises(InputError, match="CELLPOSE_LOCAL_MODELS_PATH"):
        _run(CellposeSegmenter(Nuclei(nuclei), accept_licence=True), image)


def test_the_key_names_what_decides_the_result(models, monkeypatch):
    segmenter = CellposeSegmenter(Nuclei(np.zeros((9, 9), np.int32)), accept_licence=True)
    assert "cpsam" in segmenter.key
    assert "known-1" in segmenter.key
    before = segmenter.key
    monkeypatch.setattr("napari_dinobloom.cells.cellpose._version", lambda: "4.9")
    assert segmenter.key != before


def test_a_name_that_is_nothing_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'learned'"):
        check_segmenter("leraned")
    with pytest.raises(InputError, match="/nowhere/labels: there is no such file or folder"):
        check_segmenter(Path("/nowhere/labels"))
