"""One command for each step of a run, and ``run`` for the whole way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_dinobloom.cli.options import (
    AcceptLicence,
    AtlasName,
    CellsFlag,
    Device,
    EncoderName,
    Fov,
    FovDiameters,
    Inputs,
    Interpolation,
    Labels,
    MaskNeighbours,
    MaxMemory,
    MinDist,
    MoreInputs,
    Neighbours,
    Out,
    PatientFrom,
    PixelSize,
    Pooling,
    Precision,
    Seed,
    SegmenterName,
    SlideFrom,
    Specimen,
    StudyFolder,
)
from napari_dinobloom.console import accepting, mendable, summarise, tell_stored, watch
from napari_dinobloom.errors import InputError

if TYPE_CHECKING:
    from napari_dinobloom.pipeline.driver import Outcome


def _do(inputs: list[str], out: Path, **asked: Any) -> None:
    """Run the steps, print the summary, exit with 0 (all done), 1 (some inputs failed) or 2 (nothing done)."""
    with mendable():
        from napari_dinobloom.pipeline.driver import iter_outcome

        def attempt(accepted: bool) -> Outcome:  # segmenter and encoder may both have terms
            return watch(iter_outcome(inputs, out, **asked | {"accept_licence": accepted or None}))

        code = summarise(accepting(attempt, bool(asked.get("accept_licence"))))
    raise typer.Exit(code)


def _segmenter(name: str | None, labels: Path | None) -> str | None:
    """The setting `segmenter` from the two options that give it."""
    if name and labels:
        raise InputError(f"--segmenter {name} and --labels {labels} exclude each other: give one of them.")
    return str(labels.expanduser().resolve()) if labels else name


def run(
    inputs: Inputs,
    out: Out,
    specimen: Specimen = None,
    pixel_size_um: PixelSize = None,
    cells: CellsFlag = None,
    segmenter: SegmenterName = None,
    labels: Labels = None,
    accept_licence: AcceptLicence = None,
    slide_from: SlideFrom = None,
    patient_from: PatientFrom = None,
    encoder: EncoderName = None,
    device: Device = None,
    precision: Precision = None,
    pooling: Pooling = None,
    max_memory_gib: MaxMemory = None,
    atlas: AtlasName = None,
    fov_um: Fov = None,
    fov_diameters: FovDiameters = None,
    interpolation: Interpolation = None,
    mask_neighbours: MaskNeighbours = None,
    neighbours: Neighbours = None,
    min_dist: MinDist = None,
    seed: Seed = None,
) -> None:
    """Go the whole way: images in, report out. Running again does only what is missing or changed."""
    asked = dict(locals())
    del asked["inputs"], asked["out"], asked["labels"]
    with mendable():
        asked["segmenter"] = _segmenter(segmenter, labels)
    _do(inputs, out, **asked)


def segment(
    inputs: Inputs,
    out: Out,
    pixel_size_um: PixelSize = None,
    cells: CellsFlag = None,
    segmenter: SegmenterName = None,
    labels: Labels = None,
    accept_licence: AcceptLicence = None,
    slide_from: SlideFrom = None,
    patient_from: PatientFrom = None,
) -> None:
    """Read images and find their white cells."""
    asked: dict[str, Any] = {"slide_from": slide_from, "patient_from": patient_from, "accept_licence": accept_licence}
    with mendable():
        asked["segmenter"] = _segmenter(segmenter, labels)
    _do(inputs, out, until="segment", pixel_size_um=pixel_size_um, cells=cells, **asked)


def crop(
    study: StudyFolder,
    inputs: MoreInputs = None,
    fov_um: Fov = None,
    fov_diameters: FovDiameters = None,
    interpolation: Interpolation = None,
    mask_neighbours: MaskNeighbours = None,
) -> None:
    """Cut the picture of every cell."""
    asked = {"fov_um": fov_um, "fov_diameters": fov_diameters}
    _do(inputs or [], study, until="crop", interpolation=interpolation, mask_neighbours=mask_neighbours, **asked)


def embed(
    study: StudyFolder,
    inputs: MoreInputs = None,
    encoder: EncoderName = None,
    device: Device = None,
    precision: Precision = None,
    pooling: Pooling = None,
    max_memory_gib: MaxMemory = None,
    stored: Annotated[bool, typer.Option("--list", help="Only show the embeddings that the study holds.")] = False,
) -> None:
    """Embed every cell; what was embedded before, by this encoder or others, is kept."""
    if stored:
        with mendable():
            from napari_dinobloom.io.study import Study
            from napari_dinobloom.pipeline.embed import stored_encoders

            with Study.open(study, read_only=True) as opened:
                tell_stored(stored_encoders(opened))
        return
    asked = {"encoder": encoder, "device": device, "precision": precision, "pooling": pooling}
    _do(inputs or [], study, until="embed", max_memory_gib=max_memory_gib, **asked)


def classify(study: StudyFolder, inputs: MoreInputs = None, atlas: AtlasName = None) -> None:
    """Name every cell by its nearest reference cells."""
    _do(inputs or [], study, until="classify", atlas=atlas)


def report(study: StudyFolder, inputs: MoreInputs = None, specimen: Specimen = None) -> None:
    """Count and write the tables and the report."""
    _do(inputs or [], study, specimen=specimen)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    for command in (run, segment, crop, embed, classify, report):
        app.command()(command)
