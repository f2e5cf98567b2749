"""Which cells count in a differential, stated once; and what becomes of the others.

The rule, in this order. A cell does not count that
1. a person deleted or excluded;
2. is a duplicate: of the pictures of one cell in overlapping fields one counts, one that a person labelled before
   others, the earliest before later ones, but none that rules 3 and 4 leave out; if a person deleted or excluded the
   earliest, none counts;
3. touches the border of its field, unless a person reviewed or labelled it;
4. has a crop that cannot be read (its quality is neither empty nor ``ok``), unless a person reviewed or labelled it;
5. was neither reviewed nor labelled by a person, where reviewed cells only are to be counted;
6. is a platelet or an artefact, or of a class that the counting scheme leaves out;
7. is a smudge cell, or in blood an erythroblast: these are given per 100 counted cells.
In blood that leaves leucocytes, in marrow nucleated cells (leucocytes and erythroid cells). A scheme
(`report.schemes`) may place a class elsewhere in rules 6 and 7. Cells on which the classifier abstained are counted as
``unclassified``. A person's label overrides the prediction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells.taxonomy import BY_NAME, UNCLASSIFIED, describe
from napari_dinobloom.errors import DinoBloomError

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_dinobloom.report.schemes import Scheme

Specimen = Literal["blood", "marrow"]
SPECIMENS: tuple[Specimen, ...] = ("blood", "marrow")
Selection = Literal["all", "reviewed"]
SELECTIONS: tuple[Selection, ...] = ("all", "reviewed")

PER_100 = "per 100"
LEFT_OUT = "left out"
REASONS: tuple[str, ...] = (
    "deleted",
    "excluded",
    "duplicate",
    "border",
    "unreadable",
    "unreviewed",
    "platelet",
    "artefact",
    LEFT_OUT,
    PER_100,
)
"""Why a cell is not in the denominator; each cell has one reason, the first that applies, or none."""

SMUDGE = "smudge_cell"


def counting(
    table: AnnData | pd.DataFrame,
    /,
    *,
    specimen: Specimen = "blood",
    scheme: Scheme | None = None,
    cells: Selection = "all",
) -> pd.DataFrame:
    """Say of each cell what it counts as and, if it does not, why.

    Parameters
    ----------
    table : AnnData or DataFrame
        The cell table, or its `obs`. ``predicted`` or ``label`` is needed; other columns that are absent count as
        "nothing noted".
    specimen : {"blood", "marrow"}
        What was smeared.
    scheme : Scheme, optional
        Says of classes whether they count. It does not rename them: ``class`` stays the cell's own.
    cells : {"all", "reviewed"}
        Which cells can count: all, or those that a person has reviewed or labelled.

    Returns
    -------
    DataFrame
        With the index of `table`: ``class`` (str), ``known`` (bool, a person stated it) and ``reason`` (str, one of
        `REASONS`, or "" for a cell in the denominator).

    Raises
    ------
    DinoBloomError
        If `specimen` or `cells` is not known or there is neither a prediction nor a label.
    """
    if specimen not in SPECIMENS:
        raise DinoBloomError(f"Specimen {specimen!r} is not known; use 'blood' or 'marrow'")
    if cells not in SELECTIONS:
        raise DinoBloomError(f"Cells {cells!r} cannot be counted; use 'all' or 'reviewed'")
    obs = table_of(table)
    if len(obs) and not {"predicted", "label"} & set(obs.columns):
        raise DinoBloomError("The cells have neither a prediction nor a label: classify them before counting")
    label, predicted = text(obs, "label"), text(obs, "predicted")
    known = label != ""
    unsure = flag(obs, "abstained") | (predicted == "")
    name = np.where(known, label, np.where(unsure, UNCLASSIFIED, predicted)).astype(object)
    reason = _own_reason(obs, known, cells)
    reason = np.where(_twin_counts_instead(obs, reason, known), "duplicate", reason)
    codes, names = pd.factorize(name)
    of_class = np.array([class_reason(one, specimen, scheme) for one in names], dtype=object)
    reason = np.where(reason == "", of_class[codes], reason) if len(names) else reason
    return pd.DataFrame({"class": name, "known": known, "reason": reason.astype(object)}, index=obs.index)


def class_reason(name: str, specimen: Specimen, scheme: Scheme | None = None) -> str:
    """Why cells of class `name` are not in the denominator: one of `REASONS`, or "" if they are."""
    line = None if scheme is None else scheme.line(name)
    if line is not None:
        if line.count:
            return {"denominator": "", "per 100": PER_100, "excluded": LEFT_OUT}[line.count]
        name = line.members[0]
    if name == SMUDGE:
        return PER_100
    group = describe(name).group
    if group in ("platelet", "artefact"):
        return group
    return PER_100 if group == "erythroid" and specimen == "blood" else ""


def in_order(names: set[str]) -> list[str]:
    """Class names in the order of a differential: the taxonomy's, then unknown ones, ``unclassified`` last."""
    taxonomy = list(BY_NAME)
    return sorted(names, key=lambda n: (n == UNCLASSIFIED, taxonomy.index(n) if n in BY_NAME else len(taxonomy), n))


def table_of(cells: AnnData | pd.DataFrame) -> pd.DataFrame:
    """The table of cells itself: `obs` of an AnnData, or the DataFrame given."""
    return cells if isinstance(cells, pd.DataFrame) else pd.DataFrame(cells.obs)


def text(obs: pd.DataFrame, column: str) -> NDArray[np.object_]:
    """A text column with "" for missing values and for a missing column."""
    if column not in obs:
        return np.full(len(obs), "", dtype=object)
    values = obs[column].astype(object)
    if pd.api.types.infer_dtype(values, skipna=False) == "string":  # and none is missing
        return values.to_numpy()
    return values.where(values.notna(), "").astype(str).to_numpy(dtype=object)


def flag(obs: pd.DataFrame, column: str) -> NDArray[np.bool_]:
    """A yes-or-no column, no where it is missing."""
    if column not in obs:
        return np.zeros(len(obs), dtype=bool)
    if obs[column].dtype == bool:
        return obs[column].to_numpy()
    values = obs[column].astype(object)
    return values.where(values.notna(), False).astype(bool).to_numpy()


def _own_reason(obs: pd.DataFrame, known: NDArray[np.bool_], cells: Selection) -> NDArray[np.object_]:
    """Reasons that lie in the cell alone: deleted, excluded, border, unreadable, unreviewed."""
    seen = flag(obs, "reviewed") | known
    quality = text(obs, "quality")
    conditions = [
        flag(obs, "deleted"),
        flag(obs, "excluded"),
        flag(obs, "touches_border") & ~seen,
        (quality != "") & (quality != "ok") & ~seen,
        ~seen & (cells == "reviewed"),
    ]
    reason = np.select(conditions, ["deleted", "excluded", "border", "unreadable", "unreviewed"], default="")
    return reason.astype(object)


def _twin_counts_instead(obs: pd.DataFrame, reason: NDArray[np.object_], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether another picture of the same cell counts, or a person has left the cell out there.

    Cells with an own reason keep it and are never marked.
    """
    pointer = text(obs, "duplicate_of")
    marked = np.zeros(len(obs), dtype=bool)
    if not (pointer != "").any():
        return marked
    ids = text(obs, "cell_id") if "cell_id" in obs else obs.index.astype(str).to_numpy(dtype=object)
    twin = _groups(ids, pointer)
    by_hand = (
        pd.Series(((reason == "deleted") | (reason == "excluded")) & (pointer == "")).groupby(twin).transform("any")
    )
    blocked = by_hand.to_numpy()
    order = pd.DataFrame({"twin": twin, "unlabelled": ~known, "later": pointer != "", "id": ids})
    eligible = order[(reason == "") & ~blocked].sort_values(["twin", "unlabelled", "later", "id"], kind="stable")
    first = eligible.drop_duplicates("twin").index.to_numpy()
    marked = np.asarray(reason == "", dtype=bool)
    marked[first] = False
    return marked


def _groups(ids: NDArray[np.object_], pointer: NDArray[np.object_]) -> NDArray[np.int64]:
    """Number of the group of duplicates that each cell belongs to; links to cells that are not there are ignored."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    target = pd.Index(ids).get_indexer(pd.Index(pointer)) if len(set(ids)) == len(ids) else _first_index(ids, pointer)
    rows = np.flatnonzero((pointer != "") & (target >= 0))
    n = len(ids)
    graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, target[rows])), shape=(n, n))
    groups: NDArray[np.int64] = connected_components(graph, directed=False)[1].astype(np.int64)
    return groups


def _first_index(ids: NDArray[np.object_], pointer: NDArray[np.object_]) -> NDArray[np.int64]:
    """Row of the first cell of each id, -1 where there is none."""
    where: dict[str, int] = {}
    for row, name in enumerate(ids):
        where.setdefault(name, row)
    return np.array([where.get(name, -1) for name in pointer], dtype=np.int64)
