"""TIFF and OME-TIFF pictures, read region by region at every level of a pyramid; planes and samples in any order.

Compressions that tifffile cannot undo by itself (JPEG, JPEG 2000, LZW without the package imagecodecs) are read in one
piece through Pillow, of large or pyramidal tiled files region by region through OpenSlide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import ImageError
from napari_dinobloom.io import slides
from napari_dinobloom.io.lazy import lazy_picture
from napari_dinobloom.io.pixels import (
    GREY,
    MAX_PIXELS,
    MAX_PIXELS_TILED,
    check_size,
    cmyk_to_rgb,
    on_white,
    to_uint8,
)
from napari_dinobloom.io.raster import describe, lazy_raster, open_raster

if TYPE_CHECKING:
    import dask.array as da

SIGNATURES = {b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"}

DIRECT_PIXELS = 64_000_000
"""Larger tiled pictures of a compression that tifffile cannot undo go through OpenSlide, where it is installed."""

_UM = {"": 1.0, "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "\\u00b5m": 1.0, "nm": 1e-3, "mm": 1e3,
       "cm": 1e4, "m": 1e6, "inch": 25_400.0, "in": 25_400.0, "å": 1e-4}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the pixels of a TIFF are stored, as far as reading a region needs it."""

    path: str
    level: int
    axes: str
    shape: tuple[int, ...]
    kind: str  # "rgb", "rgba", "premultiplied", "cmyk" or "palette"
    bits: int | None
    colours: NDArray[np.uint8] | None
    contiguous: bool

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.shape[self.axes.index("Y")], self.shape[self.axes.index("X")]


def open_tiff(path: Path, max_pixels: int | None) -> tuple[tuple[da.Array, ...], float | None]:
    """Read the header.

    Returns
    -------
    levels : tuple of dask.array.Array
        (Y, X, 3) uint8 each, the finest first; one where there is no pyramid.
    pixel_size_um : float or None
        Of the finest level, if given.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            found = file.series[0].levels
            page = found[0].keyframe
            layouts = _layouts(path, file, found)
            height, width = layouts[0].size
            pixel_size_um = _pixel_size(file, page)
            if page.compression not in tifffile.TIFF.DECOMPRESSORS:
                return _through_another(path, page, layouts[0], len(found), pixel_size_um, max_pixels)
            piece = int(np.prod(page.chunks[:2])) if page.chunks else height * width
            lazy = piece <= MAX_PIXELS or layouts[0].contiguous
            check_size(path, height, width, max_pixels or (MAX_PIXELS_TILED if lazy else MAX_PIXELS))
            _check_complete(path, found[0], file.filehandle.size)
            return tuple(
                lazy_picture(partial(read_region, layout), layout.size, _tile(level.keyframe, layout))
                for layout, level in zip(layouts, found, strict=False)
            ), pixel_size_um
    except ImageError:
        raise
    except Exception as error:  # a damaged header makes the parser raise nearly anything
        raise ImageError(
            f"{path}: is damaged, or no TIFF that can be read ({describe(error)}). Copy or export the picture again."
        ) from error


def _layouts(path: Path, file: Any, levels: Any) -> list[_Layout]:
    """Layout of each level, up to the first that cannot be read or is no smaller version of the one before."""
    import tifffile

    layouts = [_layout(path, file, levels[0], 0)]
    for number, level in enumerate(levels[1:], start=1):
        try:
            coarser = _layout(path, file, level, number)
            _check_complete(path, level, file.filehandle.size)
        except ImageError:
            break
        known = level.keyframe.compression in tifffile.TIFF.DECOMPRESSORS and coarser.kind == layouts[0].kind
        if not known or any(n >= m for n, m in zip(coarser.size, layouts[-1].size, strict=True)):
            break
        layouts.append(coarser)
    return layouts


def _layout(path: Path, file: Any, level: Any, number: int) -> _Layout:
    """Find the axes and the kind of colour, and refuse stacks and greyscale."""
    import tifffile

    page = level.keyframe
    long = [(axis, int(size)) for axis, size in zip(level.axes, level.shape, strict=True) if size > 1 or axis in "YX"]
    axes, shape = "".join(axis for axis, _ in long), tuple(size for _, size in long)
    if len(shape) == 3 and "S" not in axes and "C" not in axes and shape[2] in (3, 4) and min(shape[:2]) > 4:
        axes = "YXS"  # (Y, X, 3) that was written without saying that it is a colour picture
    axes = axes.replace("C", "S") if "S" not in axes else axes
    if not (sorted(axes) == ["S", "X", "Y"] or axes == "YX"):
        raise ImageError(
            f"{path}: holds several pictures (axes {level.axes}, shape {tuple(level.shape)}). "
            "Save each as a file of its own."
        )
    samples = shape[axes.index("S")] if "S" in axes else 1
    photometric = page.photometric
    colours = None
    if samples == 1 and photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
        kind, colours = "palette", (np.asarray(page.colormap).T >> 8).astype(np.uint8)
    elif samples == 4 and photometric == tifffile.PHOTOMETRIC.SEPARATED:
        kind = "cmyk"
    elif samples == 4:
        premultiplied = tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples
        kind = "premultiplied" if premultiplied else "rgba"
    elif samples == 3:
        kind = "rgb"
    else:
        raise ImageError(f"{path}: {GREY}" if samples < 3 else f"{path}: has {samples} channels. Save it as 8-bit RGB.")
    bits = _declared_bits(file, page)
    return _Layout(str(path), number, axes, shape, kind, bits, colours, contiguous=level.dataoffset is not None)


def _declared_bits(file: Any, page: Any) -> int | None:
    """Bits in use where the file declares fewer than its type holds, e.g. 12 of 16."""
    if page.dtype is None or page.dtype.kind != "u" or page.dtype.itemsize == 1:
        return None
    declared = _ome_pixels(file).get("SignificantBits")
    if declared and declared.isdigit() and 8 <= int(declared) <= page.dtype.itemsize * 8:
        return int(declared)
    tag = page.tags.get(281)  # MaxSampleValue
    if tag is not None:
        largest = max(tag.value) if isinstance(tag.value, tuple) else int(tag.value)
        bits = (int(largest) + 1).bit_length() - 1
        if largest + 1 == 2**bits and bits >= 8:
            return bits
    return None


def _check_complete(path: Path, level: Any, size: int) -> None:
    """Refuse a file that ends before the data that its header announces."""
    for page in level.pages:
        if page is None:
            continue
        ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
        if not ends or max(ends) > size:
            raise ImageError(
                f"{path}: is damaged or was not copied to its end ({size:,} bytes of {max(ends, default=0):,}). "
                "Copy or export the picture again."
            )


def _through_another(
    path: Path, page: Any, layout: _Layout, levels: int, pixel_size_um: float | None, max_pixels: int | None
) -> tuple[tuple[da.Array, ...], float | None]:
    """Read a compression that tifffile cannot undo: tiled large files and pyramids by OpenSlide, others in one go."""
    height, width = layout.size
    if page.is_tiled and slides.installed() and (height * width > DIRECT_PIXELS or levels > 1):
        found, size = slides.open_slide(path, max_pixels)
        sure = pixel_size_um if "PhysicalSizeX" in _ome_pixels(page.parent) else None
        return found, sure or size or pixel_size_um  # the resolution of a TIFF may be a placeholder
    if page.is_tiled and not slides.installed() and MAX_PIXELS < height * width <= (max_pixels or MAX_PIXELS_TILED):
        raise ImageError(
            f"{path}: is compressed with {page.compression.name} and too large ({width} x {height} pixels) to be "
            f"decoded in one piece. {slides.INSTALL}"
        )
    check_size(path, height, width, max_pixels or MAX_PIXELS)
    return (_through_pillow(path, page, height, width, layout.kind),), pixel_size_um


def _through_pillow(path: Path, page: Any, height: int, width: int, kind: str) -> da.Array:
    """Read a picture in one piece through Pillow's libtiff."""
    if page.dtype != np.uint8 or kind == "premultiplied":
        raise ImageError(
            f"{path}: is compressed with {page.compression.name}, which cannot be read here for {page.dtype} pixels. "
            "Install the package imagecodecs, or save the picture uncompressed or with deflate."
        )
    check_size(path, height, width, MAX_PIXELS)
    image, _ = open_raster(path, MAX_PIXELS)
    if image.shape[:2] != (height, width):
        raise ImageError(f"{path}: its first page is not its full resolution. Install the package imagecodecs.")
    return lazy_raster(path, height, width)


def _tile(page: Any, layout: _Layout) -> tuple[int, int]:
    """Height and width of the tiles or strips of a level; one pixel where any part can be read by itself."""
    if layout.contiguous:
        return 1, 1
    tile = page.chunks[-3:-1] if page.axes.endswith("S") and len(page.chunks) >= 3 else page.chunks[-2:]
    return int(tile[0]), int(tile[1])


def read_region(layout: _Layout, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.uint8]:
    """Read pixels ``[y0:y1, x0:x1]`` as (y1 - y0, x1 - x0, 3) uint8.

    Raises
    ------
    ImageError
        If the data of the region are damaged.
    """
    try:
        values = _read_values(layout, (slice(y0, y1), slice(x0, x1)))
    except Exception as error:  # a damaged tile makes the decoders raise nearly anything
        raise ImageError(
            f"{layout.path}: is damaged or was not copied to its end ({describe(error)}). "
            "Copy or export the picture again."
        ) from error
    if layout.colours is not None:
        return layout.colours[np.minimum(values.astype(np.intp), len(layout.colours) - 1)]
    pixels = to_uint8(values, layout.path, layout.bits)
    if layout.kind in ("rgba", "premultiplied"):
        return on_white(pixels, premultiplied=layout.kind == "premultiplied")
    return cmyk_to_rgb(pixels) if layout.kind == "cmyk" else pixels


def _read_values(layout: _Layout, region: tuple[slice, slice]) -> NDArray[Any]:
    """Read a region in the file's own type with the samples last."""
    import tifffile
    import zarr

    index = tuple(slice(None) if axis == "S" else region["YX".index(axis)] for axis in layout.axes)
    if layout.contiguous:
        mapped = tifffile.memmap(layout.path, series=0, level=layout.level, mode="r")
        values = np.array(mapped.reshape(layout.shape)[index])
        del mapped
    else:
        with tifffile.TiffFile(layout.path) as file, file.aszarr(series=0, level=layout.level) as store:
            stored: Any = zarr.open(store, mode="r")
            full = iter(index)
            # Axes of length one were left out of the layout; put them back for the store.
            squeezed = tuple(next(full) if size > 1 or len(stored.shape) == len(index) else 0 for size in stored.shape)
            values = np.asarray(stored[squeezed])
    return np.moveaxis(values, layout.axes.index("S"), -1) if "S" in layout.axes else values


def _pixel_size(file: Any, page: Any) -> float | None:
    """Micrometres a pixel from OME-XML, ImageJ's unit or the resolution tags, if both directions agree."""
    pixels = _ome_pixels(file)
    if "PhysicalSizeX" in pixels:
        x = _length(pixels["PhysicalSizeX"], pixels.get("PhysicalSizeXUnit", "µm"))
        y = _length(pixels.get("PhysicalSizeY", pixels["PhysicalSizeX"]), pixels.get("PhysicalSizeYUnit", "µm"))
        return _agree(x, y)
    units = {2: 25_400.0, 3: 10_000.0}
    tags = {code: page.tags[code].value for code in (282, 283, 296) if code in page.tags}
    unit = units.get(int(tags.get(296, 2)))
    imagej = str((file.imagej_metadata or {}).get("unit", "")).strip().lower()
    if imagej:
        unit = _UM.get(imagej)
    if unit is None or 282 not in tags or 283 not in tags:
        return None
    x, y = (tags[code][0] / tags[code][1] if tags[code][1] else 0.0 for code in (282, 283))
    return _agree(unit / x if x else None, unit / y if y else None)


def _length(text: str, unit: str) -> float | None:
    """Micrometres from a number and a unit; None for pixels and unknown units."""
    factor = _UM.get(unit.strip().lower())
    try:
        return float(text) * factor if factor is not None else None
    except ValueError:
        return None


def _agree(x: float | None, y: float | None) -> float | None:
    """Return `x` if it is a positive number and `y` is within 2 %: cells are measured in square pixels only."""
    if x is None or y is None or not math.isfinite(x) or x <= 0 or abs(x - y) > 0.02 * x:
        return None
    return x


def _ome_pixels(file: Any) -> dict[str, str]:
    """Return the attributes of the first ``Pixels`` element of the OME-XML; empty where there is none."""
    text = file.ome_metadata if file.is_ome else None
    if not text or "<!ENTITY" in text or "<!DOCTYPE" in text:  # no entity bombs
        return {}
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return {}
    found = next((node for node in root.iter() if node.tag.rpartition("}")[2] == "Pixels"), None)
    return dict(found.attrib) if found is not None else {}
