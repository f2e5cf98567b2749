"""Crops of a few cells as they are now: from the study's store where it has them, else cut from the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_dinobloom.cells.crop import CropPolicy, Cutter, find_windows
from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.study import Study

Crops = tuple[tuple[str, ...], npt.NDArray[np.uint8], str]
"""Cell ids as asked for, (n, size, size, 3) crops of those that have one, and why there are none (else empty)."""


def crops_of(study: Study, cells: Sequence[str]) -> Crops:
    """Look up or cut the crops of some cells; may be called in a second thread.

    Parameters
    ----------
    study : Study
        Where the cells are; its settings say how crops are cut.
    cells : sequence of str
        Cell ids.

    Returns
    -------
    Crops
        In the order of `cells`, without those that are not in the table.
    """
    from napari_dinobloom.pipeline.crops import policy_of
    from napari_dinobloom.pipeline.settings import resolve

    try:
        policy = policy_of(resolve(study.settings, {}))
        return tuple(cells), _crops(study, cells, policy), ""
    except (DinoBloomError, ValueError) as error:  # the picture is gone, or the table says nothing of the scale
        return tuple(cells), np.zeros((0, 1, 1, 3), np.uint8), str(error)


def _crops(study: Study, cells: Sequence[str], policy: CropPolicy) -> npt.NDArray[np.uint8]:
    """(n, size, size, 3) crops."""
    from napari_dinobloom.pipeline.crops import row_keys

    obs = study.cells.obs
    at = obs.index.get_indexer(list(cells))
    at = at[at >= 0]
    windows, rows = find_windows(obs, policy)[at], obs.iloc[at]
    crops = np.zeros((len(at), policy.size, policy.size, 3), np.uint8)
    store, stored_keys = _stored(study)
    left = []
    for place, (row, key) in enumerate(zip(at, row_keys(study, rows, windows, policy), strict=True)):
        if row < len(stored_keys) and stored_keys[row] == key:
            crops[place] = store[row]
        else:
            left.append(place)
    for field in dict.fromkeys(rows["field"].iloc[left]):
        places = [place for place in left if rows["field"].iloc[place] == field]
        masks = study.masks(field) if policy.neighbours == "mask" else None
        cutter = Cutter(study.read_field(field).image, rows.iloc[places], windows[places], policy, masks=masks)
        for number in cutter.order:
            cutter.cut(int(number), crops[places[number]])
    return crops


def _stored(study: Study) -> tuple[Any, list[str]]:
    """The store of crops and the key of each of its rows; no keys where there is none."""
    from napari_dinobloom.pipeline.crops import open_crops

    try:
        store = open_crops(study)
    except DinoBloomError:
        return None, []
    keys = store.attrs.get("rows", [])
    return store, [str(key) for key in keys] if isinstance(keys, list) else []
