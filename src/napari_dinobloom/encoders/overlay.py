"""Patch colours laid over pictures: over a crop, and at the place of each cell in its field.

A crop is a window of its field, resized; a pixel of the field looks up the patch that its centre falls into, so that
nothing is resampled twice. Each pixel of the field is painted by one cell: of several that cover it the one whose
centre is nearest. Tiles of one field therefore never overlap, and may be painted in any order and in part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from napari_dinobloom.io.masks import FieldMasks

Uint8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Box = tuple[int, int, int, int]
Interpolation = Literal["nearest", "bilinear"]
N = TypeVar("N", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """The overlay of one cell, at its place.

    Attributes
    ----------
    row : int
        Row of the cell among those that were given.
    y0, x0 : int
        Upper left pixel in the field.
    rgba : ndarray (Y, X, 4) uint8
        Colours; alpha is 0 where the cell paints nothing.
    """

    row: int
    y0: int
    x0: int
    rgba: Uint8


def enlarge(colours: Floats, shape: tuple[int, int], interpolation: Interpolation = "nearest") -> Floats:
    """Bring the colours of a crop's patches to the size of a picture.

    Parameters
    ----------
    colours : ndarray (h, w, C) float
        One value a patch, such as `patch_pca` gives.
    shape : (int, int)
        Height and width of the picture in pixels.
    interpolation : {"nearest", "bilinear"}, default: "nearest"
        Each pixel takes the patch that its centre lies in, or a mixture of the four whose centres surround it.

    Returns
    -------
    ndarray (Y, X, C) float32

    Raises
    ------
    ValueError
        If `colours` has another number of axes, or the interpolation is not known.
    """
    _check_interpolation(interpolation)
    colours = np.asarray(colours, np.float32)
    if colours.ndim != 3:
        raise ValueError(f"Colours of the patches of one crop must be (h, w, C); got shape {colours.shape}.")
    y, x = ((np.arange(side) + 0.5) / side for side in shape)
    return _nearest(colours, y, x) if interpolation == "nearest" else _bilinear(colours, y, x)


def blend(crop: Uint8, colours: Floats, *, opacity: float = 0.5, interpolation: Interpolation = "nearest") -> Uint8:
    """Lay the colours of a crop's patches over the crop.

    Parameters
    ----------
    crop : ndarray (Y, X, 3) uint8
        The picture.
    colours : ndarray (h, w, 3) float
        Colours of its patches, 0..1.
    opacity : float, default: 0.5
        0 shows the crop alone, 1 the colours alone.
    interpolation : {"nearest", "bilinear"}, default: "nearest"
        As for `enlarge`.

    Returns
    -------
    ndarray (Y, X, 3) uint8

    Raises
    ------
    ValueError
        If the opacity is not in 0..1, or as for `enlarge`.
    """
    _check_opacity(opacity)
    over = enlarge(colours, (crop.shape[0], crop.shape[1]), interpolation)
    return _to_uint8((1 - opacity) * (crop / np.float32(255)) + opacity * over)


def iter_tiles(
    colours: Any,
    windows: Float64,
    shape: tuple[int, int],
    *,
    masks: FieldMasks | None = None,
    within: Box | None = None,
    opacity: float = 1.0,
    interpolation: Interpolation = "nearest",
) -> Iterator[Tile]:
    """Yield the overlay of each cell at its place in the field, one after the other.

    Parameters
    ----------
    colours : array (n, h, w, 3) float
        Colours of the patches of n crops, 0..1; read one by one, so that it may lie on the disk.
    windows : ndarray (n, 4) float64
        Part of the field that each crop shows: y and x of the centre, height and width in pixels, as
        `cells.crop.find_windows` gives it. What a crop shows mirrored beyond the field's border has no place.
    shape : (int, int)
        Height and width of the field in pixels.
    masks : FieldMasks, optional
        Bitmaps of the same cells in the same order: only pixels of the cell are painted, as far as its crop shows them.
        Without them the whole window is.
    within : (int, int, int, int), optional
        y0, x0, y1, x1: only cells with pixels in this part of the field. Their tiles are those of the whole field.
    opacity : float, default: 1
        Alpha of painted pixels.
    interpolation : {"nearest", "bilinear"}, default: "nearest"
        As for `enlarge`.

    Yields
    ------
    Tile
        By row; none for a cell without a pixel.

    Raises
    ------
    ValueError
        If the numbers of colours, windows and masks differ, a window has no size, or as for `blend`.
    """
    windows = np.asarray(windows, np.float64).reshape(-1, 4)
    _check_opacity(opacity)
    _check_interpolation(interpolation)
    counts = {"colours": colours.shape[0], "windows": len(windows), "masks": len(windows if masks is None else masks)}
    if len(set(counts.values())) > 1:
        raise ValueError(f"These are of different numbers of cells: {counts}. Give the same cells in the same order.")
    odd = np.flatnonzero(~(np.isfinite(windows).all(axis=1) & (windows[:, 2:] > 0).all(axis=1)))
    if len(odd):
        raise ValueError(f"The window of row {odd[0]}, {windows[odd[0]].tolist()}, has no place or no size.")
    yield from _tiles(colours, _Places(windows, shape, masks), within, opacity, interpolation)


def paint(tiles: Iterable[Tile], canvas: Uint8, origin: tuple[int, int] = (0, 0)) -> Uint8:
    """Paint tiles into a picture of the field, or of a part of it.

    Parameters
    ----------
    tiles : iterable of Tile
        From `iter_tiles`.
    canvas : ndarray (Y, X, 4) uint8
        RGBA; pixels that a tile paints are overwritten, all others stay.
    origin : (int, int), default: (0, 0)
        y and x of the canvas' first pixel in the field.

    Returns
    -------
    ndarray (Y, X, 4) uint8
        `canvas`.
    """
    for tile in tiles:
        y, x = tile.y0 - origin[0], tile.x0 - origin[1]
        height, width = tile.rgba.shape[:2]
        part = canvas[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
        rgba = tile.rgba[max(-y, 0) :, max(-x, 0) :][: part.shape[0], : part.shape[1]]
        np.copyto(part, rgba, where=rgba[..., 3:] > 0)
    return canvas


class _Places:
    """What each cell covers of the field, and which others come near enough to cover some of it too."""

    def __init__(self, windows: Float64, shape: tuple[int, int], masks: FieldMasks | None) -> None:
        self.centres, self.sizes = windows[:, :2], windows[:, 2:]
        self._masks = masks
        starts = self.centres - self.sizes / 2  # a pixel belongs to a window if its centre does
        first, stop = np.ceil(starts - 0.5), np.ceil(starts + self.sizes - 0.5)
        if masks is not None:
            first, stop = np.maximum(first, masks.boxes[:, :2]), np.minimum(stop, masks.boxes[:, 2:])
        first, stop = np.maximum(first, 0), np.minimum(stop, shape)
        self.boxes = np.hstack([first, np.maximum(stop, first)]).astype(np.int64)
        self._order = np.argsort(self.boxes[:, 0], kind="stable")
        self._tops = self.boxes[self._order, 0]
        self._tallest = int((self.boxes[:, 2] - self.boxes[:, 0]).max(initial=0))

    def near(self, box: Sequence[int]) -> npt.NDArray[np.intp]:
        """Rows of the cells whose boxes share a pixel with this one, ascending."""
        y0, x0, y1, x1 = box
        first, last = np.searchsorted(self._tops, (y0 - self._tallest, y1))
        rows = np.sort(self._order[first:last])
        _, left, bottom, right = self.boxes[rows].T
        found: npt.NDArray[np.intp] = rows[(bottom > y0) & (left < x1) & (right > x0)]
        return found

    def covers(self, row: int, box: Sequence[int]) -> Mask:
        """Pixels of a box that a cell covers, (Y, X) bool."""
        y0, x0, y1, x1 = box
        covered = np.zeros((y1 - y0, x1 - x0), bool)
        top, left, bottom, right = self.boxes[row].tolist()
        top, left, bottom, right = max(top, y0), max(left, x0), min(bottom, y1), min(right, x1)
        if top < bottom and left < right:
            inside: Any = True
            if self._masks is not None:
                y, x = self._masks.boxes[row, :2].tolist()
                inside = self._masks.cells[row][top - y : bottom - y, left - x : right - x]
            covered[top - y0 : bottom - y0, left - x0 : right - x0] = inside
        return covered

    def distance(self, row: int, box: Sequence[int]) -> Float64:
        """Distance of each pixel of a box from the centre of a cell, squared."""
        y0, x0, y1, x1 = box
        y, x = self.centres[row]
        squared: Float64 = (np.arange(y0, y1)[:, None] + 0.5 - y) ** 2 + (np.arange(x0, x1)[None, :] + 0.5 - x) ** 2
        return squared


def _tiles(
    colours: Any, places: _Places, within: Box | None, opacity: float, interpolation: Interpolation
) -> Iterator[Tile]:
    """Tiles of the cells that have pixels in a part of the field."""
    for row in range(len(places.boxes)) if within is None else places.near(within).tolist():
        y0, x0, y1, x1 = places.boxes[row].tolist()
        shown = places.covers(row, (y0, x0, y1, x1))
        for other in places.near((y0, x0, y1, x1)).tolist():
            if other != row:
                top, left, bottom, right = places.boxes[other].tolist()
                both = (max(top, y0), max(left, x0), min(bottom, y1), min(right, x1))
                own, theirs = places.distance(row, both), places.distance(other, both)
                nearer = theirs < own if row < other else theirs <= own
                part = shown[both[0] - y0 : both[2] - y0, both[1] - x0 : both[3] - x0]
                part &= ~(nearer & places.covers(other, both))
        if not shown.any():
            continue
        start = places.centres[row] - places.sizes[row] / 2
        y = (np.arange(y0, y1) + 0.5 - start[0]) / places.sizes[row, 0]
        x = (np.arange(x0, x1) + 0.5 - start[1]) / places.sizes[row, 1]
        rgba = np.empty((*shown.shape, 4), np.uint8)
        small = np.asarray(colours[row], np.float32)
        exact = interpolation == "nearest"
        rgba[..., :3] = _nearest(_to_uint8(small), y, x) if exact else _to_uint8(_bilinear(small, y, x))
        rgba[..., 3] = shown * np.uint8(round(255 * opacity))
        yield Tile(row, y0, x0, rgba)


def _nearest(colours: npt.NDArray[N], y: Float64, x: Float64) -> npt.NDArray[N]:
    """Colours (h, w, C) of the patches that places y (Y,) and x (X,), in 0..1 of the crop's sides, lie in."""
    height, width = colours.shape[:2]
    rows = np.clip((y * height).astype(np.intp), 0, height - 1)
    columns = np.clip((x * width).astype(np.intp), 0, width - 1)
    found: npt.NDArray[N] = colours[:, columns][rows]
    return found


def _bilinear(colours: Floats, y: Float64, x: Float64) -> Floats:
    """Colours between the centres of patches, at the places that `_nearest` takes."""
    height, width, channels = colours.shape
    rows: Floats = np.dot(_tents(y, height), colours.reshape(height, -1)).reshape(len(y), width, channels)
    mixed: Floats = np.dot(rows.transpose(0, 2, 1).reshape(-1, width), _tents(x, width).T)
    return mixed.reshape(len(y), channels, len(x)).transpose(0, 2, 1)


def _tents(place: Float64, side: int) -> Floats:
    """Weights (places, patches) of linear interpolation between the centres of patches, even beyond the outermost."""
    at = np.clip(place * side - 0.5, 0, side - 1)
    weights: Floats = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(side))).astype(np.float32)
    return weights


def _to_uint8(values: Floats) -> Uint8:
    """Round 0..1 to 0..255."""
    rounded: Uint8 = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return rounded


def _check_interpolation(interpolation: str) -> None:
    if interpolation not in get_args(Interpolation):
        raise ValueError(f"interpolation={interpolation!r}: use {', '.join(get_args(Interpolation))}.")


def _check_opacity(opacity: float) -> None:
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity={opacity}: give a number in 0..1.")
