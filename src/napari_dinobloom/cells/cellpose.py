"""Cellpose-SAM as a segmenter, through its own package (extra ``cellpose``).

Cellpose finds all cells, red ones too; those are kept in which the bundled segmenter sees a nucleus, and that nucleus
is theirs. Source: Pachitariu, Rariden, Stringer, Cellpose-SAM, bioRxiv 2025.04.28.651001.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from importlib import metadata, util
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.background import thinned
from napari_dinobloom.cells.segmenter import Found
from napari_dinobloom.errors import InputError, LicenceError
from napari_dinobloom.io.masks import Bitmap, FieldMasks, draw
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.cells.background import Background
    from napari_dinobloom.cells.region import Region
    from napari_dinobloom.cells.scale import Scale
    from napari_dinobloom.cells.segmenter import Segmenter

VERSION = 1

MODEL = "cpsam"
"""The weights; all releases of Cellpose from 4.0 on know this name."""

LICENCE = "Cellpose-SAM: code BSD-3-Clause; weights made from data under CC BY-NC, for non-commercial use only"

QUESTION = (
    "Cellpose-SAM's weights were made from data under CC BY-NC: they may be used for non-commercial work only. "
    "They are downloaded from their authors on first use (about 1.2 GB). Your acceptance is kept in the study and "
    "printed in its report."
)
"""What a person is asked once, on the command line and in the window."""

CELL_UM = 10.0
"""Diameter that is given to Cellpose as that of a cell, which it shows its network as 30 pixels.

Between red cells (7.5 um) and large white cells (20 um): 23 to 60 pixels, where its training data are densest.
"""

WINDOW_PX = 4096
"""Largest side of what Cellpose is shown in one go."""

MARGIN_UM = 30.0
"""Overlap of windows: no cell is wider."""

SMALLEST_NUCLEUS_UM2 = 8.0
"""A cell with less nucleus than this is no white cell."""

_SEEN_PX = 1024


def check_installed() -> None:
    """Raise InputError if the package cellpose 4 or newer is not there."""
    if util.find_spec("cellpose") is None:
        raise InputError('Cellpose is not installed. Install it with: pip install "napari-dinobloom[cellpose]"')
    version = _version()
    if version.split(".")[0].isdigit() and int(version.split(".")[0]) < 4:
        raise InputError(
            f"Cellpose {version} has no Cellpose-SAM. Install a newer one: "
            'pip install --upgrade "napari-dinobloom[cellpose]"'
        )


def check_accepted(accepted: bool) -> None:
    """Raise LicenceError unless the licence was accepted."""
    if not accepted:
        raise LicenceError(
            QUESTION,
            "Accept with --accept-licence on the command line, or accept_licence=True in nd.run and get_segmenter; "
            "or choose the segmenter 'learned'.",
        )


def _version() -> str:
    """Version of the package; "unknown" for one without metadata."""
    try:
        return metadata.version("cellpose")
    except metadata.PackageNotFoundError:
        return "unknown"


class _Network:
    """Cellpose's network, loaded when it is first asked; one for a segmenter and all that are made of it."""

    def __init__(self) -> None:
        self._model: Any = None
        self._lock = threading.Lock()  # fields are segmented in threads

    def eval(self, picture: NDArray[np.uint8], **more: Any) -> Any:
        """Ask it; one thread after the other."""
        with self._lock:
            if self._model is None:
                self._model = _load()
            return self._model.eval(picture, **more)


class CellposeSegmenter:
    """Finds cells with Cellpose-SAM and keeps those with a nucleus.

    Parameters
    ----------
    nuclei : Segmenter
        What tells white cells from the others.
    accept_licence : bool
        Says that `LICENCE` is known and kept.
    window : int
        Largest side of what Cellpose is shown in one go, pixels.

    Raises
    ------
    LicenceError
        If the licence is not accepted.
    InputError
        If the package is not installed.
    """

    name = "cellpose"
    licence = LICENCE

    def __init__(self, nuclei: Segmenter, *, accept_licence: bool = False, window: int = WINDOW_PX) -> None:
        check_accepted(accept_licence)
        check_installed()
        self._nuclei = nuclei
        self._window = window
        self._network = _Network()
        self._region: Region | None = None

    @property
    def key(self) -> str:
        """Version of Cellpose, of this module, and of what finds the nuclei."""
        return f"cellpose-{VERSION}-{MODEL}-{_version()}-{self._nuclei.key}"

    def tiled(self, tile: int | None, scratch: Path | None) -> CellposeSegmenter:
        """Give itself: it reads windows of its own."""
        del tile, scratch
        return self

    def within(self, region: Region) -> CellposeSegmenter:
        """Give the same that reads only windows with nuclei in a region."""
        found = copy(self)
        found._nuclei, found._region = self._nuclei.within(region), region
        return found

    def iter_find(self, image: Any, scale: Scale, *, light: Background) -> Steps[Found]:
        """Find the cells of a field; see `Segmenter.iter_find`."""
        nuclei = (yield from self._nuclei.iter_find(image, scale, light=light)).masks
        limits = _limits(image if self._region is None else self._region.sample)
        shape = (int(image.shape[0]), int(image.shape[1]))
        windows = list(_windows(shape, self._window, int(np.ceil(MARGIN_UM / scale.pixel_size_um))))
        rows: list[tuple[list[int], Bitmap, Bitmap]] = []
        for done, (read, core) in enumerate(windows):
            yield Progress(done, len(windows), "cells (Cellpose)")
            y0, x0, y1, x1 = read
            if self._region is not None and not self._region.touches(*read):
                continue
            labels = self._labels(np.ascontiguousarray(image[y0:y1, x0:x1]), scale.pixel_size_um, limits)
            kernels = _drawn(nuclei, read)
            rows += _white_cells(labels, kernels, read, core, SMALLEST_NUCLEUS_UM2 / scale.pixel_size_um**2)
        masks = FieldMasks.numbered([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
        return Found(masks).sorted()

    def _labels(self, picture: NDArray[np.uint8], pixel_um: float, limits: NDArray[np.float64]) -> NDArray[np.int32]:
        """(Y, X) int32 of all cells in one window."""
        found = self._network.eval(
            picture, diameter=CELL_UM / pixel_um, channel_axis=2, normalize={"lowhigh": limits.tolist()}
        )
        labels = np.asarray(found[0])
        if labels.shape != picture.shape[:2]:
            raise InputError(f"Cellpose {_version()} gave labels {labels.shape} for a picture {picture.shape[:2]}. "
                             "Install the release that this package was tested with, 4.2.")  # fmt: skip
        return labels.astype(np.int32)


def _load() -> Any:
    """The network, on the graphics card if there is one; its weights are fetched if they are not here."""
    from cellpose import models

    try:
        return models.CellposeModel(gpu=True, pretrained_model=MODEL)
    except OSError as error:
        raise InputError(
            f"Cellpose could not fetch its weights ({error}). Connect to the network once, or put the file {MODEL!r} "
            "into the folder named by CELLPOSE_LOCAL_MODELS_PATH."
        ) from error


def _limits(image: Any) -> NDArray[np.float64]:
    """(3, 2) 1st and 99th percentile of each channel of the whole picture, so that windows are shown alike."""
    limits = np.percentile(thinned(image), (1, 99), axis=(0, 1)).T
    limits[:, 1] = np.maximum(limits[:, 1], limits[:, 0] + 1)
    return np.asarray(limits, np.float64)


def _windows(shape: tuple[int, int], side: int, margin: int) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """What is read and, inside it, the core that a cell's centre must lie in; y0, x0, y1, x1."""
    height, width = shape
    ys = np.linspace(0, height, int(np.ceil(height / side)) + 1).astype(int).tolist()
    xs = np.linspace(0, width, int(np.ceil(width / side)) + 1).astype(int).tolist()
    for y0, y1 in pairwise(ys):
        for x0, x1 in pairwise(xs):
            read = (max(y0 - margin, 0), max(x0 - margin, 0), min(y1 + margin, height), min(x1 + margin, width))
            yield read, (y0, x0, y1, x1)


def _drawn(nuclei: FieldMasks, read: tuple[int, ...]) -> NDArray[np.int32]:
    """Nuclei within a window, as labels."""
    near = (nuclei.boxes[:, :2] < read[2:]).all(axis=1) & (nuclei.boxes[:, 2:] > read[:2]).all(axis=1)
    seen = nuclei.take(np.flatnonzero(near).tolist())
    shifted = replace(seen, boxes=seen.boxes - np.asarray([*read[:2], *read[:2]], np.int32))
    return draw(shifted, (read[2] - read[0], read[3] - read[1]), "nuclei")


def _white_cells(
    labels: NDArray[np.int32], kernels: NDArray[np.int32], read: tuple[int, ...], core: tuple[int, ...], smallest: float
) -> Iterator[tuple[list[int], Bitmap, Bitmap]]:
    """Box, cell and nucleus of each cell whose centre lies in the core and that holds a nucleus.

    A nucleus belongs to the cell that holds most of it.
    """
    from scipy import ndimage as ndi

    whole = np.bincount(kernels.ravel())
    for number, place in enumerate(ndi.find_objects(labels), start=1):
        if place is None:
            continue
        cell = labels[place] == number
        inside = np.bincount(kernels[place][cell], minlength=len(whole))
        own = 2 * inside > whole
        own[0] = False
        nucleus = own[kernels[place]] & cell
        y, x = np.add(ndi.center_of_mass(cell), (place[0].start + read[0] + 0.5, place[1].start + read[1] + 0.5))
        if nucleus.sum() >= smallest and core[0] <= y < core[2] and core[1] <= x < core[3]:
            top, left = place[0].start + read[0], place[1].start + read[1]
            yield [top, left, top + cell.shape[0], left + cell.shape[1]], cell, nucleus
