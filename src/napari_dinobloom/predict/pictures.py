"""Labelled pictures, one cell each: found in a table or in class folders, cropped by a policy, embedded.

In a ``context`` crop a picture goes the way of a smear: all pictures together are one slide with one scale, each is
segmented, and the cell nearest to its middle is cropped. Where no cell lies in the central half (platelets, mostly:
segmentation leaves them out) the crop is centred on the picture, and counted.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.errors import AtlasError, ImageError
from napari_dinobloom.predict.thumbnails import Thumbnails, encoded
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.cells.crop import CropPolicy
    from napari_dinobloom.cells.scale import Scale
    from napari_dinobloom.encoders.encoder import Encoder

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
CHUNK = 256
"""Pictures that are embedded in one call; their crops and those of the next call are in memory."""

Image = NDArray[np.uint8]
A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """A picture of one cell and its class.

    Attributes
    ----------
    path : Path
        The file.
    label : str
        Class.
    held_out : bool
        Whether the encoder never saw the picture in training.
    """

    path: Path
    label: str
    held_out: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedPictures:
    """Embeddings of labelled pictures, without pictures whose bytes stand there twice.

    Attributes
    ----------
    X : (n, D) array of float32
        Embeddings.
    y : (n,) array of str
        Classes.
    source : (n,) array of str
        First 16 hexadecimal digits of the sha256 of each file.
    held_out : (n,) array of bool
        Cells the encoder never saw in training.
    centred : (n,) array of bool
        Crops centred on the picture because no cell was found in its middle; all False for ``published`` crops.
    scale : Scale or None
        Scale of the pictures; None for ``published`` crops.
    thumbnails : Thumbnails or None
        Small pictures of the crops, where they were asked for.
    """

    X: NDArray[np.float32]
    y: NDArray[np.str_]
    source: NDArray[np.str_]
    held_out: NDArray[np.bool_]
    centred: NDArray[np.bool_]
    scale: Scale | None
    thumbnails: Thumbnails | None = None


def read_labelled(
    path: str | Path, *, split: str | None = None, held_out: bool | Callable[[str], bool] = True
) -> list[LabelledPicture]:
    """Find labelled pictures.

    Parameters
    ----------
    path : str or Path
        A CSV with the columns ``file`` (relative to the CSV's folder) and ``cell_type``, and ``split`` if `split` is
        given; or a folder with one folder of pictures for each class.
    split : str, optional
        Take only rows with this value of ``split``.
    held_out : bool or function
        Whether the encoder never saw the pictures in training: one answer for all, or a function of the CSV's
        ``file`` (of the path below the folder), such as `encoders.splits.held_out` for the starter encoder.

    Returns
    -------
    list of LabelledPicture
        In the order of the CSV, or of class and file name.

    Raises
    ------
    AtlasError
        If nothing is found, a column or a file is missing, or a class is empty; the message names file and row.
    """
    path = Path(path)
    if path.is_dir():
        if split is not None:
            raise AtlasError(f"{path}: a folder of class folders has no splits; give a CSV or leave the split out")
        rows = [
            (file.relative_to(path).as_posix(), folder.name)
            for folder in sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
            for file in sorted(folder.rglob("*"))
            if file.suffix.lower() in SUFFIXES and file.is_file()
        ]
        base = path
    else:
        rows, base = _rows_of_table(path, split), path.parent
    if not rows:
        raise AtlasError(f"{path}: no labelled picture found; give a CSV or a folder with one folder for each class")
    rule = held_out if callable(held_out) else lambda _: held_out
    return [LabelledPicture(base / file, label, bool(rule(file))) for file, label in rows]


def _rows_of_table(path: Path, split: str | None) -> list[tuple[str, str]]:
    """File and class of the rows of a CSV."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            table = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AtlasError(f"{path}: cannot be read as a CSV in UTF-8 ({error})") from error
    needed = ["file", "cell_type"] + ([] if split is None else ["split"])
    missing = [name for name in needed if table and name not in table[0]]
    if missing:
        raise AtlasError(f"{path}: the column {missing[0]!r} is missing; it has {', '.join(table[0])}")
    rows = []
    for number, row in enumerate(table, start=2):
        if split is not None and row["split"] != split:
            continue
        if not row["file"] or not row["cell_type"]:
            raise AtlasError(f"{path}: row {number} has no file or no cell_type; complete or remove it")
        if not (path.parent / row["file"]).is_file():
            raise AtlasError(f"{path}: row {number} names {row['file']!r}, which does not exist beside the CSV")
        rows.append((row["file"], row["cell_type"]))
    if table and not rows:
        raise AtlasError(f"{path}: no row has the split {split!r}")
    return rows


def iter_embed_pictures(
    pictures: Sequence[LabelledPicture],
    encoder: Encoder,
    policy: CropPolicy,
    *,
    workers: int = 2,
    thumbnails: bool = False,
) -> Steps[EmbeddedPictures]:
    """Crop and embed labelled pictures, yielding `Progress`.

    Parameters
    ----------
    pictures : sequence of LabelledPicture
        At least one.
    encoder : Encoder
        What embeds.
    policy : CropPolicy
        How pictures are cropped.
    workers : int
        Threads that read and segment.
    thumbnails : bool
        Whether to keep small pictures of the crops.

    Returns
    -------
    EmbeddedPictures
        In the order of `pictures`; of files with equal bytes the first.

    Raises
    ------
    AtlasError
        If there is no picture, files cannot be read (all are named before anything is embedded), or files with equal
        bytes have two classes.
    """
    total = 2 * len(pictures)
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        looks = []
        for some in _chunks(pictures):
            looks += list(pool.map(lambda p: _look(p.path, policy), some))
            yield Progress(len(looks), total, "reading pictures")
        kept = _distinct(pictures, looks)
        scale = _pooled([looks[i].scale for i in kept])
        embeddings, centred, files = [], [], []
        for crops in _ahead(pool, lambda i: _crop(pictures[i].path, policy, scale), _chunks(kept)):
            embeddings.append(encoder.embed(np.stack([picture for picture, _ in crops])))
            centred += [flag for _, flag in crops]
            files += encoded(picture for picture, _ in crops) if thumbnails else []
            yield Progress(len(pictures) + len(centred), total, "segmenting and embedding")
    finally:  # whoever stops early does not wait for the pictures that were next
        pool.shutdown(cancel_futures=True)
    return EmbeddedPictures(
        X=np.concatenate(embeddings).astype(np.float32),
        y=np.array([pictures[i].label for i in kept], dtype=str),
        source=np.array([looks[i].source for i in kept], dtype=str),
        held_out=np.array([pictures[i].held_out for i in kept], dtype=bool),
        centred=np.array(centred, dtype=bool),
        scale=scale,
        thumbnails=Thumbnails.pack(files) if thumbnails else None,
    )


def iter_embed_files(
    files: Sequence[Path], encoder: Encoder, policy: CropPolicy, *, workers: int = 2
) -> Steps[EmbeddedPictures]:
    """Embed pictures without a class, each file once, as `iter_embed_pictures` does; none is left out.

    Returns
    -------
    EmbeddedPictures
        In the order of `files`; those with equal bytes have one source and one embedding. Classes are empty.
    """
    found = yield from iter_embed_pictures(
        [LabelledPicture(file, "") for file in files], encoder, policy, workers=workers
    )
    row_of = {source: row for row, source in enumerate(found.source.tolist())}
    rows = [row_of[_source(file)] for file in files]
    return EmbeddedPictures(
        X=found.X[rows],
        y=found.y[rows],
        source=found.source[rows],
        held_out=found.held_out[rows],
        centred=found.centred[rows],
        scale=found.scale,
    )


def _source(path: Path) -> str:
    """First 16 hexadecimal digits of the sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def iter_crop_pictures(pictures: Sequence[LabelledPicture], policy: CropPolicy, *, workers: int = 2) -> Steps[Image]:
    """Crop labelled pictures as `iter_embed_pictures` does, yielding `Progress`; none is left out.

    Parameters
    ----------
    pictures : sequence of LabelledPicture
        At least one; as many as fit into memory.
    policy : CropPolicy
        How pictures are cropped.
    workers : int
        Threads that read and segment.

    Returns
    -------
    numpy.ndarray
        (n, size, size, 3) uint8, in the order of `pictures`.

    Raises
    ------
    AtlasError
        As by `iter_embed_pictures`.
    """
    yield Progress(0, len(pictures), "reading pictures")
    with ThreadPoolExecutor(max(1, workers)) as pool:
        looks = list(pool.map(lambda p: _look(p.path, policy), pictures))
        scale = _pooled([looks[i].scale for i in _distinct(pictures, looks)])
        crops = []
        for crop, _ in pool.map(lambda p: _crop(p.path, policy, scale), pictures):
            crops.append(crop)
            yield Progress(len(crops), len(pictures), "cropping pictures")
    return np.stack(crops)


@dataclass(frozen=True, slots=True)
class _Look:
    """What a first look at a file tells: the hash of its bytes, its scale, or why it cannot be read."""

    source: str = ""
    scale: Scale | None = None
    problem: str = ""


def _look(path: Path, policy: CropPolicy) -> _Look:
    """Read a picture once, for its hash and, if crops need it, its scale."""
    from napari_dinobloom.cells.scale import Scale, estimate_scale
    from napari_dinobloom.io.smear import read_smear

    try:
        source = _source(path)
        smear = read_smear(path)
        image = smear.load()
    except (ImageError, OSError) as error:
        return _Look(problem=str(error))
    if policy.kind == "published":
        return _Look(source)
    if smear.pixel_size_um is not None:
        return _Look(source, Scale(smear.pixel_size_um, "file"))
    return _Look(source, estimate_scale(image))


def _distinct(pictures: Sequence[LabelledPicture], looks: Sequence[_Look]) -> list[int]:
    """Rows whose bytes were not seen in an earlier row."""
    broken = [look.problem for look in looks if look.problem]
    if broken:
        raise AtlasError(f"{len(broken)} of {len(looks)} pictures cannot be used: " + "; ".join(broken[:10]))
    if not pictures:
        raise AtlasError("There is no picture to embed")
    first: dict[str, int] = {}
    for row, look in enumerate(looks):
        other = first.setdefault(look.source, row)
        if pictures[other].label != pictures[row].label:
            raise AtlasError(
                f"{pictures[row].path} and {pictures[other].path} are the same picture, but their classes are "
                f"{pictures[row].label!r} and {pictures[other].label!r}: keep one of them"
            )
    return sorted(first.values())


def _pooled(scales: Iterable[Scale | None]) -> Scale | None:
    """One scale for all pictures; None where none is needed."""
    from napari_dinobloom.cells.scale import pool_scale

    known = [scale for scale in scales if scale is not None]
    return pool_scale(known) if known else None


def _crop(path: Path, policy: CropPolicy, scale: Scale | None) -> tuple[Image, bool]:
    """Crop of one picture, and whether it had to be centred on the picture."""
    from napari_dinobloom.cells.crop import crop, resize_picture
    from napari_dinobloom.cells.segment import segment
    from napari_dinobloom.io.smear import read_smear

    image = read_smear(path).load()
    if scale is None:
        return resize_picture(image, policy), False
    cells = segment(image, scale.pixel_size_um)
    row = central_cell(cells.table, image.shape[0], image.shape[1])
    centred = row is None
    box = pd.DataFrame({"y0": [0], "x0": [0], "y1": [image.shape[0]], "x1": [image.shape[1]]})
    table = box if row is None else cells.table.iloc[[row]]
    return crop(image, table, policy=policy, pixel_size_um=scale.pixel_size_um)[0], centred


def central_cell(table: pd.DataFrame, height: int, width: int) -> int | None:
    """Row of the cell whose box has its centre nearest to the picture's, if that lies in the central half, else None.

    Parameters
    ----------
    table : DataFrame
        Cells with their boxes ``y0 x0 y1 x1`` in pixels.
    height, width : int
        Size of the picture in pixels.
    """
    dy = (table["y0"] + table["y1"]).to_numpy(dtype=np.float64) / 2 - height / 2
    dx = (table["x0"] + table["x1"]).to_numpy(dtype=np.float64) / 2 - width / 2
    inside = (np.abs(dy) <= height / 4) & (np.abs(dx) <= width / 4)
    if not inside.any():
        return None
    return int(np.argmin(np.where(inside, np.hypot(dy, dx), np.inf)))


def counts(pictures: EmbeddedPictures) -> dict[str, dict[str, int]]:
    """Number of cells, of held-out ones and of crops centred on the picture, for each class."""
    n, held = Counter(pictures.y.tolist()), Counter(pictures.y[pictures.held_out].tolist())
    centred = Counter(pictures.y[pictures.centred].tolist())
    return {name: {"n": n[name], "held_out": held[name], "centred": centred[name]} for name in sorted(n)}


def _ahead(pool: Executor, work: Callable[[A], B], parts: Iterable[Sequence[A]]) -> Iterator[list[B]]:
    """Results of each part in its order; while one is used, the next is under way."""
    waiting: deque[Iterator[B]] = deque()
    for part in parts:
        waiting.append(pool.map(work, part))
        if len(waiting) > 1:
            yield list(waiting.popleft())
    yield from map(list, waiting)


def _chunks(items: Sequence[A]) -> Iterator[Sequence[A]]:
    """Consecutive parts of at most `CHUNK` items."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
