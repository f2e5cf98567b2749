"""Sixth step: the class of every cell by its nearest reference cells, or by a probe."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells.taxonomy import CLASSES, palette
from napari_dinobloom.errors import AtlasError
from napari_dinobloom.explore.gates.base import GateError
from napari_dinobloom.explore.study_gates import StudyGates
from napari_dinobloom.io.fingerprint import MARK
from napari_dinobloom.pipeline.adapting import embeddings_of, fit_shifts, without_shifts
from napari_dinobloom.pipeline.crops import policy_of
from napari_dinobloom.pipeline.settings import RunSettings, resolve
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.predict.classifier import CellClassifier


VERSION = 1
TOGETHER = 1 << 14
"""Cells that are named at once; of more, what is held besides the table does not grow."""

PLATELET = "platelet"
LARGEST_PLATELET_UM2 = 50.0
"""Area of a disc of 8 um."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Name and hash of an encoder, what was taken of its output, and how crops were recoloured first, if they were."""

    name: str
    sha256: str
    pooling: str
    stain: str = ""


def find_atlas(settings: RunSettings) -> CellClassifier | None:
    """Load what names the cells of a run: an atlas, with the votes counted as asked for, or a probe.

    Returns
    -------
    Atlas, Probe or None
        None where none was wanted, or ``auto`` finds none that comes with the encoder.

    Raises
    ------
    AtlasError
        If a named one is missing, or is damaged, or a probe was asked to count votes.
    """
    from napari_dinobloom.predict.atlas import Atlas
    from napari_dinobloom.predict.classifier import load_classifier
    from napari_dinobloom.predict.shelf import bundled_file, find

    if settings.atlas == "none":
        return None
    auto = settings.atlas == "auto"
    path = bundled_file(settings.encoder, policy_of(settings)) if auto else find(settings.atlas)
    if path is None:
        return None
    found = load_classifier(path)
    metric = None if settings.knn_metric == "own" else settings.knn_metric
    weights = None if settings.knn_weights == "own" else settings.knn_weights
    if isinstance(found, Atlas):
        return found.using(k=settings.knn_k, metric=metric, weights=weights)
    if settings.knn_k or metric or weights:
        raise AtlasError(
            f"{found.name!r} is a probe, whose reference cells do not vote: leave number, metric and weights of "
            "neighbours as they are (--k 0 --metric own --weights own)"
        )
    return found


def larger_than_platelets(obs: pd.DataFrame) -> NDArray[np.bool_]:
    """Cells whose outline is larger than that of any platelet; giant ones are about as wide as a red cell."""
    area = obs["area_px"].to_numpy(np.float64) * obs["pixel_size_um"].to_numpy(np.float64) ** 2
    larger: NDArray[np.bool_] = area > LARGEST_PLATELET_UM2
    return larger


def name_cells(
    atlas: CellClassifier, X: NDArray[np.float32], source: list[str], large: NDArray[np.bool_]
) -> pd.DataFrame:
    """Name cells by the atlas, those in `large` by its cells other than platelets; cells unlike the atlas abstain."""
    named = atlas.classify(X, source)
    rows = np.flatnonzero(large)
    if len(rows) and PLATELET in atlas.classes:
        others = atlas.without(PLATELET).classify(X[rows], [source[row] for row in rows])
        named.iloc[rows] = others.set_axis(rows).to_numpy()
    return named.assign(abstained=named["abstained"].astype(bool) | named["unlike"].astype(bool))


def sources_of(study: Study, obs: pd.DataFrame) -> list[str]:
    """Picture of each cell as atlases name it: the first 16 hexadecimal digits of the fingerprint of its file."""
    bytes_of = {record.id: record.sha256.removeprefix(MARK)[:16] for record in study.fields}
    return [bytes_of.get(field) or "0" * 16 for field in obs["field"]]


def explain(study: Study, classifier: CellClassifier, rows: NDArray[np.integer] | None = None) -> pd.DataFrame:
    """Reference cells beside each cell, in the order in which they vote.

    Parameters
    ----------
    study : Study
        Its cells are embedded.
    classifier : CellClassifier
        What names them; see `find_atlas`.
    rows : (m,) array of int, optional
        Rows of the cell table; by default all that are not deleted.

    Returns
    -------
    DataFrame
        ``cell_id rank class source distance row``; ``row`` is the reference cell's place in the atlas.

    Raises
    ------
    AtlasError
        If the cells are not embedded yet, or by another encoder or from other crops.
    """
    adata, settings = study.cells, resolve(study.settings, {})
    check_study(study, classifier, settings)
    if rows is None:
        rows = np.flatnonzero(~adata.obs["deleted"].to_numpy(bool))
    obs = adata.obs.iloc[rows]
    source = np.asarray(sources_of(study, obs))
    X = embeddings_of(adata, rows)
    large = np.zeros(len(rows), bool) if settings.cells else larger_than_platelets(obs)
    large &= PLATELET in classifier.classes
    parts = []
    for who, some in ((classifier, np.flatnonzero(~large)), (classifier.without(PLATELET), np.flatnonzero(large))):
        table = who.explain(X[some], source[some].tolist())
        parts.append(table.assign(cell=some[table["cell"].to_numpy(np.int64)], row=who.rows(table["row"].to_numpy())))
    table = pd.concat([part for part in parts if len(part)] or parts[:1])
    table = table.sort_values(["cell", "rank"], kind="stable", ignore_index=True)
    table.insert(0, "cell_id", obs.index.to_numpy()[table["cell"].to_numpy(np.int64)])
    return table.drop(columns="cell")


def write_neighbours(study: Study, path: Path) -> Path:
    """Write the reference cells beside each cell that is not deleted as CSV: ``cell_id rank class source distance``.

    Raises
    ------
    AtlasError
        If nothing names the cells, or as `explain`.
    """
    from napari_dinobloom.io.tables import write_csv

    classifier = find_atlas(resolve(study.settings, {}))
    if classifier is None:
        raise AtlasError(f"{study.path}: no atlas names its cells, so that there are no neighbours; give --atlas")
    check_study(study, classifier, resolve(study.settings, {}))
    rows = np.flatnonzero(~study.cells.obs["deleted"].to_numpy(bool))
    parts = (rows[start : start + TOGETHER] for start in range(0, max(len(rows), 1), TOGETHER))
    write_csv(path, (explain(study, classifier, part).drop(columns="row") for part in parts))
    return path


def check_study(study: Study, classifier: CellClassifier, settings: RunSettings) -> None:
    """Refuse a study whose cells are not embedded, or by another encoder or from other crops or stains; AtlasError."""
    notes = dict(study.cells.uns.get("dinobloom", {}))
    if "encoder_sha256" not in notes:
        raise AtlasError(f"{study.path}: its cells are not embedded yet; run `napari-dinobloom embed` first")
    classifier.check(weights_of(notes), policy_of(settings))


def weights_of(notes: Mapping[str, Any]) -> Weights:
    """What embedded the cells of a table, by its notes."""
    pooling, stain = str(notes.get("pooling", "class")), str(notes.get("stain", ""))
    return Weights(str(notes["encoder"]), str(notes["encoder_sha256"]), pooling, stain)


def iter_classify_study(study: Study, settings: RunSettings, atlas: CellClassifier | None) -> Steps[None]:
    """Write ``predicted predicted_by confidence abstained distance`` of every cell; empty where there is no atlas.

    The table changes after the last report but one: until then a run can be stopped and nothing has happened.
    """
    from napari_dinobloom.report.quantify import pack_confusion

    adata = study.cells
    n = adata.n_obs
    yield Progress(0, n, "nearest reference cells")
    notes = dict(adata.uns.get("dinobloom", {}))
    if atlas is None:
        columns = {"predicted": "", "predicted_by": "", "confidence": np.nan, "abstained": True, "distance": np.nan}
        adata.obs = adata.obs.assign(**columns)
        notes = {name: value for name, value in notes.items() if name not in ("confusion", "distance_limit")}
        notes = without_shifts(notes)
    else:
        check_study(study, atlas, settings)
        notes = without_shifts(notes) | (fit_shifts(adata, settings.adapt, atlas) if settings.adapt else {})
        source = sources_of(study, adata.obs)
        large = np.zeros(n, bool) if settings.cells else larger_than_platelets(adata.obs)
        parts = []
        for start in range(0, n, TOGETHER):
            part = slice(start, start + TOGETHER)
            parts.append(name_cells(atlas, embeddings_of(adata, part, notes), source[part], large[part]))
            yield Progress(min(start + TOGETHER, n), n, "nearest reference cells")
        parts = parts or [name_cells(atlas, embeddings_of(adata, notes=notes), source, large)]
        named = pd.concat(parts, ignore_index=True)
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
