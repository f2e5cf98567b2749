"""What each reader said of each cell, and how far two readers agree.

The cell table holds one hand label a cell, the last one. The journal keeps every act with who did it, so that the last
label of each reader is known beside it. An act that was undone was never said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.errors import DinoBloomError, InputError
from napari_dinobloom.io.tables import write_csv
from napari_dinobloom.report.counting import in_order

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_dinobloom.io.acts import Entry
    from napari_dinobloom.io.study import Study

PREDICTION = "prediction"
"""Name of the classifier where it stands beside readers."""

INTERVAL = "low and high: 95 % interval of kappa for large samples (Fleiss, Cohen and Everitt 1969)"

Z95 = 1.959963984540054
"""97.5th percentile of the standard normal distribution."""


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """What readers said, by their last acts that were not undone.

    Attributes
    ----------
    labels : DataFrame
        (cells, readers) str, the class that a reader gave a cell last; "" for none. Rows are the living cells that
        anybody labelled or reviewed, in the order of the table; columns are sorted.
    reviewed : DataFrame
        (cells, readers) bool, whether the reader marked the cell as looked at; same rows and columns.
    """

    labels: pd.DataFrame
    reviewed: pd.DataFrame


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """How far two readers agree on the cells that both named.

    Attributes
    ----------
    n : int
        Cells that both named.
    percent : float
        Share of them that got the same class, in percent; NaN for no cell.
    expected : float
        Percent that would agree by chance, from how often each reader uses each class.
    kappa : float
        Cohen's kappa; NaN where it is not defined: no cell, or both readers used one and the same class throughout.
    low, high : float
        Its 95 % interval; NaN where kappa is.
    confusion : DataFrame
        Cells by the class of the first reader (rows) and of the second (columns), int64, in the order of a
        differential.
    """

    n: int
    percent: float
    expected: float
    kappa: float
    low: float
    high: float
    confusion: pd.DataFrame


def standing(acts: Sequence[Entry]) -> list[Entry]:
    """Return the acts on cells that are not undone, without lines of undo and redo themselves."""
    root: dict[int, int] = {}
    holds: dict[int, bool] = {}
    for act in acts:
        if act.undoes is None:
            root[act.seq], holds[act.seq] = act.seq, True
        elif act.undoes in root:
            root[act.seq] = root[act.undoes]
            holds[root[act.seq]] = not holds[root[act.seq]]
    return [act for act in acts if act.undoes is None and act.cells and holds[act.seq]]


def readings(study: Study) -> Readings:
    """Collect what each reader said of each cell of a study.

    A cell that was merged or split takes its label over from the cell before, and with it the reader of that label.
    """
    said: dict[str, dict[str, str]] = {}
    seen: dict[str, dict[str, bool]] = {}
    for act in standing(study.acts):
        if "label" in act.new:
            authors = _each(act.new.get("label_by", ""), len(act.cells))
            inherits = act.op != "label"
            for cell, value, by in zip(act.cells, _each(act.new["label"], len(act.cells)), authors, strict=True):
                reader = str(by) if inherits else act.who
                if reader:
                    said.setdefault(reader, {})[cell] = str(value)
        if "reviewed" in act.new:
            marks = seen.setdefault(act.who, {})
            marks.update(zip(act.cells, map(bool, _each(act.new["reviewed"], len(act.cells))), strict=True))
    readers = sorted({*said, *seen})
    obs = study.cells.obs
    named = {cell for label in said.values() for cell in label} | {cell for marks in seen.values() for cell in marks}
    rows = obs.index[obs.index.isin(named) & ~obs["deleted"].to_numpy(bool)]
    labels = {reader: _filled(rows, said.get(reader, {}), "") for reader in readers}
    reviewed = {reader: _filled(rows, seen.get(reader, {}), False).astype(bool) for reader in readers}
    return Readings(pd.DataFrame(labels, index=rows, dtype=object), pd.DataFrame(reviewed, index=rows, dtype=bool))


def labels_by_reader(study: Study, *, prediction: bool = False) -> pd.DataFrame:
    """Return the last label that each reader gave each cell.

    Parameters
    ----------
    study : Study
        Its journal is read.
    prediction : bool
        Add the classifier as a column `PREDICTION`, of the cells that it named.

    Returns
    -------
    DataFrame
        (cells, readers) str, "" for none; the living cells that at least one reader has named, in the order of the
        table.
    """
    labels = readings(study).labels
    labels = labels[(labels != "").any(axis=1)] if len(labels.columns) else labels
    labels = labels.loc[:, (labels != "").any(axis=0)]
    if not prediction:
        return labels
    obs = study.cells.obs.loc[labels.index]
    name = PREDICTION if PREDICTION not in labels else f"{PREDICTION} (classifier)"
    named = np.where(obs["abstained"].to_numpy(bool), "", obs["predicted"].to_numpy(dtype=object))
    return labels.assign(**{name: named})


def read_by(study: Study, reader: str) -> AnnData:
    """Return the cells as one reader left them: that reader's labels and marks, and the classifier's names beneath.

    Parameters
    ----------
    study : Study
        Its journal is read; nothing is changed.
    reader : str
        Name as it stands in the journal.

    Returns
    -------
    AnnData
        The cell table with ``label`` and ``reviewed`` of this reader alone; without embeddings.

    Raises
    ------
    InputError
        If nobody of this name labelled or reviewed a cell.
    """
    from anndata import AnnData

    said = readings(study)
    if reader not in said.labels:
        there = ", ".join(said.labels.columns) or "nobody yet"
        raise InputError(f"{study.name}: {reader!r} has labelled or reviewed no cell; readers are {there}.")
    obs = study.cells.obs.assign(label="", reviewed=False)
    obs.loc[said.labels.index, "label"] = said.labels[reader]
    obs.loc[said.reviewed.index, "reviewed"] = said.reviewed[reader]
    return AnnData(obs=obs, uns={"dinobloom": dict(study.cells.uns.get("dinobloom", {}))})


def agreement(a: Sequence[str] | pd.Series[Any], b: Sequence[str] | pd.Series[Any]) -> Agreement:
    """Compare two readers.

    Parameters
    ----------
    a, b : sequence of str
        Class of each cell by each reader, in the same order; "" for a cell that a reader has not named.

    Returns
    -------
    Agreement
        Kappa after Cohen (1960, doi:10.1177/001316446002000104). The interval is kappa plus and minus 1.96 standard
        errors for large samples, formula 13 of Fleiss, Cohen and Everitt (1969, doi:10.1037/h0028106), and ends at -1
        and 1; with few cells (under about 30) it is a rough guide only.

    Raises
    ------
    DinoBloomError
        If the two are not of the same length.
    """
    one, other = np.asarray(a, dtype=object), np.asarray(b, dtype=object)
    if one.shape != other.shape:
        raise DinoBloomError(f"{len(one)} labels of one reader and {len(other)} of the other: give one for each cell.")
    both = (one != "") & (other != "")
    one, other = one[both].astype(str), other[both].astype(str)
    classes = in_order({*one.tolist(), *other.tolist()})
    at = {name: i for i, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, ([at[name] for name in one], [at[name] for name in other]), 1)
    table = pd.DataFrame(counts, index=classes, columns=classes)
    n = int(counts.sum())
    if n == 0:
        return Agreement(0, np.nan, np.nan, np.nan, np.nan, np.nan, table)
    p = counts / n
    observed = float(np.trace(p))
    expected = float(p.sum(axis=1) @ p.sum(axis=0))
    kappa, error = _kappa(p, observed, expected, n)
    low, high = (max(kappa - Z95 * error, -1.0), min(kappa + Z95 * error, 1.0)) if np.isfinite(kappa) else (np.nan,) * 2
    return Agreement(n, 100 * observed, 100 * expected, kappa, low, high, table)


def agreements(labels: pd.DataFrame) -> pd.DataFrame:
    """Compare every two readers.

    Parameters
    ----------
    labels : DataFrame
        As `labels_by_reader` returns it.

    Returns
    -------
    DataFrame
        One row for two readers: ``first second n percent expected kappa low high``.
    """
    rows = []
    for first, second in combinations(labels.columns, 2):
        found = agreement(labels[first], labels[second])
        figures = (found.n, found.percent, found.expected, found.kappa, found.low, found.high)
        rows.append((first, second, *figures))
    return pd.DataFrame(rows, columns=["first", "second", "n", "percent", "expected", "kappa", "low", "high"])


def differing(labels: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Rows of the cells that both readers named, and named differently: columns `first` and `second`."""
    one, other = labels[first], labels[second]
    return labels.loc[(one != "") & (other != "") & (one != other), [first, second]]


def write_agreement(labels: pd.DataFrame, folder: Path) -> list[Path]:
    """Write `agreements` and what each reader said of each cell as CSV; return the paths.

    Parameters
    ----------
    labels : DataFrame
        As `labels_by_reader` returns it.
    folder : Path
        Gets ``agreement.csv``, and ``readers.csv`` with one row a cell: a column for each reader, and ``differ``,
        whether two of them gave it another class.
    """
    said = labels.where(labels != "")
    whole = labels.assign(differ=said.nunique(axis=1) > 1).rename_axis("cell_id").reset_index()
    paths = [Path(folder) / name for name in ("agreement.csv", "readers.csv")]
    write_csv(paths[0], agreements(labels), comments=(INTERVAL,))
    write_csv(paths[1], whole)
    return paths


def _kappa(p: NDArray[np.float64], observed: float, expected: float, n: int) -> tuple[float, float]:
    """Kappa and its standard error from the shares of a table; NaN where chance alone agrees always."""
    if 1 - expected < 1e-12:
        return float("nan"), float("nan")
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    kappa = (observed - expected) / (1 - expected)
    agree = np.diag(p) @ ((1 - expected) - (rows + columns) * (1 - observed)) ** 2
    off = p * (columns[:, None] + rows[None, :]) ** 2
    differ = (1 - observed) ** 2 * (off.sum() - np.trace(off))
    rest = (observed * expected - 2 * expected + observed) ** 2
    variance = (agree + differ - rest) / (n * (1 - expected) ** 4)
    return float(kappa), float(np.sqrt(max(variance, 0.0)))


def _each(value: Any, n: int) -> Sequence[Any]:
    """One value for each of `n` cells."""
    return value if isinstance(value, list) else [value] * n


def _filled(rows: pd.Index[Any], known: dict[str, Any], nothing: Any) -> NDArray[np.object_]:
    """Value of each row, `nothing` where there is none."""
    values = np.full(len(rows), nothing, dtype=object)
    at = rows.get_indexer(pd.Index(list(known), dtype=object)) if known else np.zeros(0, np.intp)
    given = np.array([*known.values(), None], dtype=object)[:-1]
    values[at[at >= 0]] = given[at >= 0]
    return values
