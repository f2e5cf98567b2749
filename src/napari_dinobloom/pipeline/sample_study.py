"""A small study that is ready to be looked at: generated smears of six patients, run to the end, with gates on its map.

It is made on the user's machine when it is asked for first, takes a minute or two, and is kept.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

from napari_dinobloom.explore.study_gates import StudyGates
from napari_dinobloom.io.atomic import disk_errors, write_text
from napari_dinobloom.io.generate import COMPOSITION, generate_smear
from napari_dinobloom.io.locations import home
from napari_dinobloom.io.smear import write_picture
from napari_dinobloom.io.study import Study
from napari_dinobloom.progress import Progress, Steps, drain

FIELDS, CELLS = 3, 10
"""Fields of a patient, and white cells wanted in each."""

MANY_LYMPHOCYTES: Mapping[str, float] = {**COMPOSITION, "neutrophil_segmented": 0.15, "lymphocyte": 0.60}
"""Composition of the second group of patients, so that there is something to compare."""

PATIENTS: Mapping[str, Mapping[str, float]] = {
    **{f"control-{number}": COMPOSITION for number in (1, 2, 3)},
    **{f"lymphocytosis-{number}": MANY_LYMPHOCYTES for number in (1, 2, 3)},
}
STUDY = "generated.dinobloom"
MADE = "sample"
"""Empty file in the study that says that it was made to the end once; what people did to it since is theirs."""


def sample_study(folder: str | Path | None = None) -> Path:
    """Make the sample study in a folder, by default the user's own for samples; `iter_sample_study` reports progress.

    Returns
    -------
    Path
        The study. One that is there already is not touched, whatever was done to it since.

    Raises
    ------
    DinoBloomError
        If the folder cannot be written. What is finished is kept: calling again goes on from there.
    """
    return drain(iter_sample_study(folder))


def iter_sample_study(folder: str | Path | None = None) -> Steps[Path]:
    """Make the sample study as `sample_study` does, with progress."""
    from napari_dinobloom.pipeline.driver import iter_outcome

    place = home() / "samples" / "generated" if folder is None else Path(folder)
    path = place / STUDY
    if (path / MADE).is_file():
        return path
    images = place / "images"
    yield from _iter_smears(images)
    outcome = yield from iter_outcome([images], path, map_method="umap", patient_from="slide")
    with Study.open(outcome.study.path) as study:
        gates = StudyGates(study)
        if not len(gates.tree):
            yield from _iter_gates(gates)
            yield from iter_outcome([], study)  # so that the report knows of the gates
        with disk_errors(path):
            write_text(path / MADE, "")
    return path


def _iter_smears(images: Path) -> Steps[None]:
    """Write the fields of all patients, each patient a folder; the same ones each time."""
    total = len(PATIENTS) * FIELDS
    for at, (patient, composition) in enumerate(PATIENTS.items()):
        for number in range(FIELDS):
            yield Progress(at * FIELDS + number, total, patient, "generate")
            file = images / patient / f"{patient}-{number + 1}.png"
            if file.is_file():
                continue
            seed = zlib.crc32(file.name.encode())
            smear = generate_smear(seed, n_white=CELLS, stain="wright-giemsa", composition=composition)
            with disk_errors(file):
                file.parent.mkdir(parents=True, exist_ok=True)
                write_picture(file, smear.image, smear.pixel_size_um)


def _iter_gates(gates: StudyGates) -> Steps[None]:
    """Draw a gate around each dense cluster of the map, as people would by the button for it."""
    from napari_dinobloom.explore.suggest import iter_suggest_gates

    found = yield from iter_suggest_gates(gates.table, ("umap_1", "umap_2"), min_cluster_size=8)
    for gate in found:
        gates.add(gate, seen=gates.patients)
