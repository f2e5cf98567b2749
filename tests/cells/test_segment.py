import numpy as np
import pytest

from napari_dinobloom.cells import segment as module
from napari_dinobloom.cells.measures import COLUMNS
from napari_dinobloom.cells.segment import iter_segment, segment
from napari_dinobloom.errors import ImageError
from napari_dinobloom.io.canvas import STAINS
from napari_dinobloom.io.generate import generate_smear
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


@pytest.mark.parametrize(
    "image",
    [
        np.full((16, 16, 3), 90, np.uint8),
        np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8),
        generate_smear(1, n_white=0, height=240, width=320).image,
    ],
    ids=["tiny", "noise", "no white cell"],
)
def test_a_picture_without_white_cells_gives_an_empty_table_of_the_same_types(image):
    cells = segment(image)
    assert len(cells.table) == 0
    assert {name: str(kind) for name, kind in cells.table.dtypes.items()} == COLUMNS
    assert cells.labels.shape == image.shape[:2]
    assert cells.labels.dtype == cells.nuclei.dtype == np.int32
    assert not cells.labels.any()


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((50, 50), np.uint8), "greyscale"),
        (np.zeros((50, 50, 1), np.uint8), "greyscale"),
        (np.zeros((4, 50, 3), np.uint8), "50 x 4 pixels"),
        (np.full((50, 50, 3), np.nan), "reach from nan"),
        (np.full((50, 50, 3), 130.0), "expected 0 to 1"),
        (np.zeros((50, 50, 3), np.int32), "int32"),
        (np.zeros((50, 50, 7), np.uint8), "red, green, blue"),
        ("smear.png", "read_smear"),
    ],
)
def test_what_has_no_colours_or_no_rule_for_them_is_refused_with_a_remedy(image, said):
    with pytest.raises(ImageError, match=said):
        segment(image)


def test_other_kinds_of_colour_pictures_give_the_cells_of_the_8_bit_one():
    image = generate_smear(7, height=300, width=400).image
    wanted = segment(image, 0.1)
    assert len(wanted.table) > 2
    alpha = np.full((*image.shape[:2], 1), 255, np.uint8)
    for other in (
        np.concatenate([image, alpha], axis=2),
        image.astype(np.uint16) * 257,
        image.astype(np.float32) / 255,
    ):
        assert segment(other, 0.1).table.equals(wanted.table)


def _unstained(seed):
    """Cells as phase contrast or an unstained smear shows them: grey shades on grey."""
    grey = generate_smear(seed, height=300, width=400).image.mean(axis=2, keepdims=True)
    return np.repeat(grey, 3, axis=2).astype(np.uint8)


def _fluorescent(seed):
    """Bright nuclei on black."""
    smear = generate_smear(seed, height=300, width=400)
    image = np.zeros_like(smear.image)
    image[smear.nuclei > 0] = (20, 40, 220)
    return image


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.full((240, 320, 3), 255, np.uint8), "is empty"),
        (np.zeros((240, 320, 3), np.uint8), "bright field"),
        (np.full((8, 8, 3), 200, np.uint8), "is empty"),
        (_unstained(1), "no colour"),
        (_fluorescent(1), "bright field"),
    ],
    ids=["white", "black", "8 x 8", "unstained", "fluorescence"],
)
def test_a_picture_that_can_hold_no_stained_cell_gives_none_and_says_why(image, said):
    cells = segment(image)
    assert len(cells.table) == 0
    assert len(cells.notes) == 1
    assert said in cells.notes[0]


def test_a_scale_at_which_no_nucleus_can_be_seen_is_named():
    cells = segment(generate_smear(1).image, 2.0)
    assert len(cells.table) == 0
    assert "20x" in cells.notes[0]


def test_a_picture_of_a_weak_objective_is_searched_and_the_limit_is_said():
    smear = generate_smear(3, height=600, width=800, n_white=8, pixel_size_um=0.8)
    cells = segment(smear.image, 0.8)
    assert 4 <= len(cells.table) <= 12
    assert "40x" in cells.notes[0]


def test_labels_of_a_large_picture_lie_on_disk(monkeypatch):
    image = generate_smear(5, height=300, width=400).image
    small = segment(image, 0.1)
    monkeypatch.setattr(module, "IN_MEMORY", 1000)
    large = segment(image, 0.1)
    assert not isinstance(large.labels, np.ndarray)
    assert np.array_equal(large.labels[:], small.labels)
    assert np.array_equal(large.nuclei[50:200, 100:], small.nuclei[50:200, 100:])
    assert small.notes == large.notes == ()


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan")])
def test_a_scale_that_is_none_is_refused(size):
    with pytest.raises(ValueError, match="micrometres per pixel"):
        segment(np.full((50, 50, 3), 200, np.uint8), size)


def test_the_scale_given_is_used():
    cells = segment(generate_smear(6).image, 0.1)
    assert (cells.scale.pixel_size_um, cells.scale.source) == (0.1, "user")
    assert (cells.table.pixel_size_um == 0.1).all()


@pytest.mark.parametrize("tile", [0, -5, 63])
def test_a_tile_that_is_none_is_refused(tile):
    with pytest.raises(ValueError, match="64 pixels"):
        segment(np.full((50, 50, 3), 200, np.uint8), tile=tile)


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


def test_a_field_whose_middle_is_empty_is_no_noise():
    smear = generate_smear(4, height=900, width=1200, n_white=0, crowding=0.0)
    cell = generate_smear(3, height=300, width=300, n_white=2).image
    image = np.clip(smear.image + np.random.default_rng(0).normal(0, 3, smear.image.shape), 0, 255).astype(np.uint8)
    image[:300, :300] = cell
    cells = segment(image, 0.1)
    assert len(cells.table) > 0
    assert cells.notes == ()


def test_marks_need_no_stain_and_are_not_told_that_nothing_was_sought(tmp_path):
    from napari_dinobloom.cells.brought import Brought

    labels = np.zeros((300, 400), np.int32)
    labels[50:150, 60:170] = 1
    cells = segment(_unstained(1), 0.1, segmenter=Brought.from_labels(labels, name="mine"))
    assert cells.table.area_px.tolist() == [100 * 110]
    assert not any("sought" in note for note in cells.notes)
