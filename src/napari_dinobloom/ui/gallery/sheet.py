"""What the gallery knows of every cell, as arrays by row of the cell table: class, marks, measures; no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED, describe
from napari_dinobloom.explore.cell_attention import attention_of
from napari_dinobloom.io.journal import user
from napari_dinobloom.io.study import Study
from napari_dinobloom.report.agreement import readings
from napari_dinobloom.report.counting import in_order
from napari_dinobloom.ui.texts import text

Rows = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

ATTENTION = "attention"
"""How columns of the cell table, or of ``obsm``, begin that hold a cell's weight in a patient's prediction."""


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """All cells of a study, as one reader gets to see them.

    Attributes
    ----------
    ids : Index
        (n,) cell ids, the rows of the cell table.
    classes : tuple of str
        Classes that occur, in the order of a differential.
    codes : (n,) int array
        Place of each cell's class in `classes`: a person's label, else the prediction, else ``unclassified``.
    by_hand, reviewed, excluded, living : (n,) bool arrays
        Whether a person named the cell, looked at it, left it out of the counts; whether it is not deleted.
    predicted : (n,) object array
        Class by the classifier; "" where it named none.
    author : (n,) object array
        Who named the cell by hand; "" for nobody.
    slide : (n,) object array
        Its slide.
    measures : dict
        ``confidence``, ``outlier`` (distance to the nearest reference cell), ``size`` (area, in square micrometres
        where every cell has a scale, else in pixels) and a column for each kind of attention, (n,) float32, NaN where
        it is not known.
    """

    ids: pd.Index[Any]
    classes: tuple[str, ...]
    codes: npt.NDArray[np.intp]
    by_hand: Bools
    reviewed: Bools
    excluded: Bools
    living: Bools
    predicted: npt.NDArray[np.object_]
    author: npt.NDArray[np.object_]
    slide: npt.NDArray[np.object_]
    measures: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, row: int) -> str:
        """Class of a cell."""
        return self.classes[int(self.codes[row])]

    def line(self, row: int) -> str:
        """One line about a cell, for people."""
        parts = [text("cell.line", cell_id=self.ids[row], title=describe(self.name(row)).title)]
        confidence, distance = self.measures["confidence"][row], self.measures["outlier"][row]
        if self.by_hand[row]:
            parts.append(text("cell.by_hand", author=self.author[row]))
        elif np.isfinite(confidence):
            parts.append(text("cell.confidence", confidence=float(confidence)))
        if np.isfinite(distance):
            parts.append(text("cell.distance", distance=float(distance)))
        parts.append(str(self.slide[row]))
        parts += [text(f"cell.{mark}") for mark in ("reviewed", "excluded") if getattr(self, mark)[row]]
        return " · ".join(parts)

    def tally(self, rows: Rows) -> dict[str, tuple[int, int]]:
        """Cells among `rows`, and how many of them are reviewed, by class."""
        every = np.bincount(self.codes[rows], minlength=len(self.classes))
        seen = np.bincount(self.codes[rows[self.reviewed[rows]]], minlength=len(self.classes))
        return {name: (int(every[i]), int(seen[i])) for i, name in enumerate(self.classes) if every[i]}


def read_sheet(study: Study, reader: str = "", *, blind: bool = False) -> Sheet:
    """Read what the gallery shows of a study.

    Parameters
    ----------
    study : Study
        Open.
    reader : str
        Who looks; empty for the user of this machine.
    blind : bool
        Show only the labels and review marks of this reader, by the journal; else those of the table.
    """
    obs = study.cells.obs
    label, author, reviewed = (obs[name].to_numpy() for name in ("label", "label_by", "reviewed"))
    if blind:
        label, author, reviewed = _own(study, reader or user(), len(obs))
    predicted = np.where(obs["abstained"].to_numpy(bool), "", obs["predicted"].to_numpy(dtype=object))
    by_hand = label != ""
    names = np.where(by_hand, label, np.where(predicted == "", UNCLASSIFIED, predicted))
    codes, found = pd.factorize(names)
    classes = in_order(set(map(str, found)))
    place = np.array([classes.index(str(name)) for name in found], dtype=np.intp)
    return Sheet(
        ids=obs.index,
        classes=tuple(classes),
        codes=place[codes],
        by_hand=by_hand,
        reviewed=reviewed.astype(bool, copy=True),
        excluded=obs["excluded"].to_numpy(bool, copy=True),
        living=~obs["deleted"].to_numpy(bool),
        predicted=predicted,
        author=np.array(author, dtype=object),
        slide=obs["slide"].to_numpy(dtype=object),
        measures=_measures(study),
    )


def _own(study: Study, reader: str, count: int) -> tuple[Any, Any, Any]:
    """Labels, who gave them, and review marks of one reader alone."""
    said = readings(study)
    label = np.full(count, "", dtype=object)
    reviewed = np.zeros(count, dtype=bool)
    if reader in said.labels:
        rows = study.cells.obs.index.get_indexer(said.labels.index)
        label[rows], reviewed[rows] = said.labels[reader], said.reviewed[reader]
    return label, np.where(label != "", reader, ""), reviewed


def _measures(study: Study) -> dict[str, Floats]:
    """Numbers that cells can be sorted by."""
    adata = study.cells
    obs = adata.obs
    size = obs["area_px"].to_numpy(np.float32)
    scale = obs["pixel_size_um"].to_numpy(np.float32)
    if len(scale) and np.isfinite(scale).all():
        size = size * scale**2
    found = {
        "confidence": obs["confidence"].to_numpy(np.float32),
        "outlier": obs["distance"].to_numpy(np.float32),
        "size": size,
    }
    for name in obs.columns:
        if str(name).startswith(ATTENTION) and obs[name].dtype.kind in "fiu":
            found[str(name)] = obs[name].to_numpy(np.float32)
    for name, values in adata.obsm.items():
        if str(name).startswith(ATTENTION):
            named = attention_of(adata) if name == ATTENTION else None
            found |= _columns(str(name), values if named is None else named)
    return found


def _columns(name: str, values: Any) -> dict[str, Floats]:
    """Columns of a matrix of ``obsm``, each with a name."""
    if isinstance(values, pd.DataFrame):
        return {f"{name} {column}": values[column].to_numpy(np.float32) for column in values.columns}
    matrix = np.asarray(values, dtype=np.float32).reshape(len(values), -1)
    titles = [name] if matrix.shape[1] == 1 else [f"{name} {at + 1}" for at in range(matrix.shape[1])]
    return dict(zip(titles, matrix.T, strict=True))
