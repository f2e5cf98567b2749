"""Another way to vote with the cells of an atlas: its threshold is chosen anew, and remembered for the next time.

What the held-out cells say of a choice is kept as one small JSON file in the cache folder, under the hash of the atlas
and the choice: a large atlas of which all cells are held out takes minutes.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from napari_dinobloom.encoders.library import cache_folder
from napari_dinobloom.errors import AtlasError
from napari_dinobloom.io.atomic import write_text
from napari_dinobloom.predict.abstention import Calibration, calibrate
from napari_dinobloom.predict.atlas import Atlas
from napari_dinobloom.predict.knn import KnnClassifier, Metric, Weights

VERSION = 3
"""Raised when the same choice would give other numbers."""


def chosen(atlas: Atlas, *, k: int, metric: Metric, weights: Weights) -> Atlas:
    """Give the atlas with this way to vote; the same object where it is its own.

    Parameters
    ----------
    atlas : Atlas
        Reference cells.
    k, metric, weights
        As for `KnnClassifier`.

    Returns
    -------
    Atlas
        Threshold, distance limit, confusion and hash are those of the choice.

    Raises
    ------
    AtlasError
        If the choice means nothing.
    """
    if (k, metric, weights) == (atlas.k, atlas.metric, atlas.weights):
        return atlas
    try:
        KnnClassifier(k=k, metric=metric, weights=weights)
    except ValueError as error:
        raise AtlasError(str(error)) from error
    told = f"{VERSION} {atlas.hash} {k} {metric} {weights}"
    path = cache_folder() / "choices" / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.json"
    found = _read(path, len(atlas.classes))
    if found is None:
        ways = {"k": k, "metric": metric, "weights": weights}
        found = calibrate(atlas.X, atlas.y, atlas.source, atlas.held_out, **ways)  # type: ignore[arg-type]
        with suppress(OSError):  # a cache that cannot be written is no reason to stop
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(asdict(found) | {"confusion": found.confusion.tolist()}))
    return replace(atlas, k=k, metric=metric, weights=weights).calibrated(found)


def _read(path: Path, classes: int) -> Calibration | None:
    """What was remembered; None if there is nothing or it cannot be used."""
    try:
        found = Calibration(**json.loads(path.read_text(encoding="utf-8")))
        confusion = np.asarray(found.confusion, np.int64)
        usable = confusion.shape == (classes, classes + 1) and 0 <= found.threshold <= 1 and found.distance_limit > 0
    except (OSError, ValueError, TypeError):
        return None
    return replace(found, confusion=confusion) if usable else None
