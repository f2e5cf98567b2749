"""OME-Zarr pictures (versions 0.4 and 0.5 of OME-NGFF) in a folder, read region by region at every level."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import ImageError
from napari_dinobloom.io.lazy import lazy_picture
from napari_dinobloom.io.pixels import GREY, MAX_PIXELS, MAX_PIXELS_TILED, check_size, on_white, to_uint8
from napari_dinobloom.io.raster import describe

if TYPE_CHECKING:
    import dask.array as da

ENDING = ".zarr"
"""A folder with this ending is one picture, not a folder of files."""

METADATA = ("zarr.json", ".zattrs")
"""Files that tell the group of a picture: of zarr 3 (OME-Zarr 0.5) and zarr 2 (0.4)."""

_UM = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6, "angstrom": 1e-4,
       "inch": 25_400.0, "um": 1.0, "µm": 1.0, "nm": 1e-3, "mm": 1e3}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Level:
    """One level: its array in the folder and what its axes are, each one of ``tczyx``."""

    folder: str
    array: str
    axes: str


def is_picture(folder: Path) -> bool:
    """Whether a folder can be an OME-Zarr picture, by its name and its metadata file alone."""
    return folder.name.lower().endswith(ENDING) and any((folder / name).is_file() for name in METADATA)


def open_omezarr(folder: Path, max_pixels: int | None) -> tuple[tuple[da.Array, ...], float | None]:
    """Read the metadata of an OME-Zarr picture.

    Parameters
    ----------
    folder : Path
        ``NAME.zarr`` or ``NAME.ome.zarr``. Of a ``bioformats2raw`` folder the first picture is taken.
    max_pixels : int or None
        Largest number of pixels of the finest level; None: `MAX_PIXELS_TILED`.

    Returns
    -------
    levels : tuple of dask.array.Array
        (Y, X, 3) uint8 each, the finest first, whatever the order of axes in the file.
    pixel_size_um : float or None
        Of the finest level, if its axes have a unit of length and pixels are square.

    Raises
    ------
    ImageError
        If it is damaged, no OME-Zarr picture, a stack or a plate, greyscale, or too large.
    """
    import zarr

    try:
        group = zarr.open_group(folder, mode="r")
        inner, scales = _multiscales(folder, group)
        axes = "".join(_name(axis) for axis in scales["axes"])
        datasets = scales["datasets"]
        arrays = [(_inside(folder, inner, data["path"]), data) for data in datasets]
        levels: list[da.Array] = []
        for name, _ in arrays:
            levels.append(_open_level(folder, group[name], name, axes, max_pixels, finest=not levels))
        size = _pixel_size(scales, arrays[0][1])
    except ImageError:
        raise
    except Exception as error:  # a damaged store makes zarr raise nearly anything
        raise ImageError(
            f"{folder}: is damaged, or no OME-Zarr that can be read ({describe(error)}). Copy or export it again."
        ) from error
    return tuple(levels), size


def _multiscales(folder: Path, group: Any) -> tuple[str, Mapping[str, Any]]:
    """Place of the picture in the folder and its first ``multiscales`` entry."""
    for inner in ("", "0"):
        if inner and inner not in group:
            break
        attributes = dict((group[inner] if inner else group).attrs)
        attributes = dict(attributes.get("ome", attributes))  # 0.5 keeps them under "ome"
        if "plate" in attributes:
            raise ImageError(f"{folder}: is a plate of many pictures. Name one of its pictures.")
        if found := attributes.get("multiscales"):
            if "axes" not in found[0]:
                raise ImageError(f"{folder}: is OME-Zarr {found[0].get('version', '0.2')}. Save it as 0.4 or newer.")
            return inner, found[0]
    raise ImageError(f"{folder}: is zarr, but no OME-Zarr picture (it has no multiscales). Name a picture.")


def _name(axis: object) -> str:
    """Letter of an axis."""
    return str(axis["name"] if isinstance(axis, Mapping) else axis)[:1].lower()


def _inside(folder: Path, inner: str, name: object) -> str:
    """Path of an array in the folder; one that leads out of it is refused."""
    path = PurePosixPath(inner) / str(name)
    leads_out = path.is_absolute() or ".." in path.parts or "\\" in str(name) or ":" in str(name)
    if leads_out or not (folder / path).resolve().is_relative_to(folder.resolve()):  # by a link
        raise ImageError(f"{folder}: names an array outside of itself ({str(name)[:60]!r}). Export it again.")
    return str(path)


def _open_level(folder: Path, array: Any, name: str, axes: str, max_pixels: int | None, *, finest: bool) -> da.Array:
    """Check one level and make it lazy."""
    shape = dict(zip(axes, array.shape, strict=True))
    if not {"y", "x"} <= set(shape) or any(shape.get(axis, 1) > 1 for axis in axes if axis not in "cyx"):
        raise ImageError(f"{folder}: holds several pictures (axes {axes}, shape {array.shape}). Save each on its own.")
    if shape.get("c", 1) not in (3, 4):
        few = shape.get("c", 1) < 3
        raise ImageError(f"{folder}: {GREY}" if few else f"{folder}: has {shape['c']} channels. Save it as 8-bit RGB.")
    if array.dtype.kind not in "uf":
        raise ImageError(f"{folder}: holds values of type {array.dtype}. Save it as 8-bit RGB.")
    size = (int(shape["y"]), int(shape["x"]))
    limit = max_pixels or MAX_PIXELS_TILED
    if finest or not 0 < size[0] * size[1] <= limit:  # coarse levels may be tiny
        check_size(folder, *size, limit)
    pieces = dict(zip(axes, getattr(array, "shards", None) or array.chunks, strict=True))
    level = _Level(str(folder), name, axes)
    picture = lazy_picture(partial(_read, level), size, (int(pieces["y"]), int(pieces["x"])))
    largest = max(math.prod(map(int, pieces.values())), picture.chunksize[0] * picture.chunksize[1])
    if largest > MAX_PIXELS:
        sides = " x ".join(map(str, pieces.values()))
        raise ImageError(
            f"{folder}: has chunks or shards of {sides} values, each to be decoded whole; {MAX_PIXELS:,} at once are "
            "the limit. Save it in smaller ones."
        )
    return picture


def _read(level: _Level, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.uint8]:
    """Read a region of a level."""
    import zarr

    region = {"y": slice(y0, y1), "x": slice(x0, x1), "c": slice(None)}
    try:
        array: Any = zarr.open_array(level.folder, path=level.array, mode="r")
        values = np.asarray(array[tuple(region.get(axis, 0) for axis in level.axes)])
    except Exception as error:  # as in open_omezarr
        raise ImageError(
            f"{level.folder}: is damaged or was not copied to its end ({describe(error)}). Copy or export it again."
        ) from error
    left = [axis for axis in level.axes if axis in region]
    pixels = to_uint8(np.transpose(values, [left.index(axis) for axis in "yxc"]), level.folder)
    return on_white(pixels) if pixels.shape[2] == 4 else np.ascontiguousarray(pixels)


def _pixel_size(scales: Mapping[str, Any], finest: Mapping[str, Any]) -> float | None:
    """Micrometres a pixel of the finest level: its own scale times that of the whole picture."""
    factors = [1.0] * len(scales["axes"])
    for part in (finest, scales):
        for transform in part.get("coordinateTransformations", ()):
            values: Sequence[float] = transform.get("scale", ()) if transform.get("type") == "scale" else ()
            factors = [f * float(v) for f, v in zip(factors, values, strict=True)] if values else factors
    sizes = []
    for axis, factor in zip(scales["axes"], factors, strict=True):
        if _name(axis) in "yx":
            unit = str(axis.get("unit", "")) if isinstance(axis, Mapping) else ""
            sizes.append(factor * _UM.get(unit.lower(), float("nan")))
    y, x = sizes
    return x if x > 0 and abs(x - y) <= 0.02 * x else None
