"""Correction by hand against brute force on label images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage as ndi

from napari_dinobloom.cells.correct import clear_of, cut_out, merge, repainted, split, within
from napari_dinobloom.errors import InputError
from napari_dinobloom.io.masks import FieldMasks, draw

SHAPE = (80, 100)
EIGHT = np.ones((3, 3))

label_images = hnp.arrays(
    np.int32, st.tuples(st.integers(1, 16), st.integers(1, 16)), elements=st.sampled_from([0, 0, 0, 1, 2, 5, 9])
)


def _disc(y: float, x: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def _masks(*cells: NDArray[np.bool_], nuclei: tuple[NDArray[np.bool_], ...] = ()) -> FieldMasks:
    """Cells that do not overlap, numbered from 1."""
    labels, cores = np.zeros(SHAPE, np.int32), np.zeros(SHAPE, np.int32)
    for number, cell in enumerate(cells, start=1):
        labels[cell] = number
    for number, nucleus in enumerate(nuclei, start=1):
        cores[nucleus] = number
    return FieldMasks.from_labels(labels, cores)


def _drawn(masks: FieldMasks) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return draw(masks, SHAPE), draw(masks, SHAPE, "nuclei")


def _snug(masks: FieldMasks) -> bool:
    """Whether every box is the smallest that holds its cell."""
    return all(cell[0].any() and cell[-1].any() and cell[:, 0].any() and cell[:, -1].any() for cell in masks.cells)


# Merging


def test_touching_cells_become_their_union() -> None:
    one, other = _disc(30, 30, 12), _disc(30, 50, 12)
    other &= ~one
    whole = merge(_masks(one, other, nuclei=(_disc(30, 28, 5), _disc(30, 53, 5))), number=7, gap=4)
    cells, cores = _drawn(whole)
    np.testing.assert_array_equal(cells, 7 * (one | other))
    np.testing.assert_array_equal(cores, 7 * (_disc(30, 28, 5) | _disc(30, 53, 5)))
    assert whole.numbers.tolist() == [7]
    assert _snug(whole)


@pytest.mark.parametrize("distance", [1, 2, 3, 5])
def test_a_narrow_gap_is_closed_and_nothing_else_is_added(distance: int) -> None:
    one, other = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    one[20:40, 10:30], other[20:40, 30 + distance : 55] = True, True
    one[28:31, 10:14] = False  # a notch far from the gap stays
    union = one | other
    cells = draw(merge(_masks(one, other), number=1, gap=5), SHAPE) > 0
    assert ndi.label(cells, EIGHT)[1] == 1
    assert (cells & union == union).all()
    added = np.nonzero(cells & ~union)
    assert ((added[1] >= 30) & (added[1] < 30 + distance) & (added[0] >= 20) & (added[0] < 40)).all()


def test_cells_far_apart_stay_in_pieces_and_others_keep_their_pixels() -> None:
    one, other = _disc(30, 20, 10), _disc(30, 60, 10)
    np.testing.assert_array_equal(draw(merge(_masks(one, other), number=1, gap=6), SHAPE) > 0, one | other)
    near, between = _disc(30, 43, 10), np.zeros(SHAPE, bool)
    between[:, 31:33] = True  # a third cell lies in the gap
    whole = merge(_masks(one, near), number=1, gap=6, others=_masks(between))
    np.testing.assert_array_equal(draw(whole, SHAPE) > 0, one | near)
    assert (draw(merge(_masks(one, near), number=1, gap=6), SHAPE) > 0).sum() > (one | near).sum()


def test_three_cells_at_the_corner_of_the_field() -> None:
    cells = (_disc(0, 0, 8), _disc(0, 18, 8), _disc(18, 0, 8))
    whole = draw(merge(_masks(*cells), number=3, gap=5), SHAPE) > 0
    assert ndi.label(whole, EIGHT)[1] == 1
    assert not whole[30:].any()
    assert (whole & (cells[0] | cells[1] | cells[2])).sum() == sum(int(cell.sum()) for cell in cells)


# Splitting


@settings(max_examples=60, deadline=None)
@given(
    angle=st.floats(0, np.pi),
    shift=st.floats(-6, 6),
    reach=st.floats(14.5, 30),
    place=st.tuples(st.integers(20, 60), st.integers(20, 80)),
)
def test_a_straight_line_parts_every_pixel_to_its_side(
    angle: float, shift: float, reach: float, place: tuple[int, int]
) -> None:
    cell, nucleus = _disc(*place, 14), _disc(*place, 8)
    along, normal = np.array([np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), -np.sin(angle)])
    middle = np.array(place) + shift * normal
    parts = split(_masks(cell, nuclei=(nucleus,)), [middle - reach * along, middle + reach * along], numbers=(4, 9))
    cells, cores = _drawn(parts)
    np.testing.assert_array_equal(cells > 0, cell)
    np.testing.assert_array_equal(cores, np.where(nucleus, cells, 0))
    assert (cells == 4).sum() >= (cells == 9).sum() > 0
    side = np.tensordot(np.indices(SHAPE).transpose(1, 2, 0) - middle, normal, axes=1)
    for sign in (1, -1):
        assert len(np.unique(cells[cell & (sign * side > 1.5)])) == 1
    assert set(np.unique(cells[cell & (abs(side) > 1.5)])) == {4, 9}
    assert _snug(parts)


def test_two_discs_that_touch_come_apart_at_the_waist() -> None:
    one, other = _disc(40, 30, 15), _disc(40, 55, 12)
    parts = split(_masks(one | other), [[20, 44.0], [60, 44.0]], numbers=(1, 2))
    columns = np.arange(SHAPE[1])[None]
    cells = draw(parts, SHAPE)
    assert ((cells == 1) & (columns <= 43)).sum() == ((one | other) & (columns <= 43)).sum()
    assert ((cells == 2) & (columns >= 45)).sum() == ((one | other) & (columns >= 45)).sum()


def test_a_bent_line_and_one_that_stops_a_little_short() -> None:
    cell = np.zeros(SHAPE, bool)
    cell[20:60, 20:60] = True
    bent = split(_masks(cell), [[40, 15], [40, 40], [15, 40]], numbers=(1, 2))
    cells = draw(bent, SHAPE)
    assert set(cells[20:39, 20:39].ravel()) == {2}
    assert set(cells[42:60, 20:60].ravel()) == set(cells[20:60, 42:60].ravel()) == {1}
    short = split(_masks(cell), [[22.0, 40], [57.0, 40]], numbers=(1, 2))
    np.testing.assert_array_equal(draw(short, SHAPE) > 0, cell)
    assert len(short) == 2


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ([[5, 5], [10, 80]], "does not part"),  # beside the cell
        ([[40, 40], [41, 41]], "does not part"),  # ends inside
        ([[30, 28.6], [50, 28.6]], "does not part"),  # along the edge
        ([[40, 40], [40, 40]], "no length"),
        ([[40, 40]], "no length"),
        ([40.0, 40.0], "no length"),
        ([[40, np.nan], [40, 60]], "no length"),
        ([[-1e12, 40], [1e12, 40]], "no length"),
        ([[25, 40], [60, 40], [60, 45], [25, 45]], "into 3 pieces"),
    ],
)
def test_a_line_that_does_not_part_the_cell_in_two_is_refused(line: object, match: str) -> None:
    with pytest.raises(InputError, match=match):
        split(_masks(_disc(40, 40, 12)), line, numbers=(1, 2))  # type: ignore[arg-type]


def test_of_a_cell_in_pieces_the_one_that_is_crossed_is_split() -> None:
    crossed, apart = _disc(30, 30, 12), _disc(60, 34, 6)
    parts = split(_masks(crossed | apart), [[10, 32.0], [43, 32.0]], numbers=(1, 2))
    cells = draw(parts, SHAPE)
    np.testing.assert_array_equal(cells > 0, crossed | apart)
    assert len(np.unique(cells[apart])) == 1
    assert set(np.unique(cells[crossed])) == {1, 2}


# Keeping off, cutting out, telling changes


def test_an_outline_is_kept_off_its_neighbours() -> None:
    proposed, wall = _disc(40, 40, 12), np.zeros(SHAPE, bool)
    wall[:, 34:37] = True
    free = clear_of(_masks(proposed, nuclei=(_disc(40, 40, 7),)), _masks(wall))
    assert free is not None
    right = proposed & (np.arange(SHAPE[1])[None] >= 37)
    cells, cores = _drawn(free)
    np.testing.assert_array_equal(cells > 0, right)
    np.testing.assert_array_equal(cores > 0, right & _disc(40, 40, 7))
    assert _snug(free)
    assert clear_of(_masks(proposed), _masks(np.ones(SHAPE, bool))) is None


@settings(max_examples=80, deadline=None)
@given(label_images, st.randoms(use_true_random=False))
def test_changes_between_two_label_images_against_sets_of_pixels(before: NDArray[np.int32], chance: object) -> None:
    seed = chance.randrange(2**31)  # type: ignore[attr-defined]
    rng = np.random.default_rng(seed)
    after = np.where(rng.random(before.shape) < 0.3, rng.choice([0, 1, 5, 7], before.shape), before).astype(np.int32)

    def places(image: NDArray[np.int32]) -> dict[int, set[int]]:
        return {int(n): set(np.flatnonzero(image == n).tolist()) for n in np.unique(image) if n}

    old, new = places(before), places(after)
    found = repainted(before, after)
    assert found.changed == tuple(sorted(n for n in old.keys() & new if old[n] != new[n]))
    assert found.new == tuple(sorted(new.keys() - old))
    assert found.vanished == tuple(sorted(old.keys() - new))


@settings(max_examples=60, deadline=None)
@given(label_images)
def test_cells_are_cut_out_by_any_values(labels: NDArray[np.int32]) -> None:
    large = np.where(labels > 0, np.int64(2**31 - 11) + labels, 0)  # no list as long as the largest value is made
    values = [int(n) for n in np.unique(large)[::-1] if n]
    nuclei = np.where(np.arange(large.size).reshape(large.shape) % 2, large, 0)
    masks = cut_out(large, nuclei, values)
    assert masks.numbers.tolist() == list(range(1, len(values) + 1))
    for number, value in enumerate(values, start=1):
        np.testing.assert_array_equal(draw(masks, labels.shape) == number, large == value)
        np.testing.assert_array_equal(draw(masks, labels.shape, "nuclei") == number, nuclei == value)


@settings(max_examples=60, deadline=None)
@given(label_images, st.tuples(*[st.integers(-4, 20)] * 4))
def test_a_part_of_a_field_looks_as_in_the_whole(labels: NDArray[np.int32], sides: tuple[int, ...]) -> None:
    (y0, y1), (x0, x1) = sorted(sides[:2]), sorted(sides[2:])
    padded = np.pad(labels, 24)
    part = within(FieldMasks.from_labels(labels, labels), (y0, x0, y1, x1))
    np.testing.assert_array_equal(part, padded[24 + y0 : 24 + y1, 24 + x0 : 24 + x1])
