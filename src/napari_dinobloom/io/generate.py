"""Generated smears with exact ground truth: the offline demo, docs pictures and property tests.

Every object adds absorbance to a field, as stain does in a real smear: red cells as biconcave discs, white cells of the
five main types with nucleus, cytoplasm and granules, platelets. The light behind is uneven, the picture blurred and
noisy. One seed gives one field, bit for bit.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.io.atomic import disk_errors, replacing, write_text
from napari_dinobloom.io.canvas import STAINS, Canvas
from napari_dinobloom.io.cell_types import CELL_TYPES
from napari_dinobloom.io.painting import add_platelets, add_red_cells, add_white_cells, photograph
from napari_dinobloom.progress import Progress, Steps, drain

VERSION = 1

COMPOSITION: Mapping[str, float] = {
    "neutrophil_segmented": 0.50,
    "lymphocyte": 0.25,
    "monocyte": 0.11,
    "eosinophil": 0.09,
    "basophil": 0.05,
}
"""Share of each type; rare ones are drawn more often than in blood, so that a small demo shows all five."""


@dataclass(frozen=True, slots=True)
class GeneratedSmear:
    """One generated field and its truth.

    Attributes
    ----------
    image : numpy.ndarray
        (Y, X, 3) uint8.
    labels : numpy.ndarray
        (Y, X) int32 whole white cells, 1 to n.
    nuclei : numpy.ndarray
        (Y, X) int32 their nuclei, same numbers.
    classes : list of str
        Type of cells 1 to n.
    table : pandas.DataFrame
        One row a cell: label, class, box, centre, areas, pixel size.
    pixel_size_um : float
        Micrometres per pixel.
    stain : str
        Key of `canvas.STAINS`.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    nuclei: NDArray[np.int32]
    classes: list[str]
    table: pd.DataFrame
    pixel_size_um: float
    stain: str


def generate_smear(
    seed: int,
    *,
    height: int = 480,
    width: int = 640,
    n_white: int = 5,
    pixel_size_um: float = 0.1,
    stain: str | None = None,
    touching: float = 0.3,
    crowding: float = 0.42,
    composition: Mapping[str, float] = COMPOSITION,
) -> GeneratedSmear:
    """Generate one smear field with exact truth.

    Parameters
    ----------
    seed : int
        Same seed and options, same field.
    height, width : int
        Size in pixels.
    n_white : int
        White cells wanted; fewer where no more fit.
    pixel_size_um : float
        Micrometres per pixel, 0.03 to 1.
    stain : str, optional
        Key of `canvas.STAINS`; default: chosen by the seed.
    touching : float
        Share of white cells placed against another one, 0 to 1.
    crowding : float
        Share of the free area that red cells cover, 0 to 0.8.
    composition : mapping of str to float
        Share of each type of `CELL_TYPES`.

    Returns
    -------
    GeneratedSmear
        Picture, labels, classes, table.

    Raises
    ------
    ValueError
        If a value lies outside its range or a name is not known.
    """
    _check(height, width, n_white, pixel_size_um, stain, composition)
    rng = np.random.default_rng(seed)
    name = stain or sorted(STAINS)[int(rng.integers(len(STAINS)))]
    canvas = Canvas(height, width, pixel_size_um, STAINS[name], rng)
    classes = add_white_cells(canvas, n_white, touching, composition)
    add_red_cells(canvas, crowding)
    add_platelets(canvas)
    present = np.flatnonzero(np.bincount(canvas.labels.ravel(), minlength=len(classes) + 1)[1:])
    number = np.zeros(len(classes) + 1, np.int32)
    number[present + 1] = np.arange(1, len(present) + 1)
    labels, nuclei = number[canvas.labels], number[canvas.nuclei]
    kept = [classes[i] for i in present]
    table = _truth(labels, nuclei, kept, pixel_size_um)
    return GeneratedSmear(photograph(canvas), labels, nuclei, kept, table, pixel_size_um, name)


def write_smears(folder: Path, n: int = 6, seed: int = 0, **options: float) -> list[Path]:
    """Write generated fields and their truth.

    Parameters
    ----------
    folder : Path
        Gets ``images/smear-000.png``, ``truth/smear-000-cells.png`` and ``-nuclei.png`` (16-bit labels) and
        ``truth/cells.csv``.
    n : int
        Fields.
    seed : int
        Field ``i`` has a seed made from `seed` and ``i``.
    **options
        Passed to `generate_smear`.

    Returns
    -------
    list of Path
        The pictures.

    Raises
    ------
    StudyError
        If the disk is full or the folder may not be written.
    """
    return drain(iter_write_smears(folder, n, seed, **options))


def iter_write_smears(folder: Path, n: int = 6, seed: int = 0, **options: float) -> Steps[list[Path]]:
    """Twin of `write_smears` that yields `Progress`."""
    folder = Path(folder)
    with disk_errors(folder):
        (folder / "images").mkdir(parents=True, exist_ok=True)
        (folder / "truth").mkdir(parents=True, exist_ok=True)
    written, tables = [], []
    for index in range(n):
        name = f"smear-{index:03d}"
        yield Progress(index, n, name)
        smear = generate_smear(zlib.crc32(f"{seed}/{index}".encode()), **options)  # type: ignore[arg-type]
        path = folder / "images" / f"{name}.png"
        _write_png(path, smear.image)
        _write_png(folder / "truth" / f"{name}-cells.png", smear.labels.astype(np.uint16))
        _write_png(folder / "truth" / f"{name}-nuclei.png", smear.nuclei.astype(np.uint16))
        tables.append(smear.table.assign(file=f"images/{name}.png", stain=smear.stain))
        written.append(path)
    if tables:
        with disk_errors(folder):
            write_text(folder / "truth" / "cells.csv", pd.concat(tables, ignore_index=True).to_csv(index=False))
    yield Progress(n, n, f"{n} fields")
    return written


def _write_png(path: Path, values: NDArray[np.generic]) -> None:
    """Write a picture or a 16-bit label image, whole or not at all."""
    from PIL import Image

    with disk_errors(path), replacing(path) as part:
        Image.fromarray(values).save(part, format="PNG", optimize=False)


def _check(
    height: int, width: int, n_white: int, pixel_size_um: float, stain: str | None, composition: Mapping[str, float]
) -> None:
    """Refuse options that cannot be drawn, by name."""
    if height < 32 or width < 32:
        raise ValueError(f"a smear of {height} x {width} px cannot be drawn: give at least 32 x 32")
    if n_white < 0:
        raise ValueError(f"n_white is {n_white}: give 0 or more")
    if not 0.03 <= pixel_size_um <= 1.0:
        raise ValueError(f"pixel_size_um is {pixel_size_um}: give 0.03 to 1 micrometre per pixel")
    if stain is not None and stain not in STAINS:
        raise ValueError(f"stain {stain!r} is not known: use one of {', '.join(sorted(STAINS))}")
    unknown = sorted(set(composition) - set(CELL_TYPES))
    if unknown or not composition or min(composition.values()) < 0 or sum(composition.values()) <= 0:
        raise ValueError(f"composition {dict(composition)} is not usable: shares of {', '.join(CELL_TYPES)}")


def _truth(
    labels: NDArray[np.int32], nuclei: NDArray[np.int32], classes: list[str], pixel_size_um: float
) -> pd.DataFrame:
    """One row a cell."""
    from scipy import ndimage as ndi

    areas = np.bincount(labels.ravel(), minlength=len(classes) + 1)
    inner = np.bincount(nuclei.ravel(), minlength=len(classes) + 1)
    rows = []
    for number, box in enumerate(ndi.find_objects(labels), start=1):
        ys, xs = np.nonzero(labels[box] == number)
        rows.append(
            (
                number,
                classes[number - 1],
                *(box[0].start, box[1].start, box[0].stop, box[1].stop),
                *(float(ys.mean()) + box[0].start, float(xs.mean()) + box[1].start),
                *(int(areas[number]), int(inner[number]), pixel_size_um),
            )
        )
    names = ["label", "class", "y0", "x0", "y1", "x1", "y", "x", "area_px", "nucleus_area_px", "pixel_size_um"]
    return pd.DataFrame(rows, columns=names)
