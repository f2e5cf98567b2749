"""A smear image: its header read at once, its pixels when they are asked for, always as 8-bit RGB.

Other pixels than 8-bit RGB are converted by the rules of `napari_dinobloom.io.pixels`.
The orientation tag of a camera is not applied, so that coordinates are those of the stored pixels, as in napari.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import ImageError
from napari_dinobloom.io import omezarr, raster, slides, tiff
from napari_dinobloom.io.atomic import replacing
from napari_dinobloom.io.fields import stem_of
from napari_dinobloom.io.pixels import check_pixels

if TYPE_CHECKING:
    import dask.array as da

PIXEL_SIZE_RANGE_UM = (0.02, 2.0)
"""Pixel sizes outside cannot come from a smear under a microscope: they are print resolutions or placeholders."""


@dataclass(frozen=True, slots=True)
class Smear:
    """A stained smear image.

    Attributes
    ----------
    image : dask.array.Array
        (Y, X, 3) uint8, lazy; computing it raises `ImageError` if the file turns out to be damaged.
    pixel_size_um : float or None
        Micrometres a pixel, if the file says so in a trustworthy way.
    name : str
        File name without its ending.
    path : Path or None
        Where it was read from; None for a picture in memory.
    coarser : tuple of dask.array.Array
        (Y, X, 3) uint8, lazy: smaller versions that the file holds, the finest first; none of a plain picture.
    """

    image: da.Array
    pixel_size_um: float | None
    name: str
    path: Path | None
    coarser: tuple[da.Array, ...] = ()

    @property
    def levels(self) -> tuple[da.Array, ...]:
        """`image` and its smaller versions, the finest first."""
        return (self.image, *self.coarser)

    def load(self) -> NDArray[np.uint8]:
        """Read all pixels and check that they can be a stained smear.

        Returns
        -------
        ndarray
            (Y, X, 3) uint8.

        Raises
        ------
        ImageError
            If the file is damaged, or the picture is black, or has contrast but no colour at all.
        """
        pixels: NDArray[np.uint8] = np.asarray(self.image)
        check_pixels(pixels, str(self.path or self.name))
        return pixels


def read_smear(path: str | Path, *, max_pixels: int | None = None) -> Smear:
    """Open a picture or a whole slide; only its header is read.

    Parameters
    ----------
    path : str or Path
        PNG, JPEG, BMP, TIFF, OME-TIFF, an OME-Zarr folder (0.4, 0.5), or a slide of a scanner that OpenSlide reads
        (`napari_dinobloom.io.slides.ENDINGS`; extra ``wsi``). Of several series the first is taken.
    max_pixels : int, optional
        Largest number of pixels that is accepted; by default `MAX_PIXELS`, for what is stored in tiles or strips
        `MAX_PIXELS_TILED`.

    Returns
    -------
    Smear
        ``image`` is (Y, X, 3) uint8, ``levels`` are all levels of a pyramid; `napari_dinobloom.io.pixels` says how
        other pixels are converted.

    Raises
    ------
    ImageError
        If the file is missing, empty, damaged in its header, no picture, greyscale, too large, or needs OpenSlide,
        which is not there. The message names the file and the remedy.
    """
    path = Path(path)
    (image, *coarser), pixel_size_um = _open(path, max_pixels)
    if pixel_size_um is not None and not PIXEL_SIZE_RANGE_UM[0] <= pixel_size_um <= PIXEL_SIZE_RANGE_UM[1]:
        pixel_size_um = None
    return Smear(image, pixel_size_um, stem_of(path.name), path, tuple(coarser))


def _open(path: Path, max_pixels: int | None) -> tuple[tuple[da.Array, ...], float | None]:
    """Levels and pixel size of a picture, by what its place, name or first bytes tell of its format."""
    if omezarr.is_picture(path):
        return omezarr.open_omezarr(path, max_pixels)
    start = _first_bytes(path)
    if path.suffix.lower() in slides.ENDINGS:
        return slides.open_slide(path, max_pixels)
    if start[:4] in tiff.SIGNATURES:
        return tiff.open_tiff(path, max_pixels)
    image, pixel_size_um = raster.open_raster(path, max_pixels)
    return (image,), pixel_size_um


def read_pixels(path: str | Path) -> NDArray[np.uint8]:
    """Decode a whole picture at once, (Y, X, 3) uint8: what ``read_smear(path).load()`` gives, sooner for small files.

    Raises
    ------
    ImageError
        As `read_smear` and `Smear.load`.
    """
    path = Path(path)
    if _first_bytes(path)[:4] in tiff.SIGNATURES:
        return read_smear(path).load()
    pixels = raster.decode(str(path))
    check_pixels(pixels, str(path))
    return pixels


def check_smear(path: str | Path) -> None:
    """Decode a whole picture and raise `ImageError` if it is damaged, black or without colour."""
    read_smear(path).load()


def _first_bytes(path: Path) -> bytes:
    """Return the first 16 bytes of a file that exists, may be read and is not empty."""
    if path.is_dir():
        raise ImageError(f"{path}: is a folder, not a picture. Name the pictures in it, or the folder as an input.")
    if not path.exists():
        raise ImageError(f"{path}: there is no such file. Check the name and that the disk is connected.")
    if not path.is_file():
        raise ImageError(f"{path}: is not a regular file. Give a PNG, JPEG, TIFF or BMP picture.")
    try:
        with path.open("rb") as handle:
            start = handle.read(16)
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror or error}). Check who may read it.") from error
    if not start:
        raise ImageError(f"{path}: is empty (0 bytes). Copy the picture again from its source.")
    return start


def write_picture(path: Path, pixels: NDArray[np.uint8], pixel_size_um: float | None = None) -> None:
    """Write a picture as PNG without loss, whole or not at all; the pixel size goes along as dots per inch.

    Parameters
    ----------
    path : Path
        File ending in ``.png``.
    pixels : ndarray
        (Y, X, 3) uint8.
    pixel_size_um : float, optional
        Micrometres a pixel.

    Raises
    ------
    ImageError
        If `pixels` are no 8-bit RGB.
    OSError
        If the file cannot be written.
    """
    from PIL import Image

    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ImageError(f"{path.name}: expected pixels (Y, X, 3) uint8, got {pixels.shape} {pixels.dtype}.")
    dots = {"dpi": (25_400 / pixel_size_um,) * 2} if pixel_size_um else {}
    with replacing(path) as part:
        Image.fromarray(pixels).save(part, format="PNG", **dots)
