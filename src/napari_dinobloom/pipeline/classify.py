"""Sixth step: the class of every cell by its nearest reference cells."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells.taxonomy import CLASSES, palette
from napari_dinobloom.explore.gates.base import GateError
from napari_dinobloom.explore.study_gates import StudyGates
from napari_dinobloom.pipeline.crops import policy_of
from napari_dinobloom.pipeline.settings import RunSettings
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.predict.atlas import Atlas


VERSION = 1
PLATELET = "platelet"
LARGEST_PLATELET_UM2 = 50.0
"""Area of a disc of 8 um."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Name and hash of the encoder whose embeddings the table holds, and what was taken of its output."""

    name: str
    sha256: str
    pooling: str


def find_atlas(settings: RunSettings) -> Atlas | None:
    """Load the atlas of a run.

    Returns
    -------
    Atlas or None
        None where none was wanted, or ``auto`` finds none that comes with the encoder.

    Raises
    ------
    AtlasError
        If a named file is missing or no atlas, or the one that comes with the package is damaged.
    """
    from napari_dinobloom.predict.atlas import Atlas

    if settings.atlas == "none":
        return None
    if settings.atlas != "auto":
        return Atlas.load(Path(settings.atlas).expanduser())
    policy = policy_of(settings)
    return Atlas.bundled(settings.encoder, policy) if Atlas.is_bundled(settings.encoder, policy) else None


def larger_than_platelets(obs: pd.DataFrame) -> NDArray[np.bool_]:
    """Cells whose outline is larger than that of any platelet; giant ones are about as wide as a red cell."""
    area = obs["area_px"].to_numpy(np.float64) * obs["pixel_size_um"].to_numpy(np.float64) ** 2
    larger: NDArray[np.bool_] = area > LARGEST_PLATELET_UM2
    return larger


def name_cells(atlas: Atlas, X: NDArray[np.float32], source: list[str], large: NDArray[np.bool_]) -> pd.DataFrame:
    """Name cells by the atlas, those in `large` by its cells other than platelets; cells unlike the atlas abstain."""
    named = atlas.classify(X, source)
    rows = np.flatnonzero(large)
    if len(rows) and PLATELET in atlas.classes:
        others = atlas.without(PLATELET).classify(X[rows], [source[row] for row in rows])
        named.iloc[rows] = others.set_axis(rows).to_numpy()
    return named.assign(abstained=named["abstained"].astype(bool) | named["unlike"].astype(bool))


def iter_classify_study(study: Study, settings: RunSettings, atlas: Atlas | None) -> Steps[None]:
    """Write ``predicted predicted_by confidence abstained distance`` of every cell; empty where there is no atlas."""
    from napari_dinobloom.report.differential import pack_confusion

    adata = study.cells
    n = adata.n_obs
    yield Progress(0, n, "nearest reference cells")
    notes = dict(adata.uns.get("dinobloom", {}))
    if atlas is None:
        columns = {"predicted": "", "predicted_by": "", "confidence": np.nan, "abstained": True, "distance": np.nan}
        adata.obs = adata.obs.assign(**columns)
        notes = {name: value for name, value in notes.items() if name not in ("confusion", "distance_limit")}
    else:
        weights = Weights(notes["encoder"], notes["encoder_sha256"], notes["pooling"])
        atlas.check(weights, policy_of(settings))
        bytes_of = {record.id: record.sha256[:16] for record in study.fields}
        source = [bytes_of.get(field) or "0" * 16 for field in adata.obs["field"]]
        large = np.zeros(n, bool) if settings.cells else larger_than_platelets(adata.obs)
        named = name_cells(atlas, np.asarray(adata.X), source, large)
        for name in ("predicted", "confidence", "abstained", "distance"):
            adata.obs[name] = named[name].to_numpy()
        adata.obs["predicted_by"] = f"{atlas.name}-{atlas.hash[:8]}"
        notes["confusion"] = pack_confusion(atlas.confusion_table())
        notes["distance_limit"] = float(atlas.distance_limit)
    adata.uns["dinobloom"] = notes
    with suppress(GateError):  # a gate on a column that is gone is no reason to stop a run; the window says so
        StudyGates(study).with_gates(adata)
    study.save_cells(adata)
    classes = [c.name for c in CLASSES] if atlas is None else [*(c.name for c in CLASSES), *atlas.classes]
    study.update(palette=palette(dict.fromkeys(classes)) | dict(study.palette))
    yield Progress(n, n, "nearest reference cells")
    return None
