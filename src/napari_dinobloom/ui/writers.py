"""Writers for napari's Save: a labels layer as a label image, cells of a study as a table and as outlines.

What is written is what the Report window exports, by the same functions, for the fields of one layer. Cells come from
the study on the disk, where every act of a person is at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study


def write_labels(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write a labels layer as TIFF (npe2 contract).

    Parameters
    ----------
    path : str
        File ending in ``.tif`` or ``.tiff``.
    data : array or list of array
        (Y, X) or (N, Y, X) labels; of several scales the full one is written.
    meta : mapping
        State of the layer. In a cell layer of ours the value of a pixel becomes the number in the cell's id.

    Returns
    -------
    list of str
        The file: int32, compressed, with the layer's pixel size.

    Raises
    ------
    InputError
        If the layer has other dimensions, or labels that int32 does not hold.
    """
    from napari_dinobloom.errors import InputError
    from napari_dinobloom.io.labelimage import write_labels_tiff
    from napari_dinobloom.ui.images import pixel_size_um
    from napari_dinobloom.ui.texts import text

    whole = data[0] if isinstance(data, (list, tuple)) or meta.get("multiscale") else data
    if whole.ndim not in (2, 3):
        raise InputError(text("writer.dims", name=meta["name"], ndim=whole.ndim))
    numbers = _numbers(meta)
    planes = [whole] if whole.ndim == 2 else [whole[at] for at in range(whole.shape[0])]
    size = pixel_size_um(SimpleNamespace(units=meta["units"], scale=meta["scale"]))
    drawn = (_drawn(np.asarray(plane), numbers, str(meta["name"])) for plane in planes)
    return [str(write_labels_tiff(drawn, whole.shape, Path(path), size))]


def write_cell_table(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write the rows of the cell table that belong to a cell layer of ours, as CSV (npe2 contract).

    Raises
    ------
    InputError
        If it is no cell layer of ours.
    StudyError
        If its study cannot be read, or the file not be written.
    """
    from napari_dinobloom.io.tables import write_csv
    from napari_dinobloom.pipeline.results import cell_table

    with _study_of(meta) as (study, fields):
        table = cell_table(study)
        write_csv(Path(path), table[table["field"].isin(fields)])
    return [path]


def write_outlines(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Write the cells of a cell layer of ours as GeoJSON for QuPath (npe2 contract).

    Returns
    -------
    list of str
        The file; of a stack a file for each field, with its id behind the name.

    Raises
    ------
    InputError, StudyError
        As `write_cell_table`; also if a file of a field is there already.
    """
    from napari_dinobloom.errors import InputError
    from napari_dinobloom.pipeline.results import write_field_outlines
    from napari_dinobloom.ui.texts import text

    file = Path(path)
    with _study_of(meta) as (study, fields):
        files = {field: file if len(fields) == 1 else file.with_stem(f"{file.stem}-{field}") for field in fields}
        for one in files.values() if len(fields) > 1 else ():  # the user was asked of `path` only
            if one.exists():
                raise InputError(text("writer.exists", name=one.name))
        return [str(write_field_outlines(study, study.field(field), one)) for field, one in files.items()]


@contextmanager
def _study_of(meta: Mapping[str, Any]) -> Iterator[tuple[Study, Sequence[str]]]:
    """The study of a cell layer, as it is on the disk, and the fields in the layer."""
    from napari_dinobloom.errors import InputError
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.ui.images import TAG
    from napari_dinobloom.ui.texts import text

    mark = meta.get("metadata", {}).get(TAG, {})
    if mark.get("role") != "cells":
        raise InputError(text("writer.no_cells", name=meta.get("name", "")))
    with Study.open(mark["study"], read_only=True) as study:
        yield study, [field for field in dict.fromkeys(mark["fields"]) if field]


def _numbers(meta: Mapping[str, Any]) -> npt.NDArray[np.int32] | None:
    """Number of the cell by label value, of a cell layer of ours; None for another layer."""
    from napari_dinobloom.io.celltable import split_cell_id
    from napari_dinobloom.ui.images import TAG

    if meta.get("metadata", {}).get(TAG, {}).get("role") != "cells":
        return None
    features = meta["features"]
    values = features["index"].to_numpy(dtype=np.int64)
    numbers = np.zeros(int(values.max(initial=0)) + 1, np.int32)
    numbers[values] = [split_cell_id(cell)[1] for cell in features["cell_id"]]
    return numbers


def _drawn(plane: npt.NDArray[Any], numbers: npt.NDArray[np.int32] | None, name: str) -> npt.NDArray[np.int32]:
    """One plane as int32."""
    from napari_dinobloom.errors import InputError
    from napari_dinobloom.ui.texts import text

    if numbers is not None:
        found: npt.NDArray[np.int32] = numbers[plane]
        return found
    if plane.size and int(plane.max()) > np.iinfo(np.int32).max:
        raise InputError(text("writer.too_large", name=name, value=int(plane.max())))
    return plane.astype(np.int32)
