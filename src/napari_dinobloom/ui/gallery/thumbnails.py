"""Thumbnails of cells: made in a second thread when they come into sight, and kept as long as there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtGui import QGuiApplication, QImage, QPixmap

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.study import Study
from napari_dinobloom.ui.previews import CropReader

BATCH = 24
"""Thumbnails that are made in one go: more would let a page that is left behind hold up the next one."""

ROOM = 96 * 2**20
"""Bytes of pictures that are kept."""

SIDE = 72
"""Pixels of a thumbnail at first: a small laptop shows three rows of them beside an image."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What the second thread made.

    Attributes
    ----------
    number : int
        For which study and size it was asked.
    images : dict
        Cell id to its picture; None for one that cannot be had.
    problem : str
        Why not, in words; empty when nothing is missing.
    reader : CropReader or None
        To be used for the next batch.
    """

    number: int
    images: dict[str, QImage | None]
    problem: str
    reader: CropReader | None


class Thumbnails(QObject):
    """Pictures of cells by id. Signals: `arrived` when there are new ones, `failed` with the reason, or "" for none."""

    arrived = Signal()
    failed = Signal(str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._study: Study | None = None
        self._reader: CropReader | None = None
        self._side = SIDE
        self._number = 0
        self._kept: OrderedDict[str, QPixmap | None] = OrderedDict()
        self._wanted: list[str] = []
        self._worker: Any = None

    @property
    def busy(self) -> bool:
        """Whether a second thread is at work."""
        return self._worker is not None

    @property
    def kept(self) -> int:
        """How many pictures are kept."""
        return len(self._kept)

    def show(self, study: Study | None, side: int) -> None:
        """Make thumbnails of this study, of `side` pixels; the old ones are forgotten where one of both is new.

        They have as many pixels as the finest screen shows.
        """
        side = round(side * QGuiApplication.instance().devicePixelRatio())  # type: ignore[union-attr]
        if study is not self._study or side != self._side:
            self._study, self._side = study, side
            self.forget()

    def forget(self, cells: Iterable[str] | None = None) -> None:
        """Forget some pictures, or all, as their cells have changed; the study is read anew."""
        self._number += 1
        self._reader = None
        self._wanted = []
        if cells is None:
            self._kept.clear()
        for cell in cells or ():
            self._kept.pop(cell, None)

    def get(self, cell: str) -> QPixmap | None:
        """Picture of a cell; None where there is none, or not yet."""
        found = self._kept.get(cell)
        if found is not None:
            self._kept.move_to_end(cell)
        return found

    def want(self, cells: Sequence[str]) -> None:
        """Ask for these pictures, the first ones first; what was asked for before and is not begun is dropped."""
        self._wanted = [cell for cell in cells if cell not in self._kept]
        self._begin()

    def detach(self) -> None:
        """Ask for nothing more."""
        self.show(None, self._side)

    def _begin(self) -> None:
        """Start the second thread, if it is idle and there is something to do."""
        if self._worker is not None or self._study is None or not self._wanted:
            return
        asked, self._wanted = self._wanted[:BATCH], self._wanted[BATCH:]
        self._worker = create_worker(make, self._study, self._reader, asked, self._side, self._number)
        self._worker.returned.connect(self._take)
        self._worker.errored.connect(partial(self._fail, self._number))
        self._worker.start()

    def _take(self, batch: Batch) -> None:
        """Keep what was made, and go on."""
        self._worker = None
        if batch.number == self._number:
            self._reader = batch.reader
            for cell, image in batch.images.items():
                self._kept[cell] = None if image is None else QPixmap.fromImage(image)
            while len(self._kept) > max(ROOM // (4 * self._side**2), 2 * BATCH):
                self._kept.popitem(last=False)
            self.failed.emit(batch.problem)
            self.arrived.emit()
        self._begin()

    def _fail(self, number: int, error: Exception) -> None:
        """Say that nothing could be read, and stop until something else is asked for."""
        self._worker = None
        if number != self._number:
            self._begin()
            return
        self._wanted = []
        self.failed.emit(f"{type(error).__name__}: {error}")


def make(study: Study, reader: CropReader | None, cells: Sequence[str], side: int, number: int) -> Batch:
    """Make thumbnails; called in a second thread.

    Parameters
    ----------
    study : Study
        Where the cells are.
    reader : CropReader or None
        Of the study as it is now, if there is one already.
    cells : sequence of str
        Their ids.
    side : int
        Pixels of a thumbnail.
    number : int
        Handed through.
    """
    images: dict[str, QImage | None] = dict.fromkeys(cells)
    problem = ""
    try:
        reader = CropReader(study) if reader is None else reader
        crops = reader.read(cells)
        images.update({cell: _small(crop, side) for cell, crop in zip(cells, crops, strict=True)})
    except (DinoBloomError, ValueError) as error:  # a picture is gone, or the table says nothing of the scale
        problem = str(error)
        for cell in cells if reader is not None else ():
            try:
                images[cell] = _small(reader.read([cell])[0], side)  # type: ignore[union-attr]
            except (DinoBloomError, ValueError, IndexError):
                continue
    return Batch(number, images, problem, reader)


def _small(crop: npt.NDArray[np.uint8], side: int) -> QImage:
    """A crop, (Y, X, 3) uint8, as a picture of `side` pixels."""
    pixels = np.ascontiguousarray(crop)
    height, width = pixels.shape[:2]
    image = QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
    keep, smooth = Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
    small: QImage = image.scaled(side, side, keep, smooth).convertToFormat(QImage.Format.Format_RGB32)
    return small.copy()  # of its own memory, also where it is as large as the crop
