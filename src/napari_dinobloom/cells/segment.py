"""From a stained field to its white cells: whole cells, nuclei and one row of measures each.

Owns the order of the steps and the windows of large pictures; each step is a module of its own: `background` (white
balance), `stain` (colours of this picture), `scale` (micrometres), `material` (white cells' stuff against red cells),
`nuclei` (find, join, part), `cytoplasm` (grow to whole cells), `drawing` (label images), `measures` (the table).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells import background, cytoplasm, drawing, material, measures, nuclei, stain
from napari_dinobloom.cells import scale as scales
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.progress import Progress, Steps, drain

VERSION = 6

TILE = 2048
"""Largest side of a window in working pixels."""

MARGIN_UM = 30.0
"""Overlap of windows: no white cell is wider."""

UNEXPLAINED_UM = 3.0
"""Radius of a disc of white-cell material clear of nuclei that calls for a second look: no cytoplasm is so wide."""

SMALLEST_SIDE = 16
"""Smallest side of a picture in pixels."""

Image = NDArray[np.uint8]
Labels = NDArray[np.int32]


@dataclass(kw_only=True, slots=True)
class SegmentSettings:
    """Settings of the classical segmentation; one set of defaults for all stains."""

    working_um: float = 0.16
    """Pixel size at which cells are sought, micrometres; finer pictures are shrunk to it."""

    smallest_nucleus_um2: float = 15.0
    """Smallest area of a white cell's nucleus; less is a platelet or debris."""

    largest_reach_um: float = 6.0
    """Farthest that cytoplasm may reach from its nucleus."""

    def to_dict(self) -> dict[str, Any]:
        """Give the settings as plain JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Cells:
    """White cells of one field.

    Attributes
    ----------
    labels : numpy.ndarray
        (Y, X) int32 whole cells, 0 is none.
    nuclei : numpy.ndarray
        (Y, X) int32 nuclei with the numbers of their cells.
    table : pandas.DataFrame
        One row a cell, in the order of the column ``label`` (1, 2, ... sorted by y0, x0).
    scale : Scale
        Scale that was used.
    """

    labels: Labels
    nuclei: Labels
    table: pd.DataFrame
    scale: Scale


def segment(image: Any, pixel_size_um: float | None = None, *, settings: SegmentSettings | None = None) -> Cells:
    """Find the white blood cells of a stained smear field.

    Parameters
    ----------
    image : array
        (Y, X, 3) uint8, NumPy or lazy.
    pixel_size_um : float, optional
        Scale where it is known; else it is estimated from the cells.
    settings : SegmentSettings, optional
        Defaults fit all stains.

    Returns
    -------
    Cells
        Labels, nuclei, table and scale.

    Raises
    ------
    ValueError
        If the picture is not (Y, X, 3) uint8 or `pixel_size_um` is not a positive number.
    """
    return drain(iter_segment(image, pixel_size_um, settings=settings))


def iter_segment(
    image: Any, pixel_size_um: float | None = None, *, settings: SegmentSettings | None = None
) -> Steps[Cells]:
    """Twin of `segment` that yields `Progress` and returns its result."""
    settings = SegmentSettings() if settings is None else settings
    _check(image, pixel_size_um)
    yield Progress(0, 1, "scale")
    light = background.find_background(_thinned(image))
    scale = Scale(float(pixel_size_um), "user") if pixel_size_um else scales.estimate_scale(image, light)
    shape = (int(image.shape[0]), int(image.shape[1]))
    labels, inner = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    factor = max(1.0, settings.working_um / scale.pixel_size_um)
    windows = _windows(shape, round(TILE * factor), int(np.ceil(MARGIN_UM / scale.pixel_size_um)))
    colours = None if len(windows) == 1 else _overall_stain(image, light)
    count = 0
    for done, window in enumerate(windows):
        yield Progress(done, len(windows), "white cells")
        count += _segment_window(image, window, _Field(light, colours, scale, factor, settings), labels, inner, count)
    labels, inner, table = measures.measure(image, labels, inner, scale)
    yield Progress(len(windows), len(windows), f"{len(table)} cells")
    return Cells(labels, inner, table, scale)


@dataclass(frozen=True, slots=True)
class _Field:
    """What all windows of one field share; `colours` is None where a single window finds its own."""

    light: background.Background
    colours: stain.Stain | None
    scale: Scale
    factor: float
    settings: SegmentSettings


@dataclass(frozen=True, slots=True)
class _Window:
    """A part of the field: what is read, and the core in which its cells' centres must lie; y0, x0, y1, x1."""

    read: tuple[int, int, int, int]
    core: tuple[int, int, int, int]


def _check(image: Any, pixel_size_um: float | None) -> None:
    """Refuse what is not a colour picture or not a scale, by name."""
    shape, kind = getattr(image, "shape", None), getattr(image, "dtype", None)
    if shape is None or len(shape) != 3 or shape[2] != 3 or kind is None or np.dtype(kind) != np.uint8:
        raise ValueError(f"segment needs a (Y, X, 3) uint8 picture, not {shape} {kind}; read_smear gives one")
    if min(shape[:2]) < SMALLEST_SIDE:
        raise ValueError(f"the picture measures {shape[0]} x {shape[1]} px: fields have {SMALLEST_SIDE} px and more")
    if pixel_size_um is not None and not (np.isfinite(pixel_size_um) and pixel_size_um > 0):
        raise ValueError(f"pixel_size_um is {pixel_size_um}: give micrometres per pixel, a positive number, or None")


def _thinned(image: Any) -> Image:
    """Every n-th pixel of a large picture, enough to see its light."""
    step = max(1, max(image.shape[:2]) // 2048)
    return np.asarray(image[::step, ::step])


def _overall_stain(image: Any, light: background.Background) -> stain.Stain:
    """Stain of a large picture from tiles spread over it."""
    tiles = [background.absorbance(tile, light)[::3, ::3].reshape(-1, 3) for tile in scales.sample_tiles(image)]
    return stain.estimate_stain(np.concatenate(tiles)[None])


def _windows(shape: tuple[int, int], tile: int, margin: int) -> list[_Window]:
    """Cut a field into cores of at most `tile` pixels, each read with a margin."""
    height, width = shape
    ys = np.linspace(0, height, int(np.ceil(height / tile)) + 1).astype(int)
    xs = np.linspace(0, width, int(np.ceil(width / tile)) + 1).astype(int)
    windows = []
    for y0, y1 in pairwise(ys):
        for x0, x1 in pairwise(xs):
            read = (max(y0 - margin, 0), max(x0 - margin, 0), min(y1 + margin, height), min(x1 + margin, width))
            windows.append(_Window(read, (int(y0), int(x0), int(y1), int(x1))))
    return windows


def _segment_window(image: Any, window: _Window, field: _Field, labels: Labels, inner: Labels, count: int) -> int:
    """Find the cells of one window and draw those whose centre lies in its core, numbered after `count`."""
    y0, x0, y1, x1 = window.read
    picture = np.ascontiguousarray(image[y0:y1, x0:x1])
    height, width = labels.shape
    density = background.absorbance(
        _shrunk(picture, field.factor), field.light, (y0 / height, x0 / width, y1 / height, x1 / width)
    )
    colours = field.colours or stain.estimate_stain(density)
    working_um = field.scale.pixel_size_um * field.factor
    kernels, outlines = _find_cells(density, colours, working_um, field.settings)
    whole, cores = drawing.draw_cells(outlines, kernels, (picture.shape[0], picture.shape[1]))
    number = _numbers_in_core(outlines, window, picture.shape[0] / density.shape[0], count)
    for target, found in ((labels, whole), (inner, cores)):
        view, fresh = target[y0:y1, x0:x1], number[found]
        np.copyto(view, fresh, where=(fresh > 0) & (view == 0))
    inner[y0:y1, x0:x1][inner[y0:y1, x0:x1] != labels[y0:y1, x0:x1]] = 0
    return int((number > 0).sum())


def _find_cells(
    density: background.Float, colours: stain.Stain, pixel_um: float, settings: SegmentSettings
) -> tuple[nuclei.Nuclei, cytoplasm.Outlines]:
    """Find nuclei and grow them; then look again at white-cell material that no cell explains.

    The second look finds pale nuclei beside very dark ones, whose level hid them.
    """
    from scipy import ndimage as ndi

    smallest, reach = settings.smallest_nucleus_um2, settings.largest_reach_um
    margin = nuclei.nuclear_margin(density, colours, pixel_um)
    stuff = material.find_material(density, colours, margin > 0, pixel_um)
    solid = stuff.solid(margin > 0, pixel_um)
    kernels = nuclei.find_nuclei(margin, solid, pixel_um, smallest)
    outlines = cytoplasm.grow_cells(stuff, kernels.labels, pixel_um, reach)
    found = ndi.binary_dilation(kernels.labels > 0, nuclei.disk(1.0 / pixel_um))
    rest = solid & ~found
    deep = ndi.distance_transform_edt(rest) * pixel_um > UNEXPLAINED_UM
    if not deep.any():
        return kernels, outlines
    rest = ndi.binary_propagation(deep, mask=ndi.binary_opening(rest, nuclei.disk(0.5 / pixel_um)))
    more = nuclei.nuclear_margin(density, colours, pixel_um, rest)
    again = np.maximum(np.where(kernels.labels > 0, margin, -1), np.where(rest, more, -1))
    if not (more > 0).any():
        return kernels, outlines
    kernels = nuclei.find_nuclei(again, solid, pixel_um, smallest)
    return kernels, cytoplasm.grow_cells(stuff, kernels.labels, pixel_um, reach)


def _numbers_in_core(outlines: cytoplasm.Outlines, window: _Window, factor: float, count: int) -> Labels:
    """New number for each cell of a window, 0 for those that belong to a neighbouring window."""
    place = (outlines.centres + 0.5) * factor + window.read[:2]
    inside = ((place >= window.core[:2]) & (place < window.core[2:])).all(axis=1)
    number = np.where(inside, count + np.cumsum(inside), 0)
    return np.concatenate([[0], number]).astype(np.int32)


def _shrunk(picture: Image, factor: float) -> Image:
    """Shrink by `factor`, averaging."""
    from PIL import Image as Pillow

    height, width = (max(1, round(n / factor)) for n in picture.shape[:2])
    if (height, width) == picture.shape[:2]:
        return picture
    return np.asarray(Pillow.fromarray(picture).resize((width, height), Pillow.Resampling.BOX))
