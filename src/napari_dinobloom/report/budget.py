"""How many bytes the pictures of a report may take, so that one file stays small enough to send and to open."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

MAX_WIDTH = 900
MIN_WIDTH = 160
QUALITY = 76


def jpeg_uri(picture: npt.NDArray[np.uint8], *, width: int, height: int, quality: int = QUALITY) -> str:
    """`picture` (Y, X, 3) as a JPEG of `width` x `height` pixels in a ``data:`` address."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture))
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    target = io.BytesIO()
    image.save(target, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(target.getvalue()).decode("ascii")


def mask_uri(mask: npt.NDArray[np.bool_], colour: str) -> str:
    """`mask` (Y, X) as a PNG of two colours, `colour` (``#rrggbb``) and transparent, in a ``data:`` address."""
    from PIL import Image

    image = Image.fromarray(mask.astype(np.uint8)).convert("P")
    image.putpalette([255, 255, 255, *bytes.fromhex(colour[1:])])
    target = io.BytesIO()
    image.save(target, "PNG", bits=1, transparency=0, optimize=True)
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode("ascii")


@dataclass(kw_only=True, slots=True)
class Budget:
    """Shares `bytes_left` out among `fields_left` pictures, learning how well they compress as it goes."""

    bytes_left: float
    """Bytes of text that the pictures still to come may take together."""
    fields_left: int
    """Pictures still to come."""
    bytes_per_pixel: float = field(default=0.2)
    """Running estimate for JPEG at `QUALITY` in base64; smears take 0.1 to 0.25."""

    def width_for(self, width: int, height: int) -> int:
        """Width in pixels for a field of `width` x `height` pixels; 0 when nothing readable fits any more."""
        share = self.bytes_left / max(self.fields_left, 1)
        fits = (share / self.bytes_per_pixel * width / max(height, 1)) ** 0.5 if share > 0 else 0.0
        wanted = min(width, MAX_WIDTH)
        return wanted if fits >= wanted else int(fits) if fits >= min(MIN_WIDTH, wanted) else 0

    def spend(self, size: int, pixels: int) -> None:
        """Book a picture of `pixels` pixels that took `size` bytes of text; 0 and 0 for a field without one."""
        self.bytes_left -= size
        self.fields_left -= 1
        if pixels:
            self.bytes_per_pixel += 0.2 * (size / pixels - self.bytes_per_pixel)
