import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_dinobloom.cells.crop import CropPolicy, crop, resize_picture
from napari_dinobloom.cells.resample import MANY
from napari_dinobloom.errors import ImageError
from napari_dinobloom.io.masks import FieldMasks

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (120, 160, 3), dtype=np.uint8)


def _table(*boxes: tuple[int, int, int, int], pixel_size_um: float = 0.25) -> pd.DataFrame:
    return pd.DataFrame(boxes, columns=["y0", "x0", "y1", "x1"]).assign(pixel_size_um=pixel_size_um)


def _policy(**changes) -> CropPolicy:
    return CropPolicy(**{"fov_um": 10.0, "size": 40, **changes})


def test_a_crop_at_its_own_resolution_is_the_picture_itself():
    crops = crop(PICTURE, _table((30, 40, 50, 70)), policy=_policy())
    assert crops.shape == (1, 40, 40, 3)
    assert crops.dtype == np.uint8
    assert np.array_equal(crops[0], PICTURE[20:60, 35:75])


def test_a_crop_is_pillows_resize_of_the_mirrored_picture():
    policy = _policy(fov_um=20.0, size=32)
    wide = np.pad(PICTURE, ((120, 120), (160, 160), (0, 0)), mode="symmetric")
    for y, x in ((3, 5), (60, 80), (119, 157)):
        box = (x + 160 - 40, y + 120 - 40, x + 160 + 40, y + 120 + 40)
        expected = Image.fromarray(wide).resize((32, 32), Image.Resampling.BILINEAR, box=box)
        mine = crop(PICTURE, _table((y, x, y, x)), policy=policy)[0]
        assert np.abs(mine.astype(int) - np.asarray(expected).astype(int)).max() <= 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 100), st.integers(0, 140), st.integers(2, 20), st.integers(2, 20), st.floats(0.15, 0.6))
def test_a_flipped_picture_has_flipped_crops(y0, x0, rows, columns, size):
    width = PICTURE.shape[1]
    y1, x1 = y0 + rows, x0 + columns
    there = crop(PICTURE, _table((y0, x0, y1, x1)), policy=_policy(), pixel_size_um=size)[0]
    flipped = crop(PICTURE[:, ::-1], _table((y0, width - x1, y1, width - x0)), policy=_policy(), pixel_size_um=size)[0]
    assert np.abs(there.astype(int) - flipped[:, ::-1].astype(int)).max() <= 1


@settings(deadline=None)
@given(st.integers(-40, 40), st.integers(-50, 50))
def test_a_crop_moves_with_its_cell(dy, dx):
    large = np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    box = (140, 150, 160, 171)
    moved = (box[0] + dy, box[1] + dx, box[2] + dy, box[3] + dx)
    first = crop(large, _table(box), policy=_policy())
    second = crop(np.roll(large, (dy, dx), axis=(0, 1)), _table(moved), policy=_policy())
    assert np.array_equal(first, second)


def test_no_cells_give_no_crops():
    assert crop(PICTURE, _table(), policy=_policy()).shape == (0, 40, 40, 3)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_published_policy_is_pillows_and_torchvisions_resize_of_the_whole_picture(interpolation):
    policy = CropPolicy(kind="published", interpolation=interpolation)
    expected = np.asarray(Image.fromarray(PICTURE).resize((224, 224), Image.Resampling[interpolation.upper()]))
    assert np.array_equal(resize_picture(PICTURE, policy), expected)
    box = (10, 20, 70, 90)
    assert np.array_equal(crop(PICTURE, _table(box), policy=policy)[0], resize_picture(PICTURE[10:70, 20:90], policy))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_the_kernels_reach_far_enough_around_a_square(interpolation):
    policy = _policy(fov_um=30.0, size=24, interpolation=interpolation)
    way = Image.Resampling[interpolation.upper()]
    wide = Image.fromarray(np.pad(PICTURE, ((120, 120), (160, 160), (0, 0)), mode="symmetric"))
    expected = np.asarray(wide.resize((24, 24), way, box=(80 + 160 - 60, 60 + 120 - 60, 80 + 160 + 60, 60 + 120 + 60)))
    mine = crop(PICTURE, _table((55, 75, 65, 85)), policy=policy)[0]
    assert np.abs(mine.astype(int) - expected).max() <= 1


def test_many_crops_are_the_same_as_few():
    rng = np.random.default_rng(5)
    y, x = rng.integers(0, 110, MANY), rng.integers(0, 150, MANY)
    table = _table(*np.column_stack([y, x, y + 9, x + 8]).tolist()).assign(pixel_size_um=rng.uniform(0.1, 0.5, MANY))
    for interpolation in ("bilinear", "bicubic", "lanczos"):
        policy = _policy(interpolation=interpolation)
        few = [crop(PICTURE, table.iloc[start : start + 32], policy=policy) for start in range(0, MANY, 32)]
        assert np.array_equal(crop(PICTURE, table, policy=policy), np.concatenate(few))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 120), st.integers(0, 160), st.integers(4, 60))
def test_the_picture_is_mirrored_as_numpys_symmetric_padding(y, x, half):
    wide = np.pad(PICTURE, ((120, 120), (160, 160), (0, 0)), mode="symmetric")
    policy = _policy(fov_um=half * 0.5, size=2 * half)
    mine = crop(PICTURE, _table((y, x, y, x)), policy=policy)[0]
    assert np.array_equal(mine, wide[120 + y - half : 120 + y + half, 160 + x - half : 160 + x + half])


def test_a_lazy_picture_gives_the_same_crops():
    import dask.array as da
    import zarr

    table = _table((5, 5, 25, 25), (100, 130, 119, 159), (20, 30, 50, 60))
    expected = crop(PICTURE, table, policy=_policy())
    assert np.array_equal(crop(da.from_array(PICTURE, chunks=(50, 60, 3)), table, policy=_policy()), expected)
    stored = zarr.create_array({}, shape=PICTURE.shape, chunks=(50, 60, 3), dtype="uint8")
    stored[...] = PICTURE
    assert np.array_equal(crop(stored, table, policy=_policy()), expected)


def test_field_of_view_is_in_micrometres():
    y, x = np.mgrid[:400, :400]
    for pixel in (0.1, 0.2):
        disc = np.where(np.hypot(y - 200, x - 200)[..., None] < 5 / pixel, 0, 255).repeat(3, 2).astype(np.uint8)
        out = crop(disc, _table((190, 190, 211, 211), pixel_size_um=pixel), policy=CropPolicy(fov_um=20.0, size=200))[0]
        assert (out[..., 0] < 128).sum() == pytest.approx(np.pi * 50**2, rel=0.02)


def _smooth(side: int, factor: int) -> np.ndarray:
    """Picture of round blobs that looks the same at any resolution."""
    y, x = (np.mgrid[: side * factor, : side * factor] + 0.5) / factor
    waves = [np.sin(y / a + c) * np.cos(x / b) for a, b, c in ((9, 7, 0), (12, 15, 1), (6, 11, 2))]
    return np.round(127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def _measured(factor: int, count: int = 6, **columns) -> pd.DataFrame:
    y, x = np.arange(count) * 20 + 40, np.arange(count) * 15 + 60
    boxes = np.column_stack([y, x, y + 20, x + 20]) * factor
    table = pd.DataFrame(boxes, columns=["y0", "x0", "y1", "x1"])
    return table.assign(area_px=np.linspace(200, 400, count) * factor**2, quality="ok", **columns)


def test_a_field_of_view_in_diameters_needs_no_scale():
    policy = CropPolicy(fov_diameters=2.0, size=40)
    small = crop(_smooth(240, 1), _measured(1), policy=policy).astype(int)
    large = crop(_smooth(240, 2), _measured(2), policy=policy).astype(int)
    assert small.std() > 20, "the crops show something"
    assert np.abs(small - large).mean() < 2
    assert np.abs(small - large).max() < 12
    half = crop(_smooth(240, 2), _measured(1), policy=policy).astype(int)
    assert np.abs(small - half).mean() > 20, "another part of the picture looks otherwise"


def _two_cells() -> tuple[np.ndarray, FieldMasks]:
    """Two touching dark squares on a light background, and what lies where."""
    picture = np.full((120, 160, 3), (230, 220, 240), np.uint8)
    picture[50:70, 60:80] = (90, 30, 120)
    picture[50:70, 80:100] = (20, 200, 20)
    boxes = np.array([[50, 60, 70, 80], [50, 80, 70, 100]], np.int32)
    full = [np.ones((20, 20), bool)] * 2
    return picture, FieldMasks(boxes, np.array([1, 2], np.int32), full, full)


def test_neighbours_are_painted_over_with_the_background_and_the_cell_stays():
    picture, masks = _two_cells()
    table = _table((50, 60, 70, 80), (50, 80, 70, 100)).assign(label=[1, 2])
    policy = _policy(fov_um=20.0, size=80)
    kept = crop(picture, table, policy=policy)
    masked = crop(picture, table, policy=_policy(fov_um=20.0, size=80, neighbours="mask"), masks=masks)
    assert np.array_equal(kept[0][30:50, 50:69], picture[50:70, 80:99])
    assert np.array_equal(masked[0][30:50, 30:50], picture[50:70, 60:80]), "its own pixels are untouched"
    assert (masked[0][30:50, 50:69] == (230, 220, 240)).all(), "the neighbour's are background"
    assert np.array_equal(masked[0][:25], kept[0][:25]), "far from the neighbour nothing changes"
    assert (masked[1][30:50, 30:50] == (20, 200, 20)).all()
    turned = crop(picture, table.iloc[::-1], policy=_policy(fov_um=20.0, size=80, neighbours="mask"), masks=masks)
    assert np.array_equal(turned, masked[::-1]), "the number, not the place, says whose mask is whose"


def test_a_neighbour_in_the_mirror_is_painted_over_too():
    picture, green = np.full((120, 160, 3), (230, 220, 240), np.uint8), (20, 200, 20)
    picture[:20, :20], picture[:20, 24:44] = (90, 30, 120), green
    boxes = np.array([[0, 0, 20, 20], [0, 24, 20, 44]], np.int32)
    masks = FieldMasks(boxes, np.array([1, 2], np.int32), [np.ones((20, 20), bool)] * 2, [np.ones((20, 20), bool)] * 2)
    for neighbours, seen in (("keep", True), ("mask", False)):
        policy = _policy(fov_um=30.0, size=120, neighbours=neighbours)
        found = crop(picture, _table((0, 0, 20, 20)).assign(label=[1]), policy=policy, masks=masks)[0]
        mirrored = found[50 - 20 : 50, 50 + 24 : 50 + 44], found[50 - 20 : 50, 50 - 44 : 50 - 24]
        assert [bool((part == green).all()) for part in mirrored] == [seen, seen]
        assert bool((found == green).all(axis=2).any()) is seen


def test_masks_come_with_cells_or_are_asked_for():
    picture, masks = _two_cells()

    class Found:
        def __init__(self) -> None:
            self.table = _table((50, 60, 70, 80), (50, 80, 70, 100)).assign(label=[1, 2])
            self.masks = masks

    policy = _policy(neighbours="mask")
    expected = crop(picture, Found().table, policy=policy, masks=masks)
    assert np.array_equal(crop(picture, Found(), policy=policy), expected)
    with pytest.raises(ValueError, match="masks"):
        crop(picture, Found().table, policy=policy)
    with pytest.raises(ValueError, match="1 cells but 2 masks"):
        crop(picture, _table((50, 60, 70, 80)), policy=policy, masks=masks)


def test_the_default_policies_keep_the_hashes_that_atlases_and_stores_carry():
    assert CropPolicy().hash == "a7c7fb70"
    assert CropPolicy(kind="published").hash == "9b78d9fe"
    assert CropPolicy().to_dict() == {"kind": "context", "fov_um": 25.0, "size": 224, "interpolation": "bilinear"}


def test_the_hash_names_what_changes_the_pixels():
    same = CropPolicy(), CropPolicy(kind="context", fov_um=25.0, size=224)
    assert same[0].hash == same[1].hash
    others = [
        CropPolicy(fov_um=30.0),
        CropPolicy(size=112),
        CropPolicy(interpolation="bicubic"),
        CropPolicy(interpolation="lanczos"),
        CropPolicy(fov_diameters=2.0),
        CropPolicy(fov_diameters=2.5),
        CropPolicy(neighbours="mask"),
        CropPolicy(kind="published"),
    ]
    assert len({policy.hash for policy in (same[0], *others)}) == len(others) + 1
    assert CropPolicy(fov_diameters=2.0, fov_um=9.0).hash == CropPolicy(fov_diameters=2.0).hash
    assert CropPolicy(kind="published", fov_um=9.0).hash == CropPolicy(kind="published").hash


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "square"}, "square"),
        ({"interpolation": "nearest"}, "nearest"),
        ({"fov_um": 0.0}, "field of view"),
        ({"fov_diameters": 0.1}, "cell diameters"),
        ({"size": 1}, "crop size"),
        ({"neighbours": "hide"}, "hide"),
        ({"neighbours": "mask", "kind": "published"}, "whole pictures"),
    ],
)
def test_a_policy_that_is_not_known_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CropPolicy(**options)


def test_other_pixels_are_read_as_segment_reads_them():
    table, expected = _table((30, 40, 50, 70)), crop(PICTURE, _table((30, 40, 50, 70)), policy=_policy())
    opaque = np.dstack([PICTURE, np.full(PICTURE.shape[:2], 255, np.uint8)])
    for same in (opaque, PICTURE.astype(np.uint16) * 256 + 7, PICTURE / np.float32(255)):
        assert np.array_equal(crop(same, table, policy=_policy()), expected)


def test_what_cannot_be_cropped_is_refused_by_name():
    with pytest.raises(ImageError, match="expected 0 to 1"):
        crop(PICTURE.astype(float), _table((1, 1, 5, 5)))
    with pytest.raises(ImageError, match="greyscale"):
        crop(PICTURE[..., 0], _table((1, 1, 5, 5)))
    with pytest.raises(ValueError, match="x1"):
        crop(PICTURE, _table((1, 1, 5, 5)).drop(columns="x1"))
    with pytest.raises(ValueError, match="pixel_size_um"):
        crop(PICTURE, _table((1, 1, 5, 5)).drop(columns="pixel_size_um"))
    with pytest.raises(ValueError, match="row 0"):
        crop(PICTURE, _table((1, 1, 5, 5)), pixel_size_um=-1.0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (_table((1, 1, 5, 5)).assign(y0="top"), "not all numbers"),
        (_table((1, 1, 5, 5), (1, 1, 5, 5)).assign(x1=[5, np.nan]), "row 1.*not finite"),
        (_table((9, 1, 5, 5)), "row 0.*ends before"),
        (_table((500, 1, 505, 5)), "outside the picture of 120 x 160"),
        (_table((1, 1, 5, 5), pixel_size_um=1e-6), "check pixel_size_um"),
        ([(1, 1, 5, 5)], "DataFrame, not list"),
        (None, "DataFrame, not NoneType"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(table, message):
    with pytest.raises(ValueError, match=message):
        crop(PICTURE, table)


def test_an_empty_box_is_no_published_picture():
    with pytest.raises(ValueError, match=r"row 1.*is empty"):
        crop(PICTURE, _table((1, 1, 5, 5), (7, 7, 7, 9)), policy=CropPolicy(kind="published"))


def test_what_a_crop_shows_of_masks_does_not_depend_on_the_order_of_others():
    from napari_dinobloom.cells.neighbours import signatures
    from napari_dinobloom.io.masks import FieldMasks

    boxes = [(20, 20, 60, 60), (20, 200, 60, 240), (200, 20, 240, 60), (200, 60, 240, 100)]
    masks = FieldMasks.numbered(boxes, [np.ones((40, 40), bool)] * 4, [np.zeros((40, 40), bool)] * 4)
    table = pd.DataFrame({"label": [1, 2, 3, 4]})
    windows = np.array([((y0 + y1) / 2, (x0 + x1) / 2, 100, 100) for y0, x0, y1, x1 in boxes])
    before = signatures(table, masks, windows)
    assert len(set(before)) == 4
    assert signatures(table.iloc[1:], masks.take([1, 2, 3]), windows[1:]) == before[1:]
    assert signatures(table.iloc[1:], masks.take([3, 1, 2]), windows[1:]) == before[1:]
    assert signatures(table.iloc[2:3], masks.take([0, 1, 2]), windows[2:3]) != before[2:3]
