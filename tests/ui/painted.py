"""A painted smear with cells at known places, and a pipeline that finds them by a threshold."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import ndimage

from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.masks import FieldMasks
from napari_dinobloom.io.smear import read_smear
from napari_dinobloom.io.study import Study
from napari_dinobloom.progress import Progress, Steps

HEIGHT, WIDTH = 96, 128
CENTRES = ((24, 30), (48, 90), (74, 40))
RADII = (9, 12, 10)
CLASSES = ("neutrophil", "lymphocyte", "monocyte")


def paint(shift: int = 0) -> np.ndarray:
    """A light field with three dark violet discs; `shift` moves them to the right."""
    image = np.full((HEIGHT, WIDTH, 3), (236, 222, 226), dtype=np.uint8)
    yy, xx = np.mgrid[:HEIGHT, :WIDTH]
    for (y, x), radius in zip(CENTRES, RADII, strict=True):
        image[(yy - y) ** 2 + (xx - x - shift) ** 2 <= radius**2] = (110, 60, 150)
    return image


class FakeRun:
    """Stands in for `pipeline.iter_run`: a real study, cells by a threshold, classes by their order.

    Attributes
    ----------
    calls : list of dict
        Arguments of each call.
    hold : callable
        Called after each report, in the worker's thread.
    fail : Exception or None
        Raised after the first field.
    closed : int
        Generators that came to their end or were closed.
    """

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.hold: Callable[[], None] = lambda: None
        self.fail: Exception | None = None
        self.closed = 0

    def __call__(self, inputs: Sequence[Path], out: Path, **settings: Any) -> Steps[Study]:
        self.calls.append({"inputs": list(inputs), "out": out, **settings})
        study = Study.open_or_create(out, specimen=settings["specimen"])
        finished = False
        try:
            study.ensure_writable()
            tables = []
            for at, file in enumerate(inputs):
                yield Progress(at, len(inputs), f"field {file.stem}", "Segment")
                self.hold()
                if self.fail is not None:
                    raise self.fail
                tables.append(_segment(study, file))
            table = pd.concat(tables) if tables else pd.DataFrame({"cell_id": []})
            study.save_cells(
                AnnData(X=np.zeros((len(table), 2), np.float32), obs=table.set_index("cell_id", drop=False))
            )
            (study.path / "report.html").write_text("<p>report</p>", encoding="utf-8")
            yield Progress(len(inputs), len(inputs), "", "Report")
            self.hold()
            finished = True
            return study
        finally:
            self.closed += 1
            if not finished:
                study.close()


def _segment(study: Study, file: Path) -> pd.DataFrame:
    """Add one field with its masks to `study`; return the rows of its cells."""
    inside = study.path in file.resolve().parents
    root = "study" if inside else study.add_root(file.parent)
    relative = file.resolve().relative_to(study.path).as_posix() if inside else file.name
    pixels = np.asarray(read_smear(file).image)
    known = {(record.root, record.file): record for record in study.fields}
    record = known.get((root, relative))
    if record is None:
        record = FieldRecord(
            study.new_field_id(file.name),
            relative,
            root,
            hashlib.sha256(file.read_bytes()).hexdigest(),
            *pixels.shape[:2],
            slide="slide1",
            patient="patient1",
        )
        study.update(fields=[*study.fields, record])
    labels, _ = ndimage.label(pixels[..., 1] < 120)
    labels = labels.astype(np.int32)
    masks = FieldMasks.from_labels(labels, labels)
    study.save_masks(record.id, masks, "{}", "key")
    y0, x0, y1, x1 = masks.boxes.T
    count = len(masks)
    return pd.DataFrame(
        {
            "cell_id": [f"{record.id}:{number:05d}" for number in masks.numbers],
            "field": record.id,
            "slide": record.slide,
            "patient": record.patient,
            "y0": y0,
            "x0": x0,
            "y1": y1,
            "x1": x1,
            "quality": "ok",
            "pixel_size_um": 0.5,
            "scale_from": "user",
            "predicted": [CLASSES[at % len(CLASSES)] for at in range(count)],
            "confidence": np.linspace(0.6, 0.9, count, dtype=np.float32),
            "distance": np.linspace(1.0, 2.0, count, dtype=np.float32),
        }
    )
