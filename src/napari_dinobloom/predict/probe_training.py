"""How a probe is trained on the cells of an atlas, and what it is told of itself by cells it was not trained on."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.predict.abstention import settle, to_ask
from napari_dinobloom.predict.atlas import Atlas
from napari_dinobloom.predict.calibration import Temperature
from napari_dinobloom.predict.knn import KnnClassifier
from napari_dinobloom.predict.linear import LinearProbe
from napari_dinobloom.predict.novelty import kth
from napari_dinobloom.predict.probe import NEAREST, Probe
from napari_dinobloom.progress import Progress, Steps, drain

FOLDS = 5
KEPT = 200
"""Training cells of a class that a probe holds; drawn evenly, seeded."""

_CARRIED = ("pooling", "stain", "origin", "cells", "crop_version", "segment_version", "segmenter", "parts")
"""What a probe says of the cells it was trained on."""


def train_probe(atlas: Atlas, *, name: str, C: float | None = None) -> Probe:
    """Train a linear probe on the cells of an atlas.

    Parameters
    ----------
    atlas : Atlas
        Reference cells.
    name : str
        Name for people.
    C : float, optional
        Inverse strength of regularisation; by default ``D * classes / 100``, as the DinoBloom evaluation has it.

    Returns
    -------
    Probe
        Trained on all cells. Temperature, threshold and confusion come from five folds over the held-out cells (over
        all where none of them can be asked, see `abstention.to_ask`), each named by a probe of all others; the cells of
        a picture stay together. As in scikit-learn's ``CalibratedClassifierCV(ensemble=False)``, they are then used
        with the probe of all cells. A class of which no such cell can be asked is trained on and never measured: `info`
        names it under ``unmeasured``.
    """
    return drain(iter_train_probe(atlas, name=name, C=C))


def iter_train_probe(atlas: Atlas, *, name: str, C: float | None = None) -> Steps[Probe]:
    """Twin of `train_probe` that yields `Progress` and returns its result."""
    asked = np.flatnonzero(to_ask(atlas.y, atlas.source, atlas.held_out))
    kept = _sample(atlas.y)
    nearest = KnnClassifier(k=NEAREST).fit(atlas.X[kept], atlas.y[kept], atlas.source[kept].tolist())
    distance = kth(nearest.kneighbors(atlas.X[asked], atlas.source[asked].tolist())[1])
    classes = np.asarray(atlas.classes)
    truth = np.searchsorted(classes, atlas.y[asked])
    p = yield from _iter_out_of_fold(atlas, asked, C)
    temperature = Temperature.fit(p, truth, floor=0.0)
    p = temperature.apply(p)
    named, confidence = classes[p.argmax(axis=1)], p.max(axis=1, initial=0.0)
    found = settle(atlas.y[asked], named, confidence, distance, classes, "five folds")
    yield Progress(FOLDS, FOLDS + 1, "training on all cells")
    linear = LinearProbe(C=C).fit(atlas.X, atlas.y)
    unmeasured = [one for one in atlas.classes if one not in set(atlas.y[asked].tolist())]
    info: dict[str, Any] = {key: atlas.info[key] for key in _CARRIED if key in atlas.info}
    info |= {
        "calibration": found.held_out,
        "accuracy": round(found.accuracy, 4),
        "accuracy_named": round(found.accuracy_named, 4),
        "abstained": round(found.abstained, 4),
        "trained_on": atlas.hash,
        **({"unmeasured": unmeasured} if unmeasured else {}),
    }
    probe = Probe(
        name=name,
        linear=linear,
        X=atlas.X[kept],
        y=atlas.y[kept],
        source=atlas.source[kept],
        encoder=atlas.encoder,
        encoder_sha256=atlas.encoder_sha256,
        policy=dict(atlas.policy),
        policy_hash=atlas.policy_hash,
        classes=atlas.classes,
        confusion=found.confusion,
        temperature=temperature.value,
        threshold=found.threshold,
        distance_limit=min(found.distance_limit, float(np.finfo(np.float32).max)),
        cells=len(atlas),
        info=info,
    )
    yield Progress(FOLDS + 1, FOLDS + 1, "training on all cells")
    return replace(probe, hash=probe.digest())


def _iter_out_of_fold(atlas: Atlas, asked: NDArray[np.intp], C: float | None) -> Steps[NDArray[np.float32]]:
    """Probabilities of the asked cells, each by a probe that learned from no cell of its fold or picture."""
    from sklearn.model_selection import StratifiedGroupKFold

    y, pictures = atlas.y[asked], atlas.source[asked]
    most = min(FOLDS, len(np.unique(pictures)), int(np.unique(y, return_counts=True)[1].max()))
    p = np.zeros((len(asked), len(atlas.classes)), np.float32)
    if most < 2:  # one picture, or one cell of each class
        folds = [np.flatnonzero(pictures == picture) for picture in np.unique(pictures)]
    else:
        with warnings.catch_warnings():  # a class with fewer cells than folds is as it is
            warnings.simplefilter("ignore", UserWarning)
            found = StratifiedGroupKFold(most, shuffle=True, random_state=0).split(y, y, pictures)
            folds = [fold for _, fold in found]
    for number, fold in enumerate(folds):
        yield Progress(min(number, FOLDS), FOLDS + 1, "training without a fold of the cells")
        train = ~np.isin(atlas.source, pictures[fold])
        known = np.unique(atlas.y[train])
        columns = np.isin(atlas.classes, known)
        if len(known) < 2:  # nothing to tell apart
            p[np.ix_(fold, columns)] = 1.0
        else:
            p[np.ix_(fold, columns)] = (
                LinearProbe(C=C).fit(atlas.X[train], atlas.y[train]).predict_proba(atlas.X[asked[fold]])
            )
    return p


def _sample(y: NDArray[np.str_]) -> NDArray[np.intp]:
    """Rows of up to `KEPT` cells a class, rising."""
    random = np.random.default_rng(0)
    rows = [np.flatnonzero(y == name) for name in np.unique(y)]
    return np.sort(np.concatenate([random.choice(some, min(KEPT, len(some)), replace=False) for some in rows]))
