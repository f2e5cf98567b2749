"""A study's cells brought nearer to the reference: the shifts of its slides, and which option the rule picks for it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import AtlasError
from napari_dinobloom.io.vectors import Vectors
from napari_dinobloom.pipeline.crops import policy_of, read_crop
from napari_dinobloom.pipeline.settings import RunSettings, resolve
from napari_dinobloom.pipeline.stains import StudyStains, iter_find_stains
from napari_dinobloom.predict.adaptation import OPTIONS, Choice, Shifts, evidence, moved, pick, shifts
from napari_dinobloom.predict.classifier import REFERENCE_STAIN
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_dinobloom.io.study import Study
    from napari_dinobloom.predict.adaptation import Option
    from napari_dinobloom.predict.classifier import CellClassifier

Float32 = NDArray[np.float32]

ASKED = 300
"""Cells of a study by which the rule judges, spread evenly over its table."""

_PLACE = "adapted"


def fit_shifts(adata: AnnData, by: str, reference: CellClassifier) -> dict[str, Any]:
    """Shifts of the slides or patients of a cell table, as plain values for ``uns``; deleted cells have no say."""
    living = ~adata.obs["deleted"].to_numpy(bool)
    if not living.any():
        return {}
    rows = np.flatnonzero(living)
    found = shifts(Vectors.of(adata).take(rows), adata.obs[by].to_numpy(object)[rows], reference)
    return {_PLACE: {"by": by, "names": np.array(found.slides, object), "shift": found.shift}}


def without_shifts(notes: dict[str, Any]) -> dict[str, Any]:
    """Notes of a cell table without what `fit_shifts` gave."""
    return {name: value for name, value in notes.items() if name != _PLACE}


def is_moved(notes: Mapping[str, Any]) -> bool:
    """Whether the cells of a table were moved before they were named, by its notes."""
    return _PLACE in notes


def embeddings_of(
    adata: AnnData, rows: NDArray[np.integer] | slice = slice(None), notes: Mapping[str, Any] | None = None
) -> Float32:
    """Embeddings of some cells as the reference was asked about them: moved where the run had `RunSettings.adapt`.

    `notes`: of the run, where they are not in the table yet.
    """
    X = Vectors.of(adata)[rows]
    about = dict(adata.uns.get("dinobloom", {}) if notes is None else notes).get(_PLACE)
    if about is None:
        return X
    found = Shifts(tuple(str(name) for name in about["names"]), np.asarray(about["shift"], np.float32))
    return found.apply(X, adata.obs[str(about["by"])].to_numpy(object)[rows])


def iter_choose(study: Study, settings: RunSettings, classifier: CellClassifier) -> Steps[Choice]:
    """Say which option brings the cells of a study clearly nearer to its reference; changes nothing.

    Parameters
    ----------
    study : Study
        Its crops are cut.
    settings : RunSettings
        Encoder and device; ``stain`` and ``adapt`` are passed over.
    classifier : Atlas or Probe
        The reference. Recolouring is asked about only where its own stain is what crops are recoloured to.

    Returns
    -------
    Choice
        From `ASKED` cells, each embedded up to three times.

    Raises
    ------
    StudyError
        If there are no crops.
    """
    from napari_dinobloom.pipeline.classify import sources_of
    from napari_dinobloom.pipeline.embed import load

    living = np.flatnonzero(~study.cells.obs["deleted"].to_numpy(bool))
    rows = living[np.unique(np.linspace(0, max(len(living) - 1, 0), min(len(living), ASKED)).round().astype(np.intp))]
    if not len(rows):
        return pick({"none": np.zeros(0)})
    stains = yield from iter_find_stains(study, "reinhard")
    crops = np.stack([read_crop(study, int(row)) for row in rows])
    X: dict[Option, Float32] = {}
    with load(settings) as encoder:
        for option in _looks(classifier):
            X[option] = np.empty((len(rows), encoder.dim), np.float32)
            with closing(encoder.iter_embed_to(_recoloured(crops, rows, stains, option), X[option])) as steps:
                for report in steps:
                    yield Progress(report.done, report.total, f"adaptation: {option}")
    obs = study.cells.obs.iloc[rows]
    X["restandardise"] = moved(X["none"], obs["slide"].to_numpy(str), classifier)
    source = sources_of(study, obs)
    return pick({option: evidence(X[option], classifier, source) for option in OPTIONS if option in X})


def _looks(classifier: CellClassifier) -> tuple[Option, ...]:
    """Options that change how crops look and make sense with a reference."""
    ours = classifier.info.get("stain") == REFERENCE_STAIN
    return ("none", "reinhard", "macenko") if ours else ("none",)


def iter_choose_for(study: Study, **asked: Any) -> Steps[Choice]:
    """`iter_choose` with the settings that a study remembers and those asked for now.

    Raises
    ------
    AtlasError
        If nothing names the cells of the study, or what does belongs to another encoder, other crops or other stains.
    """
    from napari_dinobloom.encoders.library import identify
    from napari_dinobloom.pipeline.classify import Weights, find_atlas
    from napari_dinobloom.pipeline.embed import pooling_of

    settings = resolve(study.settings, asked)
    classifier = find_atlas(settings)
    if classifier is None:
        raise AtlasError(f"{study.path}: no atlas names its cells, so that there is nothing to bring them nearer to.")
    weights = Weights(settings.encoder, identify(settings.encoder), pooling_of(settings))
    classifier.check(weights, policy_of(settings))
    return (yield from iter_choose(study, settings, classifier))


def _recoloured(crops: NDArray[np.uint8], rows: Any, stains: StudyStains, option: Any) -> NDArray[np.uint8]:
    return crops if option == "none" else replace(stains, method=option).recoloured(crops, rows)
