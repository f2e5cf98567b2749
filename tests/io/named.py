"""A small study that is full of names: of patients, slides, files, readers, in settings and notes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from PIL import Image

from napari_dinobloom.io.celltable import cell_id, complete
from napari_dinobloom.io.fields import FieldRecord, make_id
from napari_dinobloom.io.fingerprint import sha256_of
from napari_dinobloom.io.masks import FieldMasks
from napari_dinobloom.io.study import Study

HOSTILE = '<script>alert("Xavier")</script>'
LONG = "Wolfeschlegelsteinhausenbergerdorff " * 5 + "the Younger of Hamburg"
PATIENTS = ("Annabel Quimby", '../O\'Neil/"Jr"', HOSTILE, LONG, "王小明", "annabel quimby")
EMPTY = "Esmeralda Voidberg"
"""A patient whose fields hold no cell."""
READER = "Dr. Secretary"
PER_PATIENT = 8
CLASSES = ("neutrophil_segmented", "lymphocyte", "blast", "monocyte")
LIMIT = 5.0


def named_study(path: Path, *, crops: bool = True, mapped: bool = True, patients: tuple[str, ...] = PATIENTS) -> Study:
    """One field, slide and file a patient, each named after the patient; `EMPTY` has a field without cells."""
    study = Study.create(path)
    images = path.parent / "Pictures of Quimby"
    images.mkdir(exist_ok=True)
    root = study.add_root(images)
    records = []
    for i, patient in enumerate((*patients, EMPTY)):
        file = images / f"Smear {i} of {make_id(patient, ())}.png"
        Image.fromarray(np.full((60, 130, 3), 200 + i, np.uint8)).save(file)
        note = f"{file}: the box in line 2 has no area." if i == 1 else ""
        names = {"slide": f"Slide of {patient}"[:1000], "patient": patient, "problem": note}
        taken = [record.id for record in records]
        records.append(FieldRecord(make_id(file.stem, taken), file.name, root, sha256_of(file), 60, 130, 0.2, **names))
    typed = {"atlas": "none", "slide_from": "(Annabel|Quimby)", "accepted_licence": f"free; accepted by {READER}"}
    study.update(fields=records, settings=typed)
    obs = pd.concat([_cells(record) for record in records[:-1]], ignore_index=True)
    adata = AnnData(np.zeros((len(obs), 3), np.float32), obs=complete(obs))
    if mapped:
        adata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(len(obs), 2)).astype(np.float32)
    gates = '{"g1": {"seen": ["Annabel Quimby"]}}'
    adata.uns["dinobloom"] = {"encoder": "starter", "encoder_sha256": "0" * 64, "distance_limit": LIMIT, "gates": gates}
    study.save_cells(adata)
    disc = np.hypot(*(np.mgrid[:16, :16] - 7.5)) < 8
    for record in records:
        own = obs[obs["field"] == record.id]
        boxes, numbers = own[["y0", "x0", "y1", "x1"]].to_numpy(np.int32), np.arange(1, len(own) + 1, dtype=np.int32)
        study.save_masks(record.id, FieldMasks(boxes, numbers, [disc] * len(own), [disc] * len(own)), "{}", "key")
    if crops:
        folder, shape = path / "crops.zarr", (len(obs), 224, 224, 3)
        store = zarr.create_array(folder, shape=shape, chunks=(64, *shape[1:]), dtype="uint8", compressors=None)
        store[:] = np.random.default_rng(1).integers(0, 255, (len(obs), 1, 1, 3), dtype=np.uint8)
    ids = study.cells.obs_names
    study.label([ids[1]], "lymphocyte", who=READER, reviewed=True)
    study.label([ids[0]], "monocyte", who=READER)
    return study


def _cells(record: FieldRecord) -> pd.DataFrame:
    """Eight cells of one field: of each class a sure one, one unlike the atlas, one doubtful and nearest to a blast."""
    n = np.arange(PER_PATIENT)
    y, x = 4 + 28 * (n // 4), 4 + 30 * (n % 4)
    return pd.DataFrame(
        {
            "cell_id": [cell_id(record.id, i + 1) for i in n],
            "field": record.id,
            "slide": record.slide,
            "patient": record.patient,
            "y0": y,
            "x0": x,
            "y1": y + 16,
            "x1": x + 16,
            "predicted": [CLASSES[i % 4] for i in n],
            "predicted_by": "an atlas",
            "confidence": np.linspace(0.9, 0.3, PER_PATIENT),
            "abstained": np.isin(n, (5, 6)),
            "distance": np.where(n == 5, 9.0, 1.0),
            "quality": "ok",
            "scale_from": "file",
            "hospital_id": f"Quimby ward, {record.patient}",
        }
    )


def spoken(study: Study) -> set[str]:
    """Every word of three letters or more in the names of a study: none may stand in what is pseudonymous."""
    texts = [*PATIENTS, EMPTY, READER, study.name, "Pictures of Quimby"]
    texts += [text for record in study.fields for text in (record.id, record.file, record.slide)]
    words = {word.strip(".,;:'\"()/<>") for text in texts for word in text.replace("_", " ").replace("-", " ").split()}
    return {word for word in words if len(word) >= 3} - {
        "the",
        "Slide",
        "Smear",
        "script",
        "Pictures",
        "png",
        "study",
        "field",
    }
