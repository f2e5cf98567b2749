"""The cell table of a study: the columns of ``obs`` and the file ``cells.h5ad``.

One row a cell; `cell_id` is the field's id, a colon and the cell's number in the field. Text is plain ``str`` with
``""`` for none (dtype object, also under pandas 3, which has one of its own), numbers that are not known are NaN. In
the file, text that repeats is stored as categories, each word once; ``X`` of a large table stays there (see
`io.vectors`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io import vectors
from napari_dinobloom.io.atomic import disk_errors, replacing
from napari_dinobloom.io.hdf5 import check_hdf5, write_hdf5
from napari_dinobloom.io.trust import is_id

if TYPE_CHECKING:
    from anndata import AnnData

COLOURS = (
    *(
        f"{part}_{channel}{what}"
        for part in ("nucleus", "cytoplasm")
        for what in ("", "_sd")
        for channel in ("red", "green", "blue")
    ),
    "stain_strength",
)
"""Mean and spread of red, green, blue (0 to 255) in nucleus and cytoplasm; mean absorbance of the nucleus."""

COLUMNS: dict[str, str] = {
    "cell_id": "str",
    "field": "str",
    "slide": "str",
    "patient": "str",
    "y0": "int32",
    "x0": "int32",
    "y1": "int32",
    "x1": "int32",
    "y": "float32",
    "x": "float32",
    "area_px": "int32",
    "nucleus_area_px": "int32",
    "nc_ratio": "float32",
    "solidity": "float32",
    "circularity": "float32",
    "lobes": "int32",
    "focus": "float32",
    **dict.fromkeys(COLOURS, "float32"),
    "touches_border": "bool",
    "quality": "str",
    "pixel_size_um": "float32",
    "scale_from": "str",
    "brought_class": "str",
    "duplicate_of": "str",
    "predicted": "str",
    "predicted_by": "str",
    "confidence": "float32",
    "abstained": "bool",
    "distance": "float32",
    "label": "str",
    "label_by": "str",
    "label_at": "str",
    "reviewed": "bool",
    "excluded": "bool",
    "deleted": "bool",
    "gone": "bool",
}
"""Every column of ``obs`` that the package writes, in order, and its dtype."""

MEASURES = (
    "area_px",
    "nucleus_area_px",
    "nc_ratio",
    "solidity",
    "circularity",
    "lobes",
    "focus",
    *COLOURS,
    "touches_border",
    "quality",
)
"""Columns that are measured in the picture, within the cell's outline."""

EMPTY: dict[str, Any] = {"str": "", "bool": False, "int32": 0, "float32": np.nan}
"""Value of a column that nobody has filled yet."""

SCHEMA = 1
"""Version of the cell table's layout, in ``uns["dinobloom"]["schema"]``."""

REMEDY = "Delete cells.h5ad and run again: all but hand labels is computed anew, and those lie safe in edits.jsonl."

_NUMBER = re.compile(r"[0-9]{5,9}")
_IDS = re.compile(r"(?:[^\n]*:[0-9]{5,9}\n)*+")

REPEATS = 0.5
"""Share of the rows below which the different words of a column of text are stored once each, as categories."""


def cell_id(field_id: str, number: int) -> str:
    """Return the id of cell `number` (1, 2, ...) of a field, e.g. ``BloodImage_00003:00012``."""
    return f"{field_id}:{number:05d}"


def split_cell_id(text: str) -> tuple[str, int]:
    """Return field id and number of a cell id.

    Raises
    ------
    StudyError
        If `text` is no cell id.
    """
    field_id, _, number = text.rpartition(":")
    if not (is_id(field_id) and _NUMBER.fullmatch(number)):
        raise StudyError(f"{text[:100]!r} is not a cell id; expected for example 'BloodImage_00003:00012'.")
    return field_id, int(number)


def cell_numbers(ids: pd.Index[Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Numbers of cells in their fields, (n,), from ids that were checked; some times faster than one by one."""
    text = np.frombuffer("\n".join([*ids, ""]).encode(), dtype=np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    numbers, within = np.zeros(len(ends), dtype=np.int64), np.ones(len(ends), dtype=bool)
    for place in range(9):  # no number has more digits
        digit = text[np.maximum(ends - place - 1, 0)].astype(np.int64) - ord("0")
        within &= (digit >= 0) & (digit <= 9)
        numbers += np.where(within, digit * 10**place, 0)
    return numbers


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """Return a copy with every column of `COLUMNS` in its dtype and order, others behind, indexed by `cell_id`.

    Columns that are missing are filled with `EMPTY`; in ours, categories and missing text become plain text.

    Raises
    ------
    StudyError
        If `cell_id` is missing, repeated or malformed, or a column cannot be converted.
    """
    if "cell_id" not in table.columns:
        raise StudyError("The cell table has no column 'cell_id'.")
    done: dict[str, Any] = {}
    for name, kind in COLUMNS.items():
        if name in table.columns:
            done[name] = _convert(table[name], kind)
        else:
            done[name] = np.full(len(table), EMPTY[kind], dtype=object if kind == "str" else kind)
    for name in table.columns:
        if name not in done:
            column = table[name]
            done[str(name)] = _text(column) if _is_text(column) else column.array.copy()
    index = pd.Index(done["cell_id"], dtype=object)
    if table.index.dtype == object and index.equals(table.index):
        index = table.index  # it is hashed already
    _check_ids(index)
    columns = {name: as_column(values, index) for name, values in done.items()}
    return pd.DataFrame(columns, index=index, copy=False)  # a block for each column: joining them takes seconds


def as_column(values: Any, index: pd.Index[Any]) -> pd.Series[Any]:
    """Return an array as a column of its own dtype; pandas 3 makes its dtype of text of a bare array of ``str``."""
    column: pd.Series[Any] = pd.Series(values, index=index, dtype=values.dtype, copy=False)
    return column


def _convert(column: pd.Series[Any], kind: str) -> np.ndarray[Any, Any]:
    """Values of a column in the dtype `kind`."""
    try:
        if kind == "str":
            return _text(column)
        values = column.to_numpy()
        if kind == "bool" and values.dtype != bool:
            values = column.eq(True).to_numpy()  # a missing value is no
        return values.astype(kind)
    except (TypeError, ValueError) as error:
        raise StudyError(f"The cell table's column {str(column.name)!r} cannot be read as {kind}: {error}.") from error


def _is_text(column: pd.Series[Any]) -> bool:
    """Whether a column holds text; categories, which scanpy's clusterings write, stay what they are."""
    return column.dtype == object or isinstance(column.dtype, pd.StringDtype)


def _text(column: pd.Series[Any]) -> np.ndarray[Any, Any]:
    """Plain ``str`` objects with ``""`` where the value is missing; equal words of categories are one object."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        words = np.array([*map(str, column.cat.categories), ""], dtype=object)  # code -1, none, is the last
        return words[column.cat.codes.to_numpy()]
    if column.dtype == object and pd.api.types.infer_dtype(column, skipna=False) in ("string", "empty"):
        return column.to_numpy(copy=True)
    values = column.astype(object)
    return values.where(column.notna(), "").map(str).to_numpy(dtype=object, copy=True)  # else it may be read-only


def _check_ids(ids: pd.Index[Any]) -> None:
    """Refuse repeated and malformed cell ids."""
    if not ids.is_unique:
        twice = ids[ids.duplicated()][0]
        raise StudyError(f"The cell table holds cell {twice!r} twice; a cell id is never used again.")
    joined = "\n".join([*ids, ""])
    known = all(is_id(field) for field in {text.rpartition(":")[0] for text in ids})
    if not known or joined.count("\n") != len(ids) or _IDS.fullmatch(joined) is None:
        for text in ids:
            split_cell_id(text)  # says which one


def highest_numbers(ids: pd.Series[Any], known: Mapping[str, int]) -> dict[str, int]:
    """Return for each field the highest number among `ids` and what was `known` before."""
    numbers = dict(known)
    if ids.empty:
        return numbers
    for field_id, _, number in (str(text).rpartition(":") for text in ids):
        if int(number) > numbers.get(field_id, 0):
            numbers[field_id] = int(number)
    return numbers


def empty_cells() -> AnnData:
    """Return a cell table with every column and no row."""
    from anndata import AnnData

    return AnnData(obs=complete(pd.DataFrame({"cell_id": pd.Series([], dtype=object)})))


def grown(adata: AnnData, rows: pd.DataFrame) -> AnnData:
    """Return the table with more cells at its end.

    Parameters
    ----------
    adata : AnnData
        The table; not changed.
    rows : DataFrame
        New cells, with any of `COLUMNS`.

    Returns
    -------
    AnnData
        Of the new cells, what is computed from crops (embedding, map) is NaN, they stand in no graph and no gate.
    """
    import anndata

    rows = complete(rows)
    index = adata.obs.index.append(rows.index).astype(object)
    columns: dict[Any, pd.Series[Any]] = {}
    for name, column in adata.obs.items():
        more = rows[name] if name in rows else _unfilled(column, len(rows))
        columns[name] = as_column(pd.concat([column, more], ignore_index=True).array, index)
    x = None if adata.X is None else np.full((len(rows), adata.n_vars), np.nan, np.float32)
    fresh = anndata.AnnData(x, obs=rows[[]], var=adata.var[[]] if x is not None else None)
    for name, values in adata.obsm.items():
        if isinstance(values, np.ndarray) and values.dtype.kind in "fb":  # else concat makes float64 of both
            nothing = np.nan if values.dtype.kind == "f" else False
            fresh.obsm[name] = np.full((len(rows), *values.shape[1:]), nothing, values.dtype)
        elif isinstance(values, pd.DataFrame) and all(dtype.kind == "b" for dtype in values.dtypes):  # the gates
            fresh.obsm[name] = pd.DataFrame(False, index=fresh.obs_names, columns=values.columns)
    if "spatial" in adata.obsm:
        fresh.obsm["spatial"] = rows[["x", "y"]].to_numpy(adata.obsm["spatial"].dtype, copy=True)
    whole = anndata.concat([adata, fresh], join="outer", merge="first", pairwise=True, fill_value=np.nan)
    whole.obs = pd.DataFrame(columns, index=index)
    whole.uns = adata.uns
    return whole


def _unfilled(column: pd.Series[Any], n: int) -> pd.Series[Any]:
    """`n` values for a column that is not ours: NaN, False, 0, no category or ""."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return pd.Series(pd.Categorical.from_codes([-1] * n, dtype=column.dtype))
    value: Any = "" if _is_text(column) else np.nan if column.dtype.kind == "f" else 0
    return pd.Series([value] * n, dtype=column.dtype)


def write_cells(path: Path, adata: AnnData, numbers: Mapping[str, int] | None = None) -> None:
    """Replace `path` by the table, whole or not at all.

    Parameters
    ----------
    path : Path
        ``cells.h5ad``.
    adata : AnnData
        Its ``obs`` as `complete` returns it.
    numbers : mapping, optional
        Highest number ever given in each field; kept in ``uns["dinobloom"]["last_numbers"]`` as JSON.

    Raises
    ------
    StudyError
        If the disk is full or may not be written, or a value cannot be stored.
    """
    ours = dict(adata.uns.get("dinobloom", {}))
    adata.uns["dinobloom"] = {**ours, "schema": SCHEMA, "last_numbers": json.dumps(dict(numbers or {}))}
    with disk_errors(path), replacing(path) as part:
        try:
            write_hdf5(part, lambda file: _fill(file, adata, path))
        except (TypeError, NotImplementedError, ValueError) as error:
            raise StudyError(f"{path}: a value of the cell table cannot be stored ({error}).") from error


def _fill(file: Any, adata: AnnData, before: Path) -> None:
    """Write a table into an empty file as anndata does, but repeated text as categories and a large X in blocks."""
    from anndata.experimental import write_dispatched
    from anndata.io import write_elem

    def element(write: Any, group: Any, name: str, value: Any, dataset_kwargs: Any, iospec: Any) -> None:
        if name == "/X" and vectors.stays(value):
            vectors.write(group, value, before)
        elif COLUMNS.get(name.removeprefix("/obs/")) == "str":
            write_elem(group, name, _repeated(value))
        else:
            write(group, name, value, dataset_kwargs=dataset_kwargs)

    write_dispatched(file, "/", adata, element)


def _repeated(values: np.ndarray[Any, Any]) -> Any:
    """Text as categories, where words repeat; else as it is."""
    values = np.asarray(values, dtype=object)
    codes, words = pd.factorize(values, sort=True)
    return pd.Categorical.from_codes(codes, pd.Index(words)) if len(words) < REPEATS * len(codes) else values


def read_numbers(path: Path) -> dict[str, int]:
    """Read only the highest number ever given in each field from a table.

    Raises
    ------
    StudyError
        If the file is damaged.
    """
    import h5py  # type: ignore[import-untyped]
    from anndata.io import read_elem

    try:
        check_hdf5(path)
        with h5py.File(path, "r") as file:
            stored = file.get("uns/dinobloom/last_numbers")
            numbers = json.loads(str(read_elem(stored))) if stored is not None else {}
            ids = np.asarray(read_elem(file["obs/cell_id"]), dtype=object)
        known = {str(name): int(number) for name, number in numbers.items()}
        return highest_numbers(pd.Series(ids, dtype=object), known)
    except Exception as error:  # as in read_cells
        raise StudyError(f"{path}: is damaged ({type(error).__name__}: {error}). {REMEDY}") from error


def _read_ids(file: Any) -> pd.Index[Any] | None:
    """Cell ids of an open table; None where it has none."""
    from anndata.io import read_elem

    ids = file.get("obs/cell_id")
    return None if ids is None else pd.Index(np.asarray(read_elem(ids), dtype=object), dtype=object)


def _read_frame(group: Any, ids: pd.Index[Any]) -> pd.DataFrame:
    """A table of cells by their ids; its index, which is the same text or what a program made of it, is not read."""
    from anndata.io import read_elem

    names = map(str, group.attrs["column-order"])
    columns = {name: ids.to_numpy() if name == "cell_id" else read_elem(group[name]) for name in names}
    return pd.DataFrame(columns, index=ids, copy=False)


def read_cells(path: Path) -> AnnData:
    """Read a cell table that may come from a stranger.

    Raises
    ------
    StudyError
        If the file is damaged, points into other files, or claims more data than it can hold.
    """
    import h5py
    from anndata.experimental import read_dispatched

    def element(read: Any, name: str, value: Any, iospec: Any) -> Any:
        if name == "/X" and vectors.stays(value):
            return vectors.stored(path)
        framed = name == "/obs" or (name.startswith("/obsm/") and iospec.encoding_type == "dataframe")
        return _read_frame(value, ids) if framed and ids is not None else read(value)

    try:
        check_hdf5(path)
        with h5py.File(path, "r") as file:
            ids = _read_ids(file)
            adata = read_dispatched(file, element)
        adata.obs = complete(adata.obs)
    except StudyError as error:
        raise StudyError(f"{path}: {error} {REMEDY}") from error
    except MemoryError as error:
        raise StudyError(f"{path}: does not fit into this machine's memory ({path.stat().st_size:,} bytes).") from error
    except Exception as error:  # a damaged HDF5 file makes h5py and anndata raise nearly anything
        raise StudyError(f"{path}: is damaged ({type(error).__name__}: {error}). {REMEDY}") from error
    return adata
