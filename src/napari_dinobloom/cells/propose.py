"""Proposed outlines of a single cell that a person points at.

The network's maps are read with the person's word: where a click or a box says that there is a cell, weaker signs of
it suffice, and it has one middle. Where the maps show nothing at all, a plain disc or ellipse is proposed, to be
repainted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells import background, instances
from napari_dinobloom.cells.instances import Maps
from napari_dinobloom.cells.learned import NETWORK_UM, SMALLEST_CELL_UM2, Lattice
from napari_dinobloom.cells.stain import Stain, light_and_stain
from napari_dinobloom.io.masks import FieldMasks

RADIUS_UM = 6.0
"""Radius of the disc where nothing is seen: that of a small white cell."""

REACH_UM = 12.0
"""Farthest that a cell is believed to reach from a click."""

BELIEF = 2.0
"""What a person's word adds to the logit of a cell."""

LEAST_FILL = 0.3
"""A cell seen in less than this share of a box's ellipse is not the cell that was boxed."""

Bool = NDArray[np.bool_]
Box = tuple[int, int, int, int]


def cell_at(image: Any, point: tuple[float, float], pixel_size_um: float) -> FieldMasks:
    """Propose the cell around a point.

    Parameters
    ----------
    image : array
        (Y, X, 3) uint8, NumPy or lazy; only the surroundings of the point are read.
    point : (float, float)
        y and x in pixels, inside the picture.
    pixel_size_um : float
        Micrometres a pixel.

    Returns
    -------
    FieldMasks
        One cell with number 1; its nucleus is empty where none is seen.
    """
    radius = RADIUS_UM / pixel_size_um
    y, x = point
    window, lattice, maps = _look_around(image, (y, x, y, x), pixel_size_um)
    place = np.array([(y - window[0] + 0.5), (x - window[1] + 0.5)]) / lattice.factor / 2 - 0.5
    rows, columns = (np.arange(n) - p for n, p in zip(maps.middle.shape, place, strict=True))
    distance = np.hypot(rows[:, None], columns[None, :]) * 2 * NETWORK_UM
    near = np.repeat(np.repeat(distance < REACH_UM, 2, 0), 2, 1)
    maps = replace(maps, cell=np.where(near, maps.cell + np.float32(BELIEF), -20).astype(np.float32))
    peaks = instances.find_peaks(maps.middle)
    inside = np.clip(np.rint(place), 0, np.array(maps.middle.shape) - 1).astype(np.int64)
    labels = instances.assign(maps, peaks)
    number = int(labels[tuple(inside)])
    if not number:  # no cell was seen here: the click is the middle of one
        peaks = np.concatenate([peaks, inside[None]])
        labels = instances.assign(maps, peaks)
        number = len(peaks)
    found = _drawn(maps, labels, number, lattice, window, pixel_size_um)
    return found or _ellipse(image, (y - radius, x - radius, y + radius + 1, x + radius + 1))


def cell_in_box(
    image: Any,
    box: tuple[float, float, float, float],
    pixel_size_um: float,
    *,
    look: tuple[background.Background, Stain] | None = None,
) -> FieldMasks:
    """Propose the cell in a box.

    Parameters
    ----------
    image : array
        (Y, X, 3) uint8, NumPy or lazy; only the surroundings of the box are read.
    box : 4 floats
        y0, x0, y1, x1 in pixels, half-open, inside the picture.
    pixel_size_um : float
        Micrometres a pixel.
    look : (Background, Stain), optional
        Light and colours of the picture, where they are known already.

    Returns
    -------
    FieldMasks
        One cell with number 1 within the box; its nucleus is empty where none is seen.
    """
    window, lattice, maps = _look_around(image, box, pixel_size_um, look)
    spans = []
    for low, high, start, size in zip(box[:2], box[2:], window[:2], maps.cell.shape, strict=True):
        place = (np.arange(size) + 0.5) * lattice.factor + start
        spans.append((place >= low) & (place <= high))
    inside = np.outer(*spans)
    maps = replace(maps, cell=np.where(inside, maps.cell + np.float32(BELIEF / 2), -20).astype(np.float32))
    height, width = maps.middle.shape
    labels = (maps.cell.reshape(height, 2, width, 2).max(axis=(1, 3)) > 0).astype(np.int32)
    found = _drawn(maps, labels, 1, lattice, window, pixel_size_um)
    ellipse = _ellipse(image, box)
    if found is None or found.cells[0].sum() < LEAST_FILL * ellipse.cells[0].sum():
        return ellipse
    return _clipped(found, box)


def _look_around(
    image: Any,
    box: tuple[float, float, float, float],
    pixel_size_um: float,
    look: tuple[background.Background, Stain] | None = None,
) -> tuple[Box, Lattice, Maps]:
    """Run the network around a box; gives the window in pixels of the picture, its lattice and maps."""
    margin = (instances.REACH_UM + REACH_UM) / pixel_size_um
    height, width = int(image.shape[0]), int(image.shape[1])
    window = (
        max(int(box[0] - margin), 0),
        max(int(box[1] - margin), 0),
        min(int(np.ceil(box[2] + margin)) + 1, height),
        min(int(np.ceil(box[3] + margin)) + 1, width),
    )
    part = np.asarray(image[window[0] : window[2], window[1] : window[3]])
    light, colours = look or light_and_stain(image)
    even = background.Background(light.colour, np.zeros_like(light.surface))
    lattice = Lattice(part, even, colours, NETWORK_UM / pixel_size_um)
    rows, columns = (n + n % 2 for n in lattice.shape)
    return window, lattice, lattice.maps((0, 0, rows, columns))


def _drawn(
    maps: Maps, labels: NDArray[np.int32], number: int, lattice: Lattice, window: Box, pixel_size_um: float
) -> FieldMasks | None:
    """Draw one labelled cell of the maps at the picture's resolution; None where it is too small to be one."""
    ys, xs = np.nonzero(labels == number)
    if not len(ys):
        return None
    box = (slice(int(ys.min()), int(ys.max()) + 1), slice(int(xs.min()), int(xs.max()) + 1))
    instance = instances.cut(maps, labels, number, (int(ys.mean()), int(xs.mean())), box, lattice.colours)
    drawn = instances.outline(instance, (0, 0), lattice.factor, lattice.full)
    if drawn is None or drawn[1].sum() * pixel_size_um**2 < SMALLEST_CELL_UM2:
        return None
    (y0, x0, y1, x1), cell, nucleus = drawn
    place = (y0 + window[0], x0 + window[1], y1 + window[0], x1 + window[1])
    return FieldMasks(np.array([place], np.int32), np.array([1], np.int32), [cell], [nucleus])


def _clipped(masks: FieldMasks, box: tuple[float, float, float, float]) -> FieldMasks:
    """Cut what a pixel's width reaches out of a box."""
    y0, x0, y1, x1 = masks.boxes[0].tolist()
    top, left = max(int(np.floor(box[0])), y0), max(int(np.floor(box[1])), x0)
    bottom, right = min(int(np.ceil(box[2])), y1), min(int(np.ceil(box[3])), x1)
    rows, columns = slice(top - y0, bottom - y0), slice(left - x0, right - x0)
    kept = np.array([[top, left, bottom, right]], np.int32)
    return FieldMasks(kept, masks.numbers, [masks.cells[0][rows, columns]], [masks.nuclei[0][rows, columns]])


def _ellipse(image: Any, box: tuple[float, float, float, float]) -> FieldMasks:
    """Ellipse that fills a box, cut at the picture's border, without a nucleus."""
    height, width = int(image.shape[0]), int(image.shape[1])
    y0, x0 = max(int(np.floor(box[0])), 0), max(int(np.floor(box[1])), 0)
    y1, x1 = min(int(np.ceil(box[2])), height), min(int(np.ceil(box[3])), width)
    y = (np.arange(y0, y1) + 0.5 - (box[0] + box[2]) / 2) / max((box[2] - box[0]) / 2, 0.5)
    x = (np.arange(x0, x1) + 0.5 - (box[1] + box[3]) / 2) / max((box[3] - box[1]) / 2, 0.5)
    mask = (y[:, None] ** 2 + x[None, :] ** 2) <= 1
    if not mask.any():
        mask[:] = True
    return FieldMasks(np.array([[y0, x0, y1, x1]], np.int32), np.array([1], np.int32), [mask], [np.zeros_like(mask)])
