"""Overlays against torch, against a field that shows its own coordinates, and against a loop over all pixels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from napari_dinobloom.cells.crop import CropPolicy, crop, find_windows
from napari_dinobloom.encoders.overlay import Tile, blend, enlarge, iter_tiles, paint
from napari_dinobloom.io.masks import FieldMasks


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(0).random((6, 4, 5, 3), np.float32)


# Over a crop


def test_nearest_repeats_each_patch(colours: np.ndarray) -> None:
    np.testing.assert_array_equal(enlarge(colours[0], (56, 70)), colours[0].repeat(14, axis=0).repeat(14, axis=1))


@pytest.mark.parametrize("shape", [(56, 70), (57, 31), (3, 4)])
def test_bilinear_is_that_of_torch(colours: np.ndarray, shape: tuple[int, int]) -> None:
    image = torch.from_numpy(colours[:1]).permute(0, 3, 1, 2)
    theirs = torch.nn.functional.interpolate(image, shape, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(enlarge(colours[0], shape, "bilinear"), theirs[0].permute(1, 2, 0), atol=1e-6)


def test_blend_mixes_by_opacity() -> None:
    picture = np.full((4, 4, 3), (200, 100, 0), np.uint8)
    patch = np.zeros((2, 2, 3), np.float32)
    patch[0, 1] = (0, 1, 0.5)
    mixed = blend(picture, patch, opacity=0.25)
    assert mixed[0, 3].tolist() == [150, round(0.75 * 100 + 0.25 * 255), round(0.25 * 127.5)]
    assert mixed[3, 0].tolist() == [150, 75, 0]
    np.testing.assert_array_equal(blend(picture, patch, opacity=0), picture)
    np.testing.assert_array_equal(blend(picture, patch, opacity=1)[0, 3], [0, 255, 128])


# On the field


def _coordinates(height: int, width: int) -> np.ndarray:
    """A field whose red is the row and whose green the column of each pixel."""
    field = np.zeros((height, width, 3), np.uint8)
    field[..., 0] = np.arange(height)[:, None]
    field[..., 1] = np.arange(width)[None, :]
    return field


@pytest.mark.parametrize(
    "policy", [CropPolicy(fov_um=8), CropPolicy(fov_um=25), CropPolicy(kind="published")], ids=["zoom", "shrink", "box"]
)
def test_a_crop_put_back_is_the_field(policy: CropPolicy) -> None:
    field = _coordinates(250, 240)
    boxes = pd.DataFrame({"y0": [100, 3, 200.5], "x0": [91, 2, 190], "y1": [147, 60, 249.5], "x1": [140, 61, 240]})
    windows = find_windows(boxes, policy, 0.1)
    for row, picture in enumerate(crop(field, boxes, policy=policy, pixel_size_um=0.1)):
        tiles = list(iter_tiles(picture[None] / np.float32(255), windows[row : row + 1], field.shape[:2]))
        painted = paint(tiles, np.zeros((250, 240, 4), np.uint8))
        shown = painted[..., 3] > 0
        y, x, height, width = windows[row]
        inside = np.abs(np.arange(250)[:, None] + 0.5 - y) < height / 2 - 3  # resizing flattens the rim, by mirroring
        inside = inside & (np.abs(np.arange(240)[None, :] + 0.5 - x) < width / 2 - 3)
        inside[[0, 1, 2, -3, -2, -1]] = False
        inside[:, [0, 1, 2, -3, -2, -1]] = False
        assert shown[inside].all()
        assert inside.sum() > 1000
        off = painted[inside][:, :2].astype(int) - field[inside][:, :2]
        assert np.abs(off).max() <= 1
        assert np.abs(off.mean(axis=0)).max() < 0.1
        outside = np.abs(np.arange(250)[:, None] + 0.5 - y) > height / 2
        assert not shown[np.broadcast_to(outside, shown.shape)].any()


def _masks(boxes: list[list[int]]) -> FieldMasks:
    random = np.random.default_rng(1)
    bitmaps = [random.random((y1 - y0, x1 - x0)) < 0.7 for y0, x0, y1, x1 in boxes]
    return FieldMasks.numbered(boxes, bitmaps, bitmaps)


WINDOWS = np.array([[20, 20, 24, 24], [28, 30, 20.5, 20.5], [20, 20, 10, 10], [2, 50, 16, 16], [39, 58, 9, 30.0]])
BOXES = [[10, 12, 30, 29], [18, 20, 38, 42], [15, 14, 24, 27], [0, 44, 9, 58], [33, 50, 40, 60]]


@pytest.mark.parametrize("masked", [False, True])
def test_each_pixel_is_painted_by_the_nearest_cell_that_covers_it(colours: np.ndarray, masked: bool) -> None:
    masks = _masks(BOXES) if masked else None
    painted = paint(iter_tiles(colours[:5], WINDOWS, (40, 60), masks=masks), np.zeros((40, 60, 4), np.uint8))
    expected = np.zeros((40, 60, 4), np.uint8)
    for y, x in np.ndindex(40, 60):
        best = (np.inf, -1)
        for i, (cy, cx, height, width) in enumerate(WINDOWS):
            covered = -height / 2 <= y + 0.5 - cy < height / 2 and -width / 2 <= x + 0.5 - cx < width / 2
            if masks is not None:
                y0, x0, y1, x1 = BOXES[i]
                covered = covered and y0 <= y < y1 and x0 <= x < x1 and bool(masks.cells[i][y - y0, x - x0])
            if covered:
                best = min(best, ((y + 0.5 - cy) ** 2 + (x + 0.5 - cx) ** 2, i))
        if best[1] >= 0:
            cy, cx, height, width = WINDOWS[best[1]]
            row, column = int((y + 0.5 - cy + height / 2) / height * 4), int((x + 0.5 - cx + width / 2) / width * 5)
            expected[y, x] = [*np.rint(colours[best[1], row, column] * 255).astype(int), 255]
    np.testing.assert_array_equal(painted, expected)
    assert (expected[..., 3] > 0).sum() > 300


def test_tiles_never_overlap_so_that_order_does_not_matter(colours: np.ndarray) -> None:
    tiles = list(iter_tiles(colours[:5], WINDOWS, (40, 60), opacity=0.4))
    times = np.zeros((40, 60), int)
    for tile in tiles:
        height, width = tile.rgba.shape[:2]
        times[tile.y0 : tile.y0 + height, tile.x0 : tile.x0 + width] += tile.rgba[..., 3] == 102
    assert times.max() == 1
    forwards = paint(tiles, np.zeros((40, 60, 4), np.uint8))
    np.testing.assert_array_equal(paint(tiles[::-1], np.zeros((40, 60, 4), np.uint8)), forwards)


def test_a_part_of_the_field_is_that_part_of_the_whole(colours: np.ndarray) -> None:
    whole = paint(iter_tiles(colours[:5], WINDOWS, (40, 60)), np.zeros((40, 60, 4), np.uint8))
    for y0, x0, y1, x1 in ((0, 0, 40, 60), (10, 25, 30, 55), (0, 45, 5, 60), (33, 0, 40, 9)):
        part = np.zeros((y1 - y0, x1 - x0, 4), np.uint8)
        tiles = list(iter_tiles(colours[:5], WINDOWS, (40, 60), within=(y0, x0, y1, x1)))
        np.testing.assert_array_equal(paint(tiles, part, (y0, x0)), whole[y0:y1, x0:x1])
    assert tiles == []


def test_tiles_outside_a_canvas_leave_it_alone() -> None:
    tile = Tile(0, 5, 5, np.full((3, 3, 4), 255, np.uint8))
    for origin in ((0, 9), (9, 0), (0, 0), (8, 8)):
        assert not paint([tile], np.zeros((4, 4, 4), np.uint8), origin).any()
    assert paint([tile], np.zeros((4, 4, 4), np.uint8), (7, 4)).any(axis=2).sum() == 3


def test_thousands_of_cells_are_tiled_one_by_one() -> None:
    random = np.random.default_rng(0)
    windows = np.column_stack([random.uniform(0, 40_000, (3000, 2)), np.full((3000, 2), 240.0)])
    colours = random.random((3000, 16, 16, 3), np.float32)
    some = iter_tiles(colours, windows, (40_000, 40_000), within=(0, 0, 4000, 4000))
    assert {tile.row for tile in some} == set(np.flatnonzero((windows[:, :2] < 4120).all(axis=1)).tolist())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"windows": WINDOWS[:4]}, "different numbers"),
        ({"masks": _masks(BOXES[:2])}, "different numbers"),
        ({"windows": np.where(WINDOWS == 58, np.nan, WINDOWS)}, "row 4"),
        ({"windows": WINDOWS * [1, 1, 0, 1]}, "no size"),
        ({"opacity": 2}, "opacity=2"),
        ({"interpolation": "cubic"}, "use nearest, bilinear"),
    ],
)
def test_what_does_not_fit_is_refused(colours: np.ndarray, arguments: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        list(iter_tiles(colours[:5], **{"windows": WINDOWS, "shape": (40, 60)} | arguments))
