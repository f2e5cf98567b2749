import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_dinobloom.cells.crop import CropPolicy, _mirror, crop, resize_picture

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


@given(st.integers(-40, 40), st.integers(-50, 50))
def test_a_crop_moves_with_its_cell(dy, dx):
    large = np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    box = (140, 150, 160, 171)
    moved = (box[0] + dy, box[1] + dx, box[2] + dy, box[3] + dx)
    first = crop(large, _table(box), policy=_policy())
    second = crop(np.roll(large, (dy, dx), axis=(0, 1)), _table(moved), policy=_policy())
    assert np.array_equal(first, second)


@given(st.integers(-500, 500), st.integers(1, 60), st.integers(1, 40))
def test_mirroring_is_numpys_symmetric_padding(start, length, size):
    wide = np.pad(np.arange(size), 600, mode="symmetric")
    assert np.array_equal(_mirror(start, length, size), wide[600 + start : 600 + start + length])


def test_no_cells_give_no_crops():
    assert crop(PICTURE, _table(), policy=_policy()).shape == (0, 40, 40, 3)


def test_published_policy_is_pillows_and_torchvisions_resize_of_the_whole_picture():
    policy = CropPolicy(kind="published")
    expected = np.asarray(Image.fromarray(PICTURE).resize((224, 224), Image.Resampling.BILINEAR))
    assert np.array_equal(resize_picture(PICTURE, policy), expected)
    box = (10, 20, 70, 90)
    assert np.array_equal(crop(PICTURE, _table(box), policy=policy)[0], resize_picture(PICTURE[10:70, 20:90], policy))


def test_a_lazy_picture_gives_the_same_crops():
    import dask.array as da

    table = _table((5, 5, 25, 25), (100, 130, 119, 159))
    lazy = crop(da.from_array(PICTURE, chunks=(50, 60, 3)), table, policy=_policy())
    assert np.array_equal(lazy, crop(PICTURE, table, policy=_policy()))


def test_field_of_view_is_in_micrometres():
    y, x = np.mgrid[:400, :400]
    for pixel in (0.1, 0.2):
        disc = np.where(np.hypot(y - 200, x - 200)[..., None] < 5 / pixel, 0, 255).repeat(3, 2).astype(np.uint8)
        out = crop(disc, _table((190, 190, 211, 211), pixel_size_um=pixel), policy=CropPolicy(fov_um=20.0, size=200))[0]
        assert (out[..., 0] < 128).sum() == pytest.approx(np.pi * 50**2, rel=0.02)


def test_the_hash_names_what_changes_the_pixels():
    same = CropPolicy(), CropPolicy(kind="context", fov_um=25.0, size=224)
    assert same[0].hash == same[1].hash
    others = [
        CropPolicy(fov_um=30.0),
        CropPolicy(size=112),
        CropPolicy(interpolation="bicubic"),
        CropPolicy(kind="published"),
    ]
    assert len({policy.hash for policy in (same[0], *others)}) == 5
    assert CropPolicy(kind="published", fov_um=9.0).hash == CropPolicy(kind="published").hash


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "square"}, "square"),
        ({"interpolation": "nearest"}, "nearest"),
        ({"fov_um": 0.0}, "field of view"),
        ({"size": 1}, "crop size"),
    ],
)
def test_a_policy_that_is_not_known_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CropPolicy(**options)


def test_what_cannot_be_cropped_is_refused_by_name():
    with pytest.raises(ValueError, match="uint8"):
        crop(PICTURE.astype(float), _table((1, 1, 5, 5)))
    with pytest.raises(ValueError, match="x1"):
        crop(PICTURE, _table((1, 1, 5, 5)).drop(columns="x1"))
    with pytest.raises(ValueError, match="pixel_size_um"):
        crop(PICTURE, _table((1, 1, 5, 5)).drop(columns="pixel_size_um"))
    with pytest.raises(ValueError, match="row 0"):
        crop(PICTURE, _table((1, 1, 5, 5)), pixel_size_um=-1.0)
