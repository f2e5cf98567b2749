"""From the network's maps to separate cells.

Every pixel of white-cell material points to the middle of its cell; peaks of the map of middles are the cells, and a
pixel belongs to the peak nearest to where it points. So touching cells part and the lobes of one nucleus stay together
without a rule for either. Whatever is decided here depends on what lies within `REACH_UM` of a cell only, so that cells
do not depend on how a picture is cut into tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.stain import Stain, otsu

VERSION = 4

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]
Ints = NDArray[np.int32]

REACH_UM = 25.0
"""No cell reaches farther from its middle."""

PEAK = 0.25
"""Height of the smoothed map of middles from which a peak is a cell."""

APART_PX = 4
"""Half width, in pixels of the coarse maps, of the window in which a peak is the highest."""

NEAR_PX = 9.0
"""A pixel that points farther than this from any peak (coarse pixels) belongs to none."""

FEWEST_PX = 40
"""Pixels of a cell from which its own threshold of the dye can be found."""

HIGHEST_LEVEL = 0.75
"""The threshold is at most this share of the level that the picture's nuclei reach: dense nuclei fill their cell."""

DYE_WEIGHT = 2.0
"""Weight of the dye beside the network where a nucleus' outline is drawn."""

CRUMB_PX = 24
"""Smallest piece of a nucleus in pixels of the network (1.5 square micrometres)."""

HOLE_PX = 48
"""Smallest hole of a nucleus likewise (3 square micrometres); the opening of a ring-shaped one is larger."""

PART = 0.1
"""Pieces of a cell smaller than this share of its largest piece are dropped."""


@dataclass(frozen=True, slots=True)
class Maps:
    """What the network says of a part of a picture.

    Attributes
    ----------
    cell, nucleus : numpy.ndarray
        (Y, X) float32 logits, Y and X even.
    middle : numpy.ndarray
        (Y/2, X/2) float32 logits of the middles of cells.
    offset : numpy.ndarray
        (2, Y/2, X/2) float32, y and x from a pixel to the middle of its cell, in pixels of the coarse grid.
    flags : numpy.ndarray
        (3, Y/2, X/2) float32 logits of `network.FLAGS`.
    dye : numpy.ndarray
        (Y, X) float32 nuclear map of the picture (`stain.nuclear_map`), slightly blurred.
    """

    cell: Float
    nucleus: Float
    middle: Float
    offset: Float
    flags: Float
    dye: Float


@dataclass(frozen=True, slots=True)
class Instance:
    """One cell at the network's resolution.

    Attributes
    ----------
    box : tuple of int
        y0, x0, y1, x1 in pixels of the maps it was read from, both even, with a rim of at least two pixels.
    cell, nucleus : numpy.ndarray
        (y1 - y0, x1 - x0) float32, positive inside.
    mine : numpy.ndarray
        Half that size, float32: 1 where the pixel belongs to this cell, else 0; goes two pixels over its border.
    peak : tuple of int
        Place of its middle, y, x in pixels of the maps.
    flags : numpy.ndarray
        (3,) float32: mean probability of each of `network.FLAGS` over the cell.
    """

    box: tuple[int, int, int, int]
    cell: Float
    nucleus: Float
    mine: Float
    peak: tuple[int, int]
    flags: Float


def find_peaks(middle: Float) -> NDArray[np.int64]:
    """Find the middles of cells.

    Parameters
    ----------
    middle : numpy.ndarray
        (Y, X) float32 logits.

    Returns
    -------
    numpy.ndarray
        (n, 2) int64 y, x, in the order of rows.
    """
    from scipy import ndimage as ndi

    heat = ndi.gaussian_filter(1 / (1 + np.exp(-middle)), 1.0, mode="constant", truncate=3.0)
    highest = ndi.maximum_filter(heat, 2 * APART_PX + 1, mode="constant")
    return np.argwhere((heat == highest) & (heat > PEAK))


def assign(maps: Maps, peaks: NDArray[np.int64]) -> Ints:
    """Give each coarse pixel of white-cell material the number of its cell.

    Parameters
    ----------
    maps : Maps
        Of the network.
    peaks : numpy.ndarray
        (n, 2) int64 y, x on the coarse grid.

    Returns
    -------
    numpy.ndarray
        (Y/2, X/2) int32: 0, or 1 + row of `peaks`.
    """
    from scipy.spatial import cKDTree

    height, width = maps.middle.shape
    labels = np.zeros((height, width), np.int32)
    stuff = maps.cell.reshape(height, 2, width, 2).max(axis=(1, 3)) > 0
    ys, xs = np.nonzero(stuff)
    if not len(peaks) or not len(ys):
        return labels
    votes = np.stack([ys, xs], axis=1) + maps.offset[:, ys, xs].T
    distance, nearest = cKDTree(peaks).query(votes, distance_upper_bound=NEAR_PX)
    found = np.isfinite(distance)
    labels[ys[found], xs[found]] = nearest[found] + 1
    return labels


def find_instances(maps: Maps, owned: tuple[int, int, int, int], colours: Stain) -> list[Instance]:
    """Read off the cells whose middle lies in a part of the maps.

    Parameters
    ----------
    maps : Maps
        Of a region that reaches `REACH_UM` beyond `owned` or to the picture's border.
    owned : tuple of int
        y0, x0, y1, x1 in pixels of the maps, even numbers.
    colours : Stain
        Of the picture.

    Returns
    -------
    list of Instance
        In the order of their middles, row by row.
    """
    from scipy import ndimage as ndi

    peaks = find_peaks(maps.middle)
    labels = assign(maps, peaks)
    boxes = ndi.find_objects(labels, max_label=len(peaks))
    y0, x0, y1, x1 = (n // 2 for n in owned)
    found = []
    for number, ((y, x), box) in enumerate(zip(peaks.tolist(), boxes, strict=True), start=1):
        if box is None or not (y0 <= y < y1 and x0 <= x < x1):
            continue
        found.append(cut(maps, labels, number, (y, x), box, colours))
    return found


def cut(
    maps: Maps, labels: Ints, number: int, peak: tuple[int, int], box: tuple[slice, slice], colours: Stain
) -> Instance:
    """Cut one cell out of the maps.

    Parameters
    ----------
    maps : Maps
        Of the network.
    labels : numpy.ndarray
        (Y/2, X/2) int32 of `assign`.
    number : int
        Which.
    peak : tuple of int
        Its middle on the coarse grid.
    box : tuple of slice
        Where `labels` has that number.
    colours : Stain
        Of the picture.

    Returns
    -------
    Instance
        Its largest pieces, holes filled.
    """
    from scipy import ndimage as ndi

    height, width = labels.shape
    rows = slice(max(box[0].start - 3, 0), min(box[0].stop + 3, height))
    columns = slice(max(box[1].start - 3, 0), min(box[1].stop + 3, width))
    around = labels[rows, columns]
    pieces, count = ndi.label(around == number, structure=np.ones((3, 3)))
    area = np.bincount(pieces.ravel(), minlength=count + 1)
    area[0] = 0
    kept = area >= PART * area.max()
    kept[0] = False
    body = ndi.binary_fill_holes(kept[pieces]) & ((around == 0) | (around == number))
    mine = body | (ndi.binary_dilation(body, structure=np.ones((3, 3)), iterations=2) & _nearest(around, number, body))
    fine = (slice(2 * rows.start, 2 * rows.stop), slice(2 * columns.start, 2 * columns.stop))
    flags = 1 / (1 + np.exp(-maps.flags[:, rows, columns][:, body].mean(axis=1)))
    return Instance(
        (fine[0].start, fine[1].start, fine[0].stop, fine[1].stop),
        maps.cell[fine],
        _nucleus(maps.nucleus[fine], maps.dye[fine], body, maps.cell[fine], colours),
        mine.astype(np.float32),
        (2 * peak[0], 2 * peak[1]),
        np.asarray(flags, np.float32),
    )


def _nearest(around: Ints, number: int, body: Bool) -> Bool:
    """Coarse pixels of no cell that are nearer to this one than to any other; the first has those equally near."""
    from scipy import ndimage as ndi

    mine = ndi.distance_transform_edt(~body)
    free = np.asarray(around == 0)
    for others, may_tie in ((around > number, True), ((around > 0) & (around < number), False)):
        if others.any():
            theirs = ndi.distance_transform_edt(~others)
            free &= mine <= theirs if may_tie else mine < theirs
    return free


def _nucleus(logits: Float, dye: Float, body: Bool, cell: Float, colours: Stain) -> Float:
    """Weigh what the network says of the nucleus against the dye in this very cell; positive inside.

    The network knows shapes and what a nucleus is in any stain; Otsu's threshold of the dye within the cell knows
    where the colour changes here.
    """
    inside = np.repeat(np.repeat(body, 2, 0), 2, 1) & (cell > 0)
    learned = np.tanh(logits / 2)
    if not np.isfinite(colours.top) or inside.sum() < FEWEST_PX:
        return np.asarray(learned, np.float32)
    values = dye[inside]
    level = float(np.clip(otsu(values), colours.floor, max(colours.floor, HIGHEST_LEVEL * colours.top)))
    dyed = values > level
    if not dyed.any() or dyed.all():
        return np.asarray(learned, np.float32)
    half = max(float(values[dyed].mean() - values[~dyed].mean()) / 2, 0.05)
    return np.asarray(learned + DYE_WEIGHT * np.clip((dye - level) / half, -1, 1), np.float32)


def outline(
    instance: Instance, origin: tuple[int, int], factor: float, shape: tuple[int, int]
) -> tuple[tuple[int, int, int, int], Bool, Bool] | None:
    """Draw one cell at the picture's own resolution.

    Parameters
    ----------
    instance : Instance
        What is drawn.
    origin : tuple of int
        Place of the maps' first pixel in the network's grid of the whole picture.
    factor : float
        Pixels of the picture per pixel of the network.
    shape : tuple of int
        Height and width of the picture.

    Returns
    -------
    box : tuple of int
        y0, x0, y1, x1 in pixels of the picture, close around the cell.
    cell, nucleus : numpy.ndarray
        (y1 - y0, x1 - x0) bool.
    """
    top, left = instance.box[0] + origin[0], instance.box[1] + origin[1]
    spans, fine, coarse = [], [], []
    for start, length, limit in zip((top, left), instance.cell.shape, shape, strict=True):
        first, last = max(int(np.ceil(start * factor)), 0), min(int((start + length) * factor), limit)
        if last <= first:
            return None
        spans.append((first, last))
        place = (np.arange(first, last) + 0.5) / factor - start
        fine.append(_weights(place - 0.5, length))
        coarse.append(_weights(place / 2 - 0.5, length // 2))
    mine = coarse[0] @ instance.mine @ coarse[1].T > 0.5
    nucleus = _tidy((fine[0] @ instance.nucleus @ fine[1].T > 0) & mine, factor**2) & mine
    cell = _whole(((fine[0] @ instance.cell @ fine[1].T > 0) & mine) | nucleus) & mine
    nucleus &= cell
    ys, xs = np.flatnonzero(cell.any(axis=1)), np.flatnonzero(cell.any(axis=0))
    if not len(ys):
        return None
    rows, columns = slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1)
    box = (spans[0][0] + rows.start, spans[1][0] + columns.start, spans[0][0] + rows.stop, spans[1][0] + columns.stop)
    return tuple(int(n) for n in box), cell[rows, columns].copy(), nucleus[rows, columns].copy()  # type: ignore[return-value]


def _tidy(nucleus: Bool, pixels: float) -> Bool:
    """Drop crumbs and fill small holes of a nucleus; `pixels` of the picture make one of the network."""
    from scipy import ndimage as ndi

    for mask, least in ((nucleus, CRUMB_PX * pixels), (~nucleus, HOLE_PX * pixels)):
        pieces, count = ndi.label(mask)
        if count > 1:
            small = np.bincount(pieces.ravel()) < least
            small[0] = False
            nucleus = nucleus ^ small[pieces]
    return nucleus


def _whole(cell: Bool) -> Bool:
    """Largest piece of a mask, its holes filled."""
    from scipy import ndimage as ndi

    pieces, count = ndi.label(cell)
    if count > 1:
        area = np.bincount(pieces.ravel())
        area[0] = 0
        cell = pieces == area.argmax()
    return np.asarray(ndi.binary_fill_holes(cell))


def _weights(place: NDArray[np.floating[Any]], size: int) -> Float:
    """(n, size) weights of linear interpolation at n places of a grid, the edge repeated outside."""
    place = np.clip(place, 0, size - 1)
    low = np.minimum(place.astype(np.int64), max(size - 2, 0))
    share = (place - low).astype(np.float32)
    weights = np.zeros((len(place), size), np.float32)
    rows = np.arange(len(place))
    weights[rows, low] = 1 - share
    weights[rows, np.minimum(low + 1, size - 1)] += share
    return weights
