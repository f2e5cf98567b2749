"""The cells of each patient of a study that take part in predictions of patients, and what they were made by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import StudyError
from napari_dinobloom.pipeline.crops import policy_of
from napari_dinobloom.pipeline.settings import digest, resolve

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study

Float32 = NDArray[np.float32]

FIRST = 4
"""Numbers of each embedding by which it is known whether the cells were embedded anew."""


@dataclass(frozen=True, slots=True, eq=False)
class Bags:
    """The cells of the patients of a study that take part: living, not excluded, embedded.

    Attributes
    ----------
    names : list of str
        Patients, sorted.
    rows : list of (n_i,) arrays of int
        Rows of the cell table.
    X : list of (n_i, D) arrays of float32
        Embeddings.
    sources : list of set of str
        Hashes of each patient's fields.
    """

    names: list[str]
    rows: list[NDArray[np.intp]]
    X: list[Float32]
    sources: list[set[str]]


def collect(study: Study) -> Bags:
    """Collect the cells of each patient that take part.

    Raises
    ------
    StudyError
        If no cell is embedded.
    """
    x, used = _taking_part(study)
    obs = study.cells.obs
    patient = obs["patient"].astype(str).to_numpy()
    names = sorted(set(patient[used]))
    rows = [used[patient[used] == name] for name in names]
    hashes = {record.id: record.sha256 for record in study.fields}
    field = obs["field"].astype(str).to_numpy()
    sources = [{hashes.get(one, "") for one in set(field[part])} for part in rows]
    return Bags(names, rows, [x[part] for part in rows], sources)


def _taking_part(study: Study) -> tuple[Float32, NDArray[np.intp]]:
    """Embeddings of all cells, and rows of those that take part."""
    adata, obs = study.cells, study.cells.obs
    if adata.X is None or "encoder_sha256" not in adata.uns.get("dinobloom", {}):
        raise StudyError(f"{study.path}: its cells are not embedded yet. Run the study once.")
    x = np.asarray(adata.X, dtype=np.float32)
    away = obs["deleted"].to_numpy(bool) | obs["excluded"].to_numpy(bool) | obs["gone"].to_numpy(bool)
    away |= (obs["duplicate_of"] != "").to_numpy(bool)  # the same cell, seen in an overlapping field
    patient = obs["patient"].astype(str).to_numpy()
    return x, np.flatnonzero(~away & (patient != "") & np.isfinite(x).all(axis=1))


def about(study: Study) -> dict[str, Any]:
    """What the cells of a study are, as a model file says it."""
    notes = study.cells.uns.get("dinobloom", {})
    if "encoder_sha256" not in notes:
        raise StudyError(f"{study.path}: its cells are not embedded yet. Run the study once.")
    return {
        "encoder": str(notes.get("encoder", "")),
        "encoder_sha256": str(notes["encoder_sha256"]),
        "pooling": str(notes.get("pooling", "class")),
        "crops": policy_of(resolve(study.settings, {})).to_dict(),
        "stain": str(notes.get("stain", "")),
    }


def made_of(study: Study) -> str:
    """Digest of what a result rests on: which cells take part, whose they are, and how they were embedded."""
    x, used = _taking_part(study)
    obs = study.cells.obs
    parts = ["\n".join(obs.index[used]), "\n".join(obs["patient"].astype(str).to_numpy()[used])]
    found = hashlib.sha256("\n\n".join(parts).encode("utf-8", "backslashreplace"))
    found.update(np.ascontiguousarray(x[used, :FIRST]).tobytes())
    return digest(about(study), found.hexdigest())
