"""The cells of each patient of a study that take part in predictions of patients, and what they were made by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.vectors import Vectors
from napari_dinobloom.pipeline.crops import policy_of
from napari_dinobloom.pipeline.settings import digest, resolve

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study

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
    X : list of Vectors
        Embeddings, (n_i, D) float32 each; read when they are asked for.
    sources : list of set of str
        Hashes of each patient's fields.
    """

    names: list[str]
    rows: list[NDArray[np.intp]]
    X: list[Vectors]
    sources: list[set[str]]


def collect(study: Study) -> Bags:
    """Collect the cells of each patient that take part.

    Raises
    ------
    StudyError
        If no cell is embedded.
    """
    x = _embedded(study)
    used = _taking_part(study, x.finite())
    obs = study.cells.obs
    patient = obs["patient"].astype(str).to_numpy()
    codes, names = pd.factorize(patient[used], sort=True)
    parts = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes)))
    rows = [used[part] for part in parts[: len(names)]]  # behind the last patient there is nothing
    hashes = {record.id: record.sha256 for record in study.fields}
    field = obs["field"].astype(str).to_numpy()
    sources = [{hashes.get(one, "") for one in set(field[part])} for part in rows]
    return Bags(names.tolist(), rows, [x.take(part) for part in rows], sources)


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What `made_of` needs of the embeddings of a study, read once.

    Attributes
    ----------
    source : str or weak reference
        Which embeddings these are: the name of those that lie on the disk, else the array.
    finite : (n,) array of bool
        Cells that are embedded.
    first : (n, FIRST) array of float32
        The first numbers of each embedding.
    """

    source: str | ref[Any]
    finite: NDArray[np.bool_]
    first: NDArray[np.float32]

    @classmethod
    def of(cls, study: Study) -> Seen:
        """Read the embeddings of a study once, in blocks; StudyError if no cell is embedded."""
        x, X = _embedded(study), study.cells.X
        finite, first = np.zeros(len(x), bool), np.empty((len(x), min(FIRST, x.shape[1])), np.float32)
        for part, block in x.blocks():
            finite[part], first[part] = np.isfinite(block).all(axis=1), block[:, :FIRST]
        return cls(getattr(X, "name", "") or ref(X), finite, first)

    def holds(self, study: Study) -> bool:
        """Whether these are the embeddings that a study has now; what was written into an array is not noticed."""
        X = study.cells.X
        own = self.source == getattr(X, "name", "") if isinstance(self.source, str) else self.source() is X
        return own and len(self.finite) == study.cells.n_obs


def _embedded(study: Study) -> Vectors:
    """Embeddings of all cells; StudyError if there are none."""
    adata = study.cells
    if adata.X is None or "encoder_sha256" not in adata.uns.get("dinobloom", {}):
        raise StudyError(f"{study.path}: its cells are not embedded yet. Run the study once.")
    return Vectors.of(adata)


def _taking_part(study: Study, finite: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Rows of the cells that take part."""
    obs = study.cells.obs
    away = obs["deleted"].to_numpy(bool) | obs["excluded"].to_numpy(bool) | obs["gone"].to_numpy(bool)
    away |= (obs["duplicate_of"] != "").to_numpy(bool)  # the same cell, seen in an overlapping field
    patient = obs["patient"].astype(str).to_numpy()
    return np.flatnonzero(~away & (patient != "") & finite)


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


def made_of(study: Study, seen: Seen | None = None) -> str:
    """Digest of what a result rests on: which cells take part, whose they are, and how they were embedded.

    `seen`: of these embeddings; by default they are read.
    """
    seen = Seen.of(study) if seen is None else seen
    used = _taking_part(study, seen.finite)
    obs = study.cells.obs
    parts = ["\n".join(obs.index[used]), "\n".join(obs["patient"].astype(str).to_numpy()[used])]
    found = hashlib.sha256("\n\n".join(parts).encode("utf-8", "backslashreplace"))
    found.update(seen.first[used].tobytes())
    return digest(about(study), found.hexdigest())
