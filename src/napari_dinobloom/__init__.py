"""White blood cells in stained smears: found, embedded, mapped, classified, counted and reported.

``import napari_dinobloom as nd`` loads nothing heavy: each public name is imported from its room when it is first used.
Research use, not for diagnosis.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

if sys.platform == "darwin":
    # An operation that Apple's MPS lacks then runs on the CPU; torch reads this when it is first imported.
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

if TYPE_CHECKING:
    from napari_dinobloom.cells.crop import CropPolicy, crop
    from napari_dinobloom.cells.picture_files import PictureFiles
    from napari_dinobloom.cells.segment import Cells, iter_segment, segment
    from napari_dinobloom.encoders.encoder import Encoder, load_encoder
    from napari_dinobloom.encoders.patches import PatchBasis, patch_pca
    from napari_dinobloom.encoders.similarity import patch_similarity
    from napari_dinobloom.errors import DinoBloomError
    from napari_dinobloom.explore.gate_tree import GateTree
    from napari_dinobloom.explore.gates import (
        BooleanGate,
        EllipseGate,
        PolygonGate,
        QuadrantGate,
        RangeGate,
        RectangleGate,
    )
    from napari_dinobloom.explore.layout import iter_umap, place, umap
    from napari_dinobloom.explore.projection import Projection
    from napari_dinobloom.explore.restandardise import Restandardise
    from napari_dinobloom.io.smear import Smear, read_smear
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.pipeline import iter_run, run
    from napari_dinobloom.predict.atlas import Atlas
    from napari_dinobloom.predict.knn import KnnClassifier
    from napari_dinobloom.predict.linear import LinearProbe
    from napari_dinobloom.predict.mil.model import AttentionMIL
    from napari_dinobloom.predict.probe import Probe
    from napari_dinobloom.progress import Progress
    from napari_dinobloom.report.differential import differential
    from napari_dinobloom.report.html import write_report
    from napari_dinobloom.report.schemes import load_scheme

__version__ = "0.1.0"

__all__ = [
    "Atlas",
    "AttentionMIL",
    "BooleanGate",
    "Cells",
    "CropPolicy",
    "DinoBloomError",
    "EllipseGate",
    "Encoder",
    "GateTree",
    "KnnClassifier",
    "LinearProbe",
    "PatchBasis",
    "PictureFiles",
    "PolygonGate",
    "Probe",
    "Progress",
    "Projection",
    "QuadrantGate",
    "RangeGate",
    "RectangleGate",
    "Restandardise",
    "Smear",
    "Study",
    "__version__",
    "crop",
    "differential",
    "iter_run",
    "iter_segment",
    "iter_umap",
    "load_encoder",
    "load_scheme",
    "patch_pca",
    "patch_similarity",
    "place",
    "read_smear",
    "run",
    "segment",
    "umap",
    "write_report",
]

_ROOMS = {
    "Atlas": "predict.atlas",
    "AttentionMIL": "predict.mil.model",
    "BooleanGate": "explore.gates",
    "Cells": "cells.segment",
    "CropPolicy": "cells.crop",
    "DinoBloomError": "errors",
    "EllipseGate": "explore.gates",
    "Encoder": "encoders.encoder",
    "GateTree": "explore.gate_tree",
    "KnnClassifier": "predict.knn",
    "LinearProbe": "predict.linear",
    "PatchBasis": "encoders.patches",
    "PictureFiles": "cells.picture_files",
    "PolygonGate": "explore.gates",
    "Probe": "predict.probe",
    "Progress": "progress",
    "Projection": "explore.projection",
    "QuadrantGate": "explore.gates",
    "RangeGate": "explore.gates",
    "RectangleGate": "explore.gates",
    "Restandardise": "explore.restandardise",
    "Smear": "io.smear",
    "Study": "io.study",
    "crop": "cells.crop",
    "differential": "report.differential",
    "iter_run": "pipeline",
    "iter_segment": "cells.segment",
    "iter_umap": "explore.layout",
    "load_encoder": "encoders.encoder",
    "load_scheme": "report.schemes",
    "patch_pca": "encoders.patches",
    "patch_similarity": "encoders.similarity",
    "place": "explore.layout",
    "read_smear": "io.smear",
    "run": "pipeline",
    "segment": "cells.segment",
    "umap": "explore.layout",
    "write_report": "report.html",
}


def __getattr__(name: str) -> object:
    """Import a public name from its room on first use (PEP 562)."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, for completion."""
    return __all__
