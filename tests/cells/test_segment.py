import numpy as np
import pytest

from napari_dinobloom.cells import segment as module
from napari_dinobloom.cells.measures import COLUMNS
from napari_dinobloom.cells.segment import SegmentSettings, iter_segment, segment
from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.io.canvas import STAINS
from napari_dinobloom.progress import drain


def _matches(truth: np.ndarray, found: np.ndarray) -> int:
    """Number of true cells that a found one covers with IoU of at least one half."""
    hits = 0
    for number in range(1, truth.max() + 1):
        mine = truth == number
        other = np.bincount(found[mine]).argmax()
        if other:
            theirs = found == other
            hits += (mine & theirs).sum() / (mine | theirs).sum() >= 0.5
    return hits


@pytest.mark.parametrize("stain", sorted(STAINS))
def test_white_cells_of_every_generated_stain_are_found(stain):
    hits = wanted = found = 0
    for seed in (21, 22):
        smear = generate_smear(seed, stain=stain)
        cells = segment(smear.image)
        hits += _matches(smear.labels, cells.labels)
        wanted += len(smear.classes)
        found += len(cells.table)
    assert hits >= wanted - 1
    assert found <= wanted + 1


def test_same_picture_same_cells_and_the_twin_agrees():
    image = generate_smear(4).image
    first, second, twin = segment(image), segment(image), drain(iter_segment(image))
    for other in (second, twin):
        assert np.array_equal(first.labels, other.labels)
        assert np.array_equal(first.nuclei, other.nuclei)
        assert first.table.equals(other.table)


def test_the_table_describes_the_labels():
    cells = segment(generate_smear(8).image)
    assert list(cells.table.columns) == list(COLUMNS)
    assert cells.table.label.tolist() == list(range(1, cells.labels.max() + 1))
    assert cells.table[["y0", "x0"]].apply(tuple, axis=1).is_monotonic_increasing
    assert not (cells.nuclei[cells.nuclei > 0] != cells.labels[cells.nuclei > 0]).any()
    for row in cells.table.itertuples():
        ys, xs = np.nonzero(cells.labels == row.label)
        assert (row.y0, row.x0, row.y1, row.x1) == (ys.min(), xs.min(), ys.max() + 1, xs.max() + 1)
        assert (row.y, row.x) == pytest.approx((ys.mean(), xs.mean()))
        assert row.area_px == len(ys)
        assert row.nucleus_area_px == (cells.nuclei == row.label).sum() > 0
        assert row.touches_border == (ys.min() == 0 or xs.min() == 0 or ys.max() == 479 or xs.max() == 639)
    assert (cells.table.quality == "ok").all()


@pytest.mark.parametrize("turn", ["flip", "transpose"])
def test_a_mirrored_picture_has_mirrored_cells(turn):
    image = generate_smear(13, stain="wright-giemsa").image
    change = (lambda a: a[::-1]) if turn == "flip" else (lambda a: a.swapaxes(0, 1))
    first, second = segment(image, 0.1), segment(np.ascontiguousarray(change(image)), 0.1)
    assert len(first.table) == len(second.table) > 0
    a, b = change(first.labels) > 0, second.labels > 0
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.95


def test_windows_of_a_large_picture_give_the_cells_of_the_whole(monkeypatch):
    smear = generate_smear(2, height=900, width=900, n_white=10, stain="may-gruenwald")
    whole = segment(smear.image, 0.1)
    monkeypatch.setattr(module, "TILE", 250)
    parts = segment(smear.image, 0.1)
    assert len(whole.table) == len(parts.table) == len(smear.classes)
    assert _matches(whole.labels, parts.labels) == len(whole.table)


def test_a_lazy_picture_gives_the_same_cells():
    import dask.array as da

    image = generate_smear(3).image
    lazy = segment(da.from_array(image, chunks=(200, 200, 3)))
    assert lazy.table.equals(segment(image).table)


@pytest.mark.parametrize(
    "image",
    [
        np.full((240, 320, 3), 255, np.uint8),
        np.zeros((240, 320, 3), np.uint8),
        np.full((16, 16, 3), 90, np.uint8),
        np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8),
        generate_smear(1, n_white=0, height=240, width=320).image,
    ],
    ids=["white", "black", "tiny", "noise", "no white cell"],
)
def test_a_picture_without_white_cells_gives_an_empty_table_of_the_same_types(image):
    cells = segment(image)
    assert len(cells.table) == 0
    assert {name: str(kind) for name, kind in cells.table.dtypes.items()} == COLUMNS
    assert cells.labels.shape == image.shape[:2]
    assert cells.labels.dtype == cells.nuclei.dtype == np.int32
    assert not cells.labels.any()


@pytest.mark.parametrize(
    "image", [np.zeros((50, 50), np.uint8), np.zeros((50, 50, 3), float), np.zeros((4, 50, 3), np.uint8)]
)
def test_what_is_no_colour_picture_is_refused(image):
    with pytest.raises(ValueError, match="picture"):
        segment(image)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="micrometres per pixel"):
        segment(np.full((50, 50, 3), 200, np.uint8), size)


def test_the_scale_given_is_used_and_settings_are_plain():
    cells = segment(generate_smear(6).image, 0.1)
    assert (cells.scale.pixel_size_um, cells.scale.source) == (0.1, "user")
    assert set(SegmentSettings().to_dict()) == {"working_um", "smallest_nucleus_um2", "largest_reach_um"}


def test_a_blurred_field_is_flagged_and_a_sharp_one_is_not():
    from scipy import ndimage as ndi

    image = generate_smear(9, stain="wright-giemsa", touching=0).image
    sharp = segment(image, 0.1).table
    blurred = segment(ndi.gaussian_filter(image, (20, 20, 0)), 0.1).table
    assert (sharp.focus > 0.6).all()
    assert len(blurred)
    assert (blurred.quality == "out_of_focus").all()


@pytest.mark.real_data
def test_real_fields_have_their_cells_found(real_data):
    from PIL import Image

    for name, wanted in (("BloodImage_00000", 1), ("BloodImage_00002", 1), ("BloodImage_00010", 2)):
        with Image.open(real_data / "bccd" / "images" / f"{name}.jpg") as picture:
            assert len(segment(np.asarray(picture.convert("RGB"))).table) == wanted
