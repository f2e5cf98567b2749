"""The figure of what an encoder sees inside cells: crops beside the colours of their patches, as in the paper's Fig. 3.

Koch et al., MICCAI 2024, arXiv 2404.05022. Drawn at one pixel a pixel; text from files is never read as markup.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_dinobloom.encoders.overlay import blend, enlarge
from napari_dinobloom.io.smear import write_picture
from napari_dinobloom.report.figure_file import DPI, one_line, write_figure

Uint8 = npt.NDArray[np.uint8]

_GAP = 10
_POINT = DPI / 72
_SMALL, _LARGE = 9, 10


@dataclass(frozen=True, slots=True, eq=False)
class PictureRow:
    """One row of the figure.

    Attributes
    ----------
    title : str
        Class or data set.
    crops : ndarray (k, Y, X, 3) uint8
        Pictures, all rows' of one size.
    colours : ndarray (k, h, w, 3) float32
        Colours of their patches, 0..1.
    """

    title: str
    crops: Uint8
    colours: npt.NDArray[np.float32]


def draw_patches(rows: Sequence[PictureRow], title: str, path: Path) -> Path:
    """Draw one row of pictures for each class or data set, each crop beside the colours of its patches.

    Parameters
    ----------
    rows : sequence of PictureRow
        At least one; a row may be shorter than others.
    title : str
        What is shown, above the figure.
    path : Path
        File to replace, whole or not at all; its ending is one of `figure_file.FORMATS`.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    ValueError
        If there is no picture.
    """
    from matplotlib.figure import Figure

    picture, middles = _mosaic(rows)
    height, width = picture.shape[:2]
    names = [one_line(row.title) for row in rows]
    left = int(max(len(name) for name in names) * 0.62 * _SMALL * _POINT) + 2 * _GAP
    lines = textwrap.wrap(one_line(title, 1000), max(20, int((left + width) / (0.55 * _LARGE * _POINT))))
    top = int(len(lines) * 1.4 * _LARGE * _POINT) + 2 * _GAP
    size = (left + width + _GAP, top + height + _GAP)
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, facecolor="white")
    figure.figimage(picture, xo=left, yo=_GAP)
    figure.text(
        _GAP / size[0], 1 - _GAP / size[1], "\n".join(lines), size=_LARGE, va="top", linespacing=1.3, parse_math=False
    )
    for name, middle in zip(names, middles, strict=True):
        y = 1 - (top + middle) / size[1]
        figure.text((left - _GAP) / size[0], y, name, size=_SMALL, ha="right", va="center", parse_math=False)
    return write_figure(figure, path)


def write_tiles(rows: Sequence[PictureRow], folder: Path) -> list[Path]:
    """Write one PNG a picture: the crop, the colours of its patches, and these laid over the crop.

    Parameters
    ----------
    rows : sequence of PictureRow
        As in `draw_patches`.
    folder : Path
        Is made if it is not there; files of the same names are replaced.

    Returns
    -------
    list of Path
        ``001-basophil-1.png`` and so on, in the order of the rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for row in rows:
        name = re.sub(r"[^A-Za-z0-9]+", "-", row.title).strip("-")[:60] or "row"
        for number, (crop, colours) in enumerate(zip(row.crops, row.colours, strict=True), start=1):
            path = folder / f"{len(paths) + 1:03d}-{name}-{number}.png"
            write_picture(path, np.hstack([crop, _painted(colours, crop), blend(crop, colours)]))
            paths.append(path)
    return paths


def _mosaic(rows: Sequence[PictureRow]) -> tuple[Uint8, list[float]]:
    """All pictures on white, and the height in pixels of the middle of each row from above."""
    columns = max((len(row.crops) for row in rows), default=0)
    if not columns:
        raise ValueError("There is no picture to draw.")
    height, width = next(row.crops.shape[1:3] for row in rows if len(row.crops))
    step_y, step_x = height + _GAP, 2 * width + 2 * _GAP
    picture = np.full((len(rows) * step_y - _GAP, columns * step_x - 2 * _GAP, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, (crop, colours) in enumerate(zip(row.crops, row.colours, strict=True)):
            y, x = i * step_y, j * step_x
            picture[y : y + height, x : x + 2 * width] = np.hstack([crop, _painted(colours, crop)])
    return picture, [i * step_y + height / 2 for i in range(len(rows))]


def _painted(colours: npt.NDArray[np.float32], crop: Uint8) -> Uint8:
    """Colours at the size of the crop."""
    painted: Uint8 = np.rint(enlarge(colours, (crop.shape[0], crop.shape[1])) * 255).astype(np.uint8)
    return painted
