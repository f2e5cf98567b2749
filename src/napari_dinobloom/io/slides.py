"""Whole slides of scanners (SVS, NDPI, MRXS, SCN, BIF, VMS), read by OpenSlide where it is installed.

Coordinates are pixels of the finest level, counted from the upper left corner of the scanned area
(``openslide.bounds-x`` and ``-y``) where a scanner tells one: so QuPath shows them, too. What was not scanned is
white.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import ImageError
from napari_dinobloom.io.lazy import lazy_picture
from napari_dinobloom.io.pixels import MAX_PIXELS_TILED, check_size, on_white
from napari_dinobloom.io.raster import describe

if TYPE_CHECKING:
    import dask.array as da

ENDINGS = (".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu")
"""Endings of slides that OpenSlide alone reads: their tiles overlap, or their parts lie in several files."""

INSTALL = 'Install OpenSlide with: pip install "napari-dinobloom[wsi]"'

FINEST_APART = 0.02
"""Pixels count as square where their sides differ by less."""


@dataclass(frozen=True, slots=True)
class _Level:
    """One level of a slide: its file as it was when it was opened, and where its pixels lie."""

    path: str
    stamp: tuple[int, int]
    level: int
    left: int
    top: int
    down: float


def installed() -> bool:
    """Whether OpenSlide is there."""
    return util.find_spec("openslide") is not None


def open_slide(path: Path, max_pixels: int | None) -> tuple[tuple[da.Array, ...], float | None]:
    """Read the header of a slide.

    Parameters
    ----------
    path : Path
        The file; of MRXS and VMS the one beside the folder or the pictures.
    max_pixels : int or None
        Largest number of pixels of the finest level; None: `MAX_PIXELS_TILED`.

    Returns
    -------
    levels : tuple of dask.array.Array
        (Y, X, 3) uint8 each, the finest first.
    pixel_size_um : float or None
        Of the finest level, if the scanner says so and pixels are square.

    Raises
    ------
    ImageError
        If OpenSlide is not installed or cannot read the file, or the slide is too large.
    """
    if not installed():
        raise ImageError(f"{path}: is a whole slide that needs OpenSlide. {INSTALL}")
    about = path.stat()
    stamp = (about.st_mtime_ns, about.st_size)
    slide = _handle(str(path), stamp)
    left, top, width, height = _bounds(slide)
    check_size(path, height, width, max_pixels or MAX_PIXELS_TILED)
    levels = []
    for number, down in enumerate(slide.level_downsamples):
        size = (max(1, round(height / down)), max(1, round(width / down)))
        part = _Level(str(path), stamp, number, left, top, float(down))
        levels.append(lazy_picture(partial(_read, part), size, _tile(slide, number)))
    return tuple(levels), _pixel_size(slide)


@lru_cache(maxsize=4)
def _handle(path: str, stamp: tuple[int, int]) -> Any:
    """Open a slide; kept open, as opening some takes longer than reading a tile. OpenSlide reads in many threads."""
    del stamp  # a file that was replaced is opened again
    import openslide

    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise ImageError(
            f"{path}: is of no kind that OpenSlide reads. Copy it again with all files that belong to it, "
            "or save it as a tiled TIFF or OME-Zarr."
        ) from error
    except openslide.OpenSlideError as error:
        raise ImageError(f"{path}: {_damaged(error)}") from error


def _bounds(slide: Any) -> tuple[int, int, int, int]:
    """Left, top, width and height of the scanned area in pixels of the finest level."""
    width, height = slide.dimensions
    named = [slide.properties.get(f"openslide.bounds-{name}") for name in ("x", "y", "width", "height")]
    try:
        x, y, w, h = (int(float(value)) for value in named)
    except (TypeError, ValueError):
        return 0, 0, int(width), int(height)
    x, y = max(x, 0), max(y, 0)
    w, h = min(w, width - x), min(h, height - y)
    return (x, y, w, h) if w > 0 and h > 0 else (0, 0, int(width), int(height))


def _tile(slide: Any, level: int) -> tuple[int, int]:
    """Height and width of the tiles in the file, if the slide tells them."""
    sides = [slide.properties.get(f"openslide.level[{level}].tile-{name}", "1") for name in ("height", "width")]
    height, width = (int(side) if side.isdigit() and 0 < int(side) <= 8192 else 1 for side in sides)
    return height, width


def _pixel_size(slide: Any) -> float | None:
    """Micrometres a pixel from ``openslide.mpp-x`` and ``-y``."""
    try:
        x, y = (float(slide.properties[f"openslide.mpp-{axis}"]) for axis in "xy")
    except (KeyError, ValueError):
        return None
    return x if x > 0 and abs(x - y) <= FINEST_APART * x else None


def _read(part: _Level, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.uint8]:
    """Read a region of a level."""
    import openslide

    try:
        corner = (part.left + round(x0 * part.down), part.top + round(y0 * part.down))
        region = _handle(part.path, part.stamp).read_region(corner, part.level, (x1 - x0, y1 - y0))
    except openslide.OpenSlideError as error:
        _handle.cache_clear()  # OpenSlide keeps failing on a handle that failed once
        raise ImageError(f"{part.path}: {_damaged(error)}") from error
    return on_white(np.asarray(region))


def _damaged(error: Exception) -> str:
    """Say that a slide cannot be read."""
    return (
        f"is damaged or was not copied to its end ({describe(error)}). Copy the slide again with all files that "
        "belong to it."
    )
