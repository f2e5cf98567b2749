"""Sixth step: the class of every cell by its nearest reference cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_dinobloom.cells.taxonomy import CLASSES, palette
from napari_dinobloom.pipeline.crops import policy_of
from napari_dinobloom.pipeline.settings import RunSettings
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.predict.atlas import Atlas


@dataclass(frozen=True, slots=True)
class Weights:
    """Name and hash of the encoder whose embeddings the table holds."""

    name: str
    sha256: str


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
        notes.pop("confusion", None)
    else:
        atlas.check(Weights(notes["encoder"], notes["encoder_sha256"]), policy_of(settings))
        bytes_of = {record.id: record.sha256[:16] for record in study.fields}
        source = [bytes_of.get(field) or "0" * 16 for field in adata.obs["field"]]
        named = atlas.classify(np.asarray(adata.X), source)
        for name in ("predicted", "confidence", "abstained", "distance"):
            adata.obs[name] = named[name].to_numpy()
        adata.obs["predicted_by"] = f"{atlas.name}-{atlas.hash[:8]}"
        notes["confusion"] = pack_confusion(atlas.confusion_table())
    adata.uns["dinobloom"] = notes
    study.save_cells(adata)
    classes = [c.name for c in CLASSES] if atlas is None else [*(c.name for c in CLASSES), *atlas.classes]
    study.update(palette=palette(dict.fromkeys(classes)) | dict(study.palette))
    yield Progress(n, n, "nearest reference cells")
    return None
