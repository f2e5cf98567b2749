"""Shards of a store: pictures decoded, resized and encoded in threads, and written in their order.

Pillow lets other threads run while it decodes and resizes, and so does hashing, so threads do.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.crop import CropPolicy, crop, resize_picture
from napari_dinobloom.errors import ImageError, InputError
from napari_dinobloom.io.atomic import replacing
from napari_dinobloom.io.smear import read_pixels
from napari_dinobloom.progress import Progress
from napari_dinobloom.training.manifest import Row
from napari_dinobloom.training.store import BYTES, SIDE

CELLS_A_FIELD = 32
"""Room that a field which is cut into cells has in its shard."""

_ONE_FIELD = threading.Lock()


@dataclass(kw_only=True, slots=True, frozen=True)
class PrepareConfig:
    """How a store is made."""

    format: Literal["raw", "jpeg"] = "raw"
    """``raw``: 150,528 bytes a picture, read without decoding; ``jpeg``: about 9,000 bytes."""
    quality: int = 85
    """Of JPEGs, with colour at half resolution."""
    kernel: Literal["lanczos", "bicubic", "bilinear"] = "lanczos"
    """Pillow's filter; the reference resizes with Lanczos, and does not keep the aspect."""
    cut_fields: tuple[str, ...] = ()
    """Data sets whose pictures are fields, to be cut into cells by our segmentation: 25 um around each."""
    shard_bytes: int = 2_000_000_000
    """Most bytes of a shard."""

    def __post_init__(self) -> None:
        if self.format not in ("raw", "jpeg") or self.kernel not in ("lanczos", "bicubic", "bilinear"):
            raise InputError(
                f"format {self.format!r}, kernel {self.kernel!r}: use raw or jpeg, and lanczos or bicubic."
            )
        if not 1 <= self.quality <= 95:
            raise InputError(f"quality is {self.quality}; JPEG takes 1 to 95.")
        least = BYTES * (CELLS_A_FIELD if self.cut_fields else 1)
        if self.shard_bytes < least:
            raise InputError(f"shard_bytes is {self.shard_bytes:,}; one picture or field needs {least:,}.")


@dataclass(frozen=True, slots=True)
class Made:
    """What came of a row: its source's SHA-256, pictures as they are stored, and what was wrong."""

    sha256: str
    pictures: list[bytes]
    problem: str


def ranges(rows: Sequence[Row], config: PrepareConfig) -> Iterator[tuple[int, int]]:
    """Parts of the manifest that are a shard each."""
    room, start, used = config.shard_bytes // BYTES, 0, 0
    for number, row in enumerate(rows):
        needed = CELLS_A_FIELD if row.dataset in config.cut_fields else 1
        if used + needed > room:
            yield start, number
            start, used = number, 0
        used += needed
    yield start, len(rows)


def in_order(pool: ThreadPoolExecutor, rows: Sequence[Row], config: PrepareConfig, ahead: int) -> Iterator[Made]:
    """Make pictures in threads, some ahead of the one that is written."""
    waiting: deque[Future[Made]] = deque()
    for row in rows:
        waiting.append(pool.submit(make, row, config))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def make(row: Row, config: PrepareConfig) -> Made:
    """Read, resize and encode what one file holds."""
    try:
        pixels = read_pixels(row.path)
        digest = hashlib.sha256(row.path.read_bytes()).hexdigest()
        if row.dataset in config.cut_fields:
            pictures = _cut(pixels, config)
            return Made(
                digest, [encode(one, config) for one in pictures], "" if len(pictures) else "shows no whole white cell"
            )
        whole = resize_picture(pixels, CropPolicy(kind="published", size=SIDE, interpolation=config.kernel))
    except (ImageError, OSError) as error:
        return Made("", [], str(error).removeprefix(f"{row.path}: "))
    return Made(digest, [encode(whole, config)], "")


def _cut(pixels: NDArray[np.uint8], config: PrepareConfig) -> NDArray[np.uint8]:
    """Whole cells of a field, (n, 224, 224, 3) uint8; one field at a time, as the network takes all processors."""
    from napari_dinobloom.cells.segment import segment

    with _ONE_FIELD:
        table = segment(pixels).table
        whole = (table["quality"] != "debris") & ~table["touches_border"].astype(bool)  # the mirror would double a part
        return crop(pixels, table[whole], policy=CropPolicy(interpolation=config.kernel))


def encode(picture: NDArray[np.uint8], config: PrepareConfig) -> bytes:
    """Bytes of a picture as they are stored."""
    if config.format == "raw":
        return picture.tobytes()
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=config.quality)
    return out.getvalue()


def write_shard(
    path: Path, made: Iterator[Made], config: PrepareConfig, start: int, total: int
) -> Generator[Progress, None, dict[str, Any]]:
    """Write a shard whole or not at all; return what goes into its record."""
    digest, size = hashlib.sha256(), 0
    pictures: list[tuple[int, str, int, int]] = []
    problems: list[tuple[int, str]] = []
    with replacing(path) as part, part.open("wb") as out:
        for number, one in enumerate(made, start=start):
            if one.problem:
                problems.append((number, one.problem))
            for data in one.pictures:
                pictures.append((number, one.sha256, size, len(data)))
                out.write(data)
                digest.update(data)
                size += len(data)
            if size > config.shard_bytes:
                raise InputError(f"{path}: exceeds {config.shard_bytes:,} bytes, as its fields have more than "
                                 f"{CELLS_A_FIELD} cells each. Use the format jpeg.")  # fmt: skip
            if number % 64 == 0:
                yield Progress(number, total, path.stem, "prepare")
    return {"bytes": size, "sha256": digest.hexdigest(), "pictures": pictures, "problems": problems}
