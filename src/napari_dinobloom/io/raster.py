"""PNG, JPEG and BMP pictures (and TIFFs whose compression only Pillow knows), decoded in one piece on demand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import ImageError
from napari_dinobloom.io.pixels import GREY, MAX_PIXELS, check_size

if TYPE_CHECKING:
    import dask.array as da
    from PIL.ImageFile import ImageFile

_GREY_MODES = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
_COLOUR_MODES = {"RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "CMYK", "YCbCr"}


def open_raster(path: Path, max_pixels: int | None) -> tuple[da.Array, float | None]:
    """Read the header; return the lazy (Y, X, 3) uint8 picture and the pixel size in micrometres, if given."""
    with _open(path) as picture:
        width, height = picture.size
        check_size(path, height, width, max_pixels or MAX_PIXELS)
        _check_mode(path, picture.mode)
        pixel_size_um = _pixel_size(picture.info)
    return lazy_raster(path, height, width), pixel_size_um


def lazy_raster(path: Path, height: int, width: int) -> da.Array:
    """Return a lazy (Y, X, 3) uint8 array of one chunk that Pillow decodes."""
    import dask.array as da
    from dask.delayed import delayed

    block = delayed(decode, pure=False)(str(path), (height, width))
    image: da.Array = da.from_delayed(block, shape=(height, width, 3), dtype=np.uint8)
    return image


def decode(path: str, shape: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Decode a whole picture to (Y, X, 3) uint8; a truncated or damaged one is an `ImageError`, never half grey.

    With `shape`, which it had when it was opened, a picture of another is refused; without, one too large or small.
    """
    from PIL import ImageFile

    if ImageFile.LOAD_TRUNCATED_IMAGES:  # another library asked Pillow to fill what is missing with grey
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    with _open(Path(path)) as picture:
        _check_mode(Path(path), picture.mode)
        if shape is None:
            check_size(Path(path), picture.height, picture.width, MAX_PIXELS)
        try:
            picture.load()
        except Exception as error:  # Pillow's decoders raise nearly anything for damaged data
            raise ImageError(_damaged(path, error)) from error
        colour = _to_rgb(picture)
    pixels = np.asarray(colour, dtype=np.uint8)
    if shape is not None and pixels.shape != (*shape, 3):
        raise ImageError(f"{path}: has changed since it was opened (now {pixels.shape[1]} x {pixels.shape[0]} pixels).")
    if picture.format in {"JPEG", "MPO"} and _is_filled(pixels):
        raise ImageError(_damaged(path, "its lower part is missing"))
    return pixels


def _is_filled(pixels: NDArray[np.uint8]) -> bool:
    """Whether the lowest blocks are the exact grey 128 that libjpeg puts where data end before their end mark."""
    return bool((pixels[-8:] == 128).all()) and not bool((pixels == 128).all())


def _to_rgb(picture: ImageFile) -> Any:
    """Convert a loaded picture to mode RGB, with transparent parts on white."""
    from PIL import Image

    transparent = picture.mode in {"RGBA", "RGBa", "PA"} or "transparency" in picture.info
    if not transparent:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    rgba = picture.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _open(path: Path) -> ImageFile:
    """Open the header with the plugin that the first bytes call for.

    The plugin is called directly because ``Image.open`` holds one limit on pixels for the whole process; ours is
    checked by the caller before anything is decoded.
    """
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

    plugins: dict[bytes, Any] = {
        b"\x89PNG": PngImagePlugin.PngImageFile,
        b"\xff\xd8": JpegImagePlugin.JpegImageFile,
        b"BM": BmpImagePlugin.BmpImageFile,
        b"II": TiffImagePlugin.TiffImageFile,
        b"MM": TiffImagePlugin.TiffImageFile,
    }
    try:
        with path.open("rb") as handle:
            start = handle.read(4)
        plugin = next((found for signature, found in plugins.items() if start.startswith(signature)), None)
        if plugin is None:
            raise ImageError(
                f"{path}: is not a PNG, JPEG, TIFF or BMP picture (it begins with {start!r}). "
                "Save it in one of these formats."
            )
        opened: ImageFile = plugin(str(path))
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{path}: is gone. Put it back, or connect its disk.") from error
    except Exception as error:  # a damaged header makes the plugins raise nearly anything
        raise ImageError(_damaged(str(path), error)) from error
    return opened


def _check_mode(path: Path, mode: str) -> None:
    """Refuse modes that carry no colour, and those that Pillow cannot turn into RGB."""
    if mode in _GREY_MODES:
        raise ImageError(f"{path}: {GREY}")
    if mode not in _COLOUR_MODES:
        raise ImageError(f"{path}: holds pixels of the kind {mode!r}. Save it as 8-bit RGB.")


def _damaged(path: str, reason: object) -> str:
    """Message for a file whose data cannot be decoded."""
    return f"{path}: is damaged or was not copied to its end ({describe(reason)}). Copy or export the picture again."


def describe(error: object) -> str:
    """Text of an error, or its type where it has none."""
    return str(error) or type(error).__name__


def _pixel_size(info: dict[Any, Any]) -> float | None:
    """Micrometres a pixel from the dots per inch of the header, if both directions agree."""
    try:
        x, y = (float(value) for value in info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not (x > 0 and abs(x - y) <= 0.02 * x):
        return None
    return 25_400.0 / x
