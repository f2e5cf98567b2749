"""Crops of a few cells as they are now: from the study's store where it has them, else cut from the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap

from napari_dinobloom.cells.crop import Cutter, find_windows
from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.embeddings import Keys, keys_of
from napari_dinobloom.io.study import Study

Crops = tuple[tuple[str, ...], npt.NDArray[np.uint8], str]
"""Cell ids as asked for, (n, size, size, 3) crops of those that have one, and why there are none (else empty)."""


class CropReader:
    """Crops of the cells of a study as it is now; made anew when cells have changed.

    What all cells have in common is read once, so that one crop from the study's store takes less than a millisecond.

    Parameters
    ----------
    study : Study
        Where the cells are; its settings say how crops are cut.

    Raises
    ------
    DinoBloomError, ValueError
        The table does not say of which scale its cells are.
    """

    def __init__(self, study: Study) -> None:
        from napari_dinobloom.pipeline.crops import policy_of
        from napari_dinobloom.pipeline.settings import resolve

        self._study, self._obs = study, study.cells.obs
        self._policy = policy_of(resolve(study.settings, {}))
        self._windows = find_windows(self._obs, self._policy)
        self._keys = _stored_keys(study)

    def read(self, cells: Sequence[str]) -> npt.NDArray[np.uint8]:
        """Look up or cut the crops of some cells, (n, size, size, 3), without those that are not in the table.

        Raises
        ------
        DinoBloomError
            A picture that is needed is gone.
        """
        from napari_dinobloom.pipeline.crops import read_crop, row_keys

        at = self._obs.index.get_indexer(list(cells))
        at = at[at >= 0]
        size = self._policy.size
        rows, windows = self._obs.iloc[at], self._windows[at]
        crops = np.zeros((len(at), size, size, 3), np.uint8)
        left = []
        keys = keys_of(row_keys(self._study, rows, windows, self._policy))
        for place, (row, key) in enumerate(zip(at.tolist(), keys, strict=True)):
            if row < len(self._keys) and self._keys[row] == key:
                crops[place] = read_crop(self._study, row)
            else:
                left.append(place)
        for field in dict.fromkeys(rows["field"].iloc[left]):
            self._cut(field, [place for place in left if rows["field"].iloc[place] == field], rows, windows, crops)
        return crops

    def _cut(
        self,
        field: str,
        places: Sequence[int],
        rows: pd.DataFrame,
        windows: npt.NDArray[np.float64],
        crops: npt.NDArray[np.uint8],
    ) -> None:
        """Cut crops of one field from its picture."""
        masks = self._study.masks(field) if self._policy.neighbours == "mask" else None
        image, cells = self._study.read_field(field).image, rows.iloc[list(places)]
        cutter = Cutter(image, cells, windows[list(places)], self._policy, masks=masks)
        for number in cutter.order:
            cutter.cut(int(number), crops[places[number]])


def crops_of(study: Study, cells: Sequence[str]) -> Crops:
    """Look up or cut the crops of some cells; may be called in a second thread.

    Parameters
    ----------
    study : Study
        Where the cells are.
    cells : sequence of str
        Cell ids.

    Returns
    -------
    Crops
        In the order of `cells`, without those that are not in the table.
    """
    try:
        return tuple(cells), CropReader(study).read(cells), ""
    except (DinoBloomError, ValueError) as error:  # the picture is gone, or the table says nothing of the scale
        return tuple(cells), np.zeros((0, 1, 1, 3), np.uint8), str(error)


def _stored_keys(study: Study) -> Keys:
    """The key of each row of the store of crops; none where there is no store."""
    from napari_dinobloom.pipeline.crops import stored_keys

    try:
        return stored_keys(study)
    except DinoBloomError:
        return np.zeros(0, np.uint64)


def pixmap(crop: npt.NDArray[np.uint8], side: int, ratio: float = 1.0) -> QPixmap:
    """A crop, (Y, X, 3) uint8, as a picture of `side` pixels, each of `ratio` pixels of the device."""
    pixels = np.ascontiguousarray(crop)
    height, width = pixels.shape[:2]
    image = QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
    fine, smooth = round(side * ratio), Qt.TransformationMode.SmoothTransformation
    picture = QPixmap.fromImage(image).scaled(fine, fine, Qt.AspectRatioMode.KeepAspectRatio, smooth)
    picture.setDevicePixelRatio(ratio)
    return picture
