"""Label pictures: every pixel says which cell, or which part of a cell, it belongs to.

Three kinds are told apart by their values. *Cells*: each value is one cell. *Mask*: one value, or true and false; each
connected piece is a cell. *Parts*: two values, of which the higher (nuclei) lies inside the lower (cytoplasm), as 1 and
2 in BCCD and SSLSeg; each connected piece is a cell, its part of the higher value the nucleus.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.annotations.marks import MAX_ENTRIES, Marks
from napari_dinobloom.io.pixels import MAX_PIXELS
from napari_dinobloom.io.raster import describe

ENDINGS = (".png", ".tif", ".tiff", ".npy")

SPECK_PX = 9
"""Pieces of a mask with fewer pixels are slips of the pen."""

ENCLOSED = 0.5
"""Share of the pixels around the higher value that belong to the lower one if these are nuclei in their cytoplasm.

At least 0.76 in the 764 masks of BCCD and SSLSeg; two cells that lie side by side stay far below.
"""

Picture = NDArray[np.generic]


def read_picture(path: Path, size: tuple[int, int]) -> Marks:
    """Read a label picture: PNG, TIFF, or an array that NumPy saved.

    Parameters
    ----------
    path : Path
        Greyscale or indexed, 1 to 32 bits; TIFF also floating point with whole numbers. Three equal channels count as
        one.
    size : (int, int)
        Height and width of the image in pixels.

    Returns
    -------
    Marks
        With `labels`, numbered 1, 2, ...

    Raises
    ------
    InputError
        If the file is damaged, of another size, or no label picture.
    """
    readers = {".png": _read_png, ".npy": _read_npy}
    try:
        values = readers.get(path.suffix.lower(), _read_tiff)(path, size)
    except InputError:
        raise
    except Exception as error:  # damaged files make the decoders raise nearly anything
        raise InputError(f"{path}: is damaged or no label picture ({describe(error)}). Save it again.") from error
    return marks_of_labels(values, path.name)


def marks_of_labels(values: Picture, name: str) -> Marks:
    """Make cells of a label picture.

    Parameters
    ----------
    values : numpy.ndarray
        (Y, X) integers, booleans or whole floating-point numbers; 0 is background.
    name : str
        File or layer, for messages.

    Raises
    ------
    InputError
        If there are negative values, fractions, or more than `MAX_ENTRIES` cells.
    """
    whole = _whole_numbers(values, name)
    found = np.unique(whole)
    found = found[found > 0]
    if len(found) > MAX_ENTRIES:
        raise InputError(
            f"{name}: holds {len(found):,} values; at most {MAX_ENTRIES:,} cells fit. Is it a label picture?"
        )
    if len(found) == 2 and _encloses(whole, found[0], found[1]):
        return _pieces(whole > 0, whole == found[1], name)
    if len(found) < 2:
        return _pieces(whole > 0, None, name)
    return Marks(labels=np.where(whole > 0, np.searchsorted(found, whole) + 1, 0).astype(np.int32))


def _whole_numbers(values: Picture, name: str) -> NDArray[Any]:
    """Values as booleans or integers that are not negative."""
    if values.ndim != 2:
        raise InputError(f"{name}: labels have the shape {values.shape}; expected (Y, X), one value a pixel.")
    if values.dtype.kind == "f":
        numbers = np.asarray(values, np.float64)
        if not (
            np.isfinite(numbers).all() and (numbers == np.round(numbers)).all() and (np.abs(numbers) < 2**31).all()
        ):
            raise InputError(f"{name}: holds fractions, so it is no label picture. Save whole numbers, 0 for no cell.")
        values = numbers.astype(np.int64)
    if values.dtype.kind not in "bui":
        raise InputError(f"{name}: holds values of type {values.dtype}. Save whole numbers, 0 for no cell.")
    if values.dtype.kind == "i" and values.size and values.min() < 0:
        raise InputError(f"{name}: holds negative values. Save whole numbers, 0 for no cell.")
    return values


def _encloses(whole: NDArray[Any], outer: int, inner: int) -> bool:
    """Whether most pixels around the value `inner` have the value `outer`."""
    from scipy import ndimage as ndi

    core = whole == inner
    around = ndi.binary_dilation(core) & ~core
    return bool(np.count_nonzero(whole[around] == outer) > ENCLOSED * np.count_nonzero(around))


def _pieces(mask: NDArray[np.bool_], core: NDArray[np.bool_] | None, name: str) -> Marks:
    """Each connected piece (also by corners) is a cell; specks are left out and named."""
    from scipy import ndimage as ndi

    labels, count = ndi.label(mask, np.ones((3, 3), bool), output=np.int32)
    kept = np.bincount(labels.ravel(), minlength=count + 1) >= SPECK_PX
    kept[0] = False
    if int(kept.sum()) > MAX_ENTRIES:
        raise InputError(f"{name}: falls into {int(kept.sum()):,} pieces; is it a label picture?")
    specks = count - int(kept.sum())
    number = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    labels = number[labels]
    why = (f"{name}: {specks} piece(s) of fewer than {SPECK_PX} pixels are no cells and were left out.",)
    nuclei = None if core is None else np.where(core, labels, 0).astype(np.int32)
    return Marks(labels=labels, nuclei=nuclei, problems=why if specks else ())


def _check(path: Path, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    """Refuse, before it is decoded, a picture that is not as large as its image."""
    if tuple(shape) != tuple(size):
        measured = " x ".join(str(n) for n in reversed(shape))
        raise InputError(
            f"{path}: has {measured} pixels, its image {size[1]} x {size[0]}. Save the labels at the size of the image."
        )
    if shape[0] * shape[1] > MAX_PIXELS:
        raise InputError(f"{path}: has more than {MAX_PIXELS:,} pixels. Cut image and labels into smaller fields.")


def _one_channel(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    """(Y, X) of a picture whose channels are equal."""
    if values.ndim == 3 and values.shape[2] in (3, 4) and (values[..., :3] == values[..., :1]).all():
        return values[..., 0]
    if values.ndim != 2:
        raise InputError(f"{path}: is a colour picture. Save labels with one value a pixel (greyscale or indexed).")
    return values


def _read_png(path: Path, size: tuple[int, int]) -> Picture:
    from PIL import PngImagePlugin

    with PngImagePlugin.PngImageFile(str(path)) as picture:
        _check(path, (picture.height, picture.width), size)
        picture.load()
        return _one_channel(path, np.asarray(picture))


def _read_tiff(path: Path, size: tuple[int, int]) -> Picture:
    import tifffile

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        shape = tuple(n for n in series.shape if n != 1)
        _check(path, shape[:2], size)
        if len(shape) > 2 and shape[2:] not in ((3,), (4,)):
            raise InputError(f"{path}: is a stack of the shape {shape}. Save one plane of labels.")
        return _one_channel(path, series.asarray().reshape(shape))


def _read_npy(path: Path, size: tuple[int, int]) -> Picture:
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.ndim != 2:
        raise InputError(f"{path}: labels have the shape {values.shape}; expected (Y, X), one value a pixel.")
    _check(path, values.shape, size)
    return np.asarray(values)
