"""How pixels of any kind become 8-bit RGB, and which pixels cannot be a stained smear.

The rules, the same for every picture and never by a picture's own brightest pixel:

- 16 and 32-bit integers keep their highest 8 bits (``value >> 8``), counted from the bits that the file declares
  (TIFF ``MaxSampleValue``, OME ``SignificantBits``), else from the full width of the type;
- floating point must lie in 0..1 and is multiplied by 255;
- RGBA is laid on white; a palette is looked up; CMYK becomes RGB by ``255 - min(255, c + k - c k / 255)``;
- greyscale is refused: the classes of white cells differ by the colour of the stain.

"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import ImageError

MAX_PIXELS = 500_000_000
"""Largest picture that is decoded in one piece (1.5 GB of RGB): a small file may claim any size."""

MAX_PIXELS_TILED = 20_000_000_000
"""Largest tiled TIFF, which is read tile by tile."""

MIN_SIDE = 8
"""A picture with fewer pixels a side cannot show a cell."""

_DARK = 16

GREY = (
    "has no colour (greyscale). White cells are told apart by the colour of the stain; "
    "give the original colour picture."
)


def check_size(path: Path, height: int, width: int, limit: int) -> None:
    """Refuse pictures that are too small to show a cell or larger than `limit` pixels."""
    if min(height, width) < MIN_SIDE:
        raise ImageError(
            f"{path}: is {width} x {height} pixels; at least {MIN_SIDE} x {MIN_SIDE} are needed to show a cell."
        )
    if height * width > limit:
        raise ImageError(
            f"{path}: claims {width} x {height} pixels, more than the limit of {limit:,}. If the picture is genuine, "
            "save it as a tiled TIFF, cut it into smaller fields, or raise the limit with max_pixels."
        )


def check_pixels(pixels: NDArray[np.uint8], where: str) -> None:
    """Refuse pictures that cannot be a stained smear: black, or with contrast but without any colour.

    Parameters
    ----------
    pixels : ndarray
        (Y, X, 3) uint8.
    where : str
        File or layer, for the message.

    Raises
    ------
    ImageError
        An empty white or evenly coloured field is not refused.
    """
    brightest = int(pixels.max(initial=0))
    if brightest < _DARK:
        raise ImageError(
            f"{where}: is black (brightest value {brightest} of 255). If it holds 10, 12 or 14-bit camera values in "
            "16 bits, save it as 8-bit RGB (in Fiji: Image > Type > RGB Color)."
        )
    red = pixels[..., 0]
    if brightest - int(pixels.min(initial=255)) <= _DARK:
        return
    if np.array_equal(red, pixels[..., 1]) and np.array_equal(red, pixels[..., 2]):
        raise ImageError(f"{where}: {GREY}")


def to_uint8(values: NDArray[np.generic], where: str, bits: int | None = None) -> NDArray[np.uint8]:
    """Convert pixel values to 8 bits by the rule of this module.

    Parameters
    ----------
    values : ndarray
        Unsigned integers or floating point, any shape.
    where : str
        File, for the message.
    bits : int, optional
        Bits in use, where the file declares fewer than the type holds.

    Raises
    ------
    ImageError
        For signed integers, complex numbers, and floating point outside 0..1.
    """
    if values.dtype == np.uint8:
        return values.view(np.uint8)
    if values.dtype.kind == "u":
        used = bits or values.dtype.itemsize * 8
        shifted = values >> np.asarray(max(used - 8, 0), dtype=values.dtype)
        highest: NDArray[np.uint8] = np.minimum(shifted, 255).astype(np.uint8)
        return highest
    if values.dtype.kind == "f":
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        if not (low >= -1e-3 and high <= 1 + 1e-3):  # also true of NaN
            raise ImageError(
                f"{where}: floating point values reach from {low:.4g} to {high:.4g}; expected 0 to 1. "
                "Save the picture as 8-bit RGB (in Fiji: Image > Type > RGB Color)."
            )
        return np.round(np.clip(values.astype(np.float32), 0, 1) * 255).astype(np.uint8)
    raise ImageError(
        f"{where}: holds values of type {values.dtype}, which has no rule for colours. Save it as 8-bit RGB."
    )


def on_white(rgba: NDArray[np.uint8], *, premultiplied: bool = False) -> NDArray[np.uint8]:
    """Lay (..., 4) uint8 RGBA on white; returns (..., 3) uint8."""
    alpha = rgba[..., 3:].astype(np.uint32)
    colour = rgba[..., :3].astype(np.uint32)
    weighted = np.minimum(colour, alpha) * 255 if premultiplied else colour * alpha
    return ((weighted + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def cmyk_to_rgb(cmyk: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert (..., 4) uint8 CMYK (255 = full ink) to (..., 3) uint8 RGB without a colour profile."""
    ink = cmyk[..., :3].astype(np.uint32)
    black = cmyk[..., 3:].astype(np.uint32)
    return (255 - np.minimum(255, ink + black - (ink * black + 127) // 255)).astype(np.uint8)
