"""Masks: what is drawn is what was cut out, for any label image."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from skimage.draw import polygon2mask

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.masks import FieldMasks, draw, key_of, load_masks, outline, save_masks

label_images = hnp.arrays(
    np.int32, st.tuples(st.integers(1, 24), st.integers(1, 24)), elements=st.sampled_from([0, 0, 0, 1, 2, 5, 9])
)


def _disc(shape: tuple[int, int], y: float, x: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


@settings(deadline=None)
@given(label_images)
def test_drawing_gives_the_label_images_again(labels: NDArray[np.int32]) -> None:
    nuclei = np.where(np.arange(labels.size).reshape(labels.shape) % 3 == 0, labels, 0)
    masks = FieldMasks.from_labels(labels, nuclei)
    assert masks.numbers.tolist() == [number for number in np.unique(labels) if number]
    np.testing.assert_array_equal(draw(masks, labels.shape), labels)
    np.testing.assert_array_equal(draw(masks, labels.shape, "nuclei"), nuclei)


@settings(max_examples=25, deadline=None)
@given(labels=label_images, text=st.text(max_size=30), key=st.text(max_size=30))
def test_round_trip_through_the_file(
    tmp_path_factory: pytest.TempPathFactory, labels: NDArray[np.int32], text: str, key: str
) -> None:
    path = tmp_path_factory.mktemp("masks") / "f.npz"
    masks = FieldMasks.from_labels(labels, np.where(labels % 2, labels, 0))
    save_masks(path, masks, text, key)
    found, table, stored = load_masks(path)
    assert (table, stored, key_of(path)) == (text, key, key)
    np.testing.assert_array_equal(found.boxes, masks.boxes)
    np.testing.assert_array_equal(found.numbers, masks.numbers)
    for name in ("cells", "nuclei"):
        for one, other in zip(getattr(found, name), getattr(masks, name), strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_same_masks_are_the_same_bytes(tmp_path: Path) -> None:
    labels = _disc((30, 30), 12, 14, 7).astype(np.int32) * 4
    for name in ("a", "b"):
        save_masks(tmp_path / name, FieldMasks.from_labels(labels, labels), "{}", "k")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_numbers_can_be_chosen_and_missing_ones_are_told() -> None:
    labels = np.array([[3, 3, 0, 7]], np.int32)
    assert FieldMasks.from_labels(labels, labels, numbers=[7, 3]).numbers.tolist() == [7, 3]
    with pytest.raises(ValueError, match="Label 4"):
        FieldMasks.from_labels(labels, labels, numbers=[4])


def test_boxes_that_leave_the_field_are_cut_off() -> None:
    full = np.ones((4, 4), bool)
    boxes = np.array([[-2, -2, 2, 2], [8, 8, 12, 12], [20, 20, 24, 24]], np.int32)
    image = draw(FieldMasks(boxes, np.array([1, 2, 3], np.int32), [full] * 3, [full] * 3), (10, 10))
    expected = np.zeros((10, 10), np.int32)
    expected[:2, :2], expected[8:, 8:] = 1, 2
    np.testing.assert_array_equal(image, expected)


def test_bitmaps_must_fit_their_boxes() -> None:
    with pytest.raises(ValueError, match="its bitmaps are"):
        FieldMasks(
            np.array([[0, 0, 2, 2]], np.int32),
            np.array([1], np.int32),
            [np.ones((2, 3), bool)],
            [np.ones((2, 2), bool)],
        )


@pytest.mark.parametrize("radius", [3.0, 9.5, 24.0])
def test_an_outline_encloses_the_mask(radius: float) -> None:
    mask = _disc((64, 64), 30, 33, radius)
    rows, columns = np.nonzero(mask)
    y0, x0, y1, x1 = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    ring = outline(mask[y0:y1, x0:x1], (100 + y0, 200 + x0, 100 + y1, 200 + x1))
    np.testing.assert_array_equal(ring[0], ring[-1])
    filled = polygon2mask((64, 64), ring - [100, 200])
    assert (filled & mask).sum() / (filled | mask).sum() > (0.9 if radius > 5 else 0.75)
    assert len(ring) < 80
    assert outline(np.zeros((3, 3), bool), (0, 0, 3, 3)).shape == (0, 2)
    assert len(outline(np.ones((1, 1), bool), (0, 0, 1, 1))) >= 4


def _rewritten(path: Path, name: str, values: NDArray[np.generic]) -> None:
    with np.load(path) as stored:
        content = {key: stored[key] for key in stored}
    content[name] = values
    np.savez_compressed(path, **content)


def test_damage_is_told_with_the_remedy(tmp_path: Path) -> None:
    labels = _disc((30, 30), 12, 14, 7).astype(np.int32)
    path = tmp_path / "f.npz"

    def fresh() -> bytes:
        save_masks(path, FieldMasks.from_labels(labels, labels), "{}", "k")
        return path.read_bytes()

    wrong = {
        "cells": np.zeros(3, np.uint8),
        "boxes": np.array([[0, 0, 2**31 - 1, 2**31 - 1]], np.int32),
        "numbers": np.array([0], np.int32),
        "key": np.array([{}], object),
    }
    for name, values in wrong.items():
        fresh()
        _rewritten(path, name, values)
        with pytest.raises(StudyError, match=r"f\.npz: is damaged.*computed anew"):
            load_masks(path)
    data = fresh()
    for cut in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        assert key_of(path) == ""
        with pytest.raises(StudyError, match="is damaged"):
            load_masks(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("boxes.npy", b"x")
    with pytest.raises(StudyError, match="is damaged"):
        load_masks(path)
    path.unlink()
    assert key_of(path) == ""
    with pytest.raises(StudyError, match="no masks of this field yet"):
        load_masks(path)
