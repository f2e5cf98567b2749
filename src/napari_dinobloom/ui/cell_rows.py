"""What a cell layer knows of its cells, apart from their pixels: a row each, with the label value of the cell."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.celltable import cell_numbers
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline.results import scheme_of
from napari_dinobloom.report.counting import Specimen, counting

LOOKUP_LIMIT = 2**16
"""Entries of a lookup table that napari can hand to the graphics card as it is."""


@dataclass(frozen=True, slots=True)
class CellRows:
    """What a cell layer knows of its cells, apart from their pixels.

    Attributes
    ----------
    features : DataFrame
        One row a cell: ``index`` (its label value), ``cell_id``, ``class``, ``confidence``, ``distance``, ``label_by``,
        ``not_counted``.
    names : ndarray
        (n,) object of str, what gives each cell its colour: its class, or empty where neither a person nor the
        classifier has looked at it yet.
    boxes : ndarray
        (k, 4) int32, of each label value y0, x0, y1, x1 in pixels, half-open; zeros for a value that no cell has.
    offsets : dict
        What the label values of each field are above the numbers of its cells.
    """

    features: pd.DataFrame
    names: npt.NDArray[np.object_]
    boxes: npt.NDArray[np.int32]
    offsets: dict[str, int]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the labels: uint16 as long as it holds the values."""
        top = int(self.features["index"].max()) if len(self.features) else 1
        return np.dtype(np.uint16 if top < LOOKUP_LIMIT else np.int32)


def cell_rows(study: Study, fields: Sequence[str], specimen: Specimen = "blood") -> CellRows:
    """Collect the cells of some fields as `cell_layer` shows them; deleted ones are left out."""
    obs = study.cells.obs
    here = obs["field"].isin([f for f in fields if f]).to_numpy() & ~obs["deleted"].to_numpy(bool)
    rows = obs.take(np.flatnonzero(here))
    numbers = cell_numbers(rows.index)
    codes, names_of_fields = pd.factorize(rows["field"].to_numpy())
    offsets = _offsets(fields, codes, names_of_fields, numbers)
    values = numbers + np.array([offsets[f] for f in names_of_fields], dtype=np.int64)[codes]
    counts = counting(rows, specimen=specimen, **_counted_as(study))
    features = pd.DataFrame(
        {
            "index": values,
            "cell_id": rows.index.to_numpy(dtype=object),
            "class": counts["class"].to_numpy(dtype=object),
            "confidence": rows["confidence"].to_numpy(dtype=np.float32),
            "distance": rows["distance"].to_numpy(dtype=np.float32),
            "label_by": rows["label_by"].to_numpy(dtype=object),
            "not_counted": counts["reason"].to_numpy(dtype=object),
        }
    )
    boxes = np.zeros((int(values.max(initial=0)) + 1, 4), dtype=np.int32)
    boxes[values] = np.column_stack([rows[side].to_numpy() for side in ("y0", "x0", "y1", "x1")])
    label, predicted = (rows[name].to_numpy() for name in ("label", "predicted"))
    unseen = (label == "") & (predicted == "") & ~rows["abstained"].to_numpy(bool)
    return CellRows(features, np.where(unseen, "", counts["class"].to_numpy()), boxes, offsets)


def _counted_as(study: Study) -> dict[str, Any]:
    """Scheme and selection of the study's differential; none where the scheme's file went away after the run."""
    scheme = None
    with suppress(InputError):
        scheme = scheme_of(str(study.settings.get("scheme", "none")), study.path)
    return {"scheme": scheme, "cells": study.settings.get("count", "all")}


def _offsets(
    fields: Sequence[str], codes: npt.NDArray[np.intp], names: npt.NDArray[np.object_], numbers: npt.NDArray[np.int64]
) -> dict[str, int]:
    """What to add to the numbers of each field so that none is used twice; `names` of the fields by their `codes`."""
    highest = np.zeros(len(names), dtype=np.int64)
    np.maximum.at(highest, codes, numbers)
    top = dict(zip(names, highest.tolist(), strict=True))
    offsets: dict[str, int] = {}
    total = 0
    for field in dict.fromkeys(fields):  # a stack may show one field twice
        offsets[field] = total
        total += top.get(field, 0)
    return offsets
