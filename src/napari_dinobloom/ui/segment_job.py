"""The job of the Segment and crop window: the steps of a run until the cells of one image layer are cut out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels

from napari_dinobloom.errors import ImageError
from napari_dinobloom.io.atomic import disk_errors, replacing
from napari_dinobloom.io.fields import stem_of
from napari_dinobloom.io.manifest import NAME
from napari_dinobloom.io.study import Study
from napari_dinobloom.progress import Steps
from napari_dinobloom.ui import jobs, layers, workers
from napari_dinobloom.ui.images import SmearImage, iter_inputs, smear_image
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text

BROUGHT = "brought"
"""Folder in a study with the labels that a user brought, one ``.npy`` a field."""


@dataclass(frozen=True, slots=True)
class SegmentSettings:
    """What the user chose.

    Attributes
    ----------
    folder : Path
        The study folder.
    pixel_size_um : float or None
        Micrometres per pixel; None leaves it to the file or the red cells.
    segmenter : str
        What finds the cells: ``learned``, ``cellpose``, a place of marked cells, or ``labels``: they are brought.
    labels : array or None
        (Y, X) or (N, Y, X) integers that are brought, as large as the image; may be lazy.
    accept_licence : bool
        Whether the user accepted the licence of the segmenter just now.
    crops : dict
        Settings of the crops, as `napari_dinobloom.pipeline.RunSettings` names them.
    search : str
        Where cells of a whole slide are sought: ``monolayer`` or ``all``.
    """

    folder: Path
    pixel_size_um: float | None
    segmenter: str
    labels: Any
    accept_licence: bool
    crops: dict[str, Any]
    search: str = "monolayer"


@dataclass(frozen=True, slots=True, eq=False)
class SegmentResult:
    """What was found in one image layer.

    Attributes
    ----------
    study : Study
        Open for writing, or read-only if somebody else writes into it.
    cells : LayerData or None
        The cell layer to show; None when no plane could be used.
    problems : list of str
        One line for each plane that was left out.
    notes : tuple of str
        What people should know about the segmentation.
    """

    study: Study
    cells: layers.LayerData | None
    problems: list[str]
    notes: tuple[str, ...]


def start_segment(viewer: Any, session: Session, layer: Image, settings: SegmentSettings) -> workers.StepsWorker | None:
    """Find and cut out the white cells of an image layer, in a second thread.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Gets the cell layer.
    session : Session
        Its job, progress, message, study and notes are set.
    layer : Image
        A layer that `napari_dinobloom.ui.images.why_unusable` has nothing against.
    settings : SegmentSettings
        What the user chose.

    Returns
    -------
    StepsWorker or None
        None when another job is under way, which is said.
    """

    def keep(result: SegmentResult) -> None:
        session.notes = result.notes

    steps = partial(iter_cells, smear_image(layer), settings)
    return jobs.start(viewer, session, layer, settings.folder, title=text("job.segment"), steps=steps, keep=keep)


def iter_cells(image: SmearImage, settings: SegmentSettings) -> Steps[SegmentResult]:
    """Find the cells of one image layer and prepare what the window shows; twin for the second thread.

    A study that another process writes into is only shown.
    """
    from napari_dinobloom.pipeline.driver import iter_outcome

    files = yield from iter_inputs(image, settings.folder)
    if (settings.folder / NAME).exists():
        study = Study.open(settings.folder)
        if study.held_by is not None:
            return gather(study, files, image, [text("edit.why.held", name=study.name, holder=study.held_by)])
        study.close()
    asked = {"pixel_size_um": settings.pixel_size_um, "segmenter": settings.segmenter, **settings.crops}
    asked |= {"accept_licence": settings.accept_licence, "search": settings.search}
    if settings.segmenter == "labels":
        asked["segmenter"] = bring(settings.labels, files, settings.folder)
    outcome = yield from iter_outcome(files, settings.folder, until="crop", **asked)
    problems = [f"{name}: {problem}" for name, problem in outcome.problems]
    return gather(Study.open(outcome.study.path), files, image, problems)


def bring(labels: Any, files: Sequence[Path], folder: Path) -> str:
    """Store labels that the user brought in the study, where the segmentation finds them by the names of the images.

    Parameters
    ----------
    labels : array
        (Y, X) or (N, Y, X) integers, one plane for each of `files`; 0 is no cell.
    files : sequence of Path
        The images.
    folder : Path
        The study folder; made when there is none yet.

    Returns
    -------
    str
        Folder of the label pictures, by its place in the study.

    Raises
    ------
    ImageError
        If there are not as many planes as images.
    StudyError
        If the study may not be written.
    """
    planes = labels if labels.ndim == 3 else [labels]
    if len(planes) != len(files):
        raise ImageError(text("error.planes", labels=len(planes), images=len(files)))
    with Study.open_or_create(folder) as study:
        study.ensure_writable()
        place = study.path / BROUGHT
        with disk_errors(place):
            place.mkdir(exist_ok=True)
        for file, plane in zip(files, planes, strict=True):
            path = place / f"{stem_of(file.name)}.npy"
            with disk_errors(path), replacing(path) as part, part.open("wb") as handle:
                np.save(handle, np.asarray(plane), allow_pickle=False)
    return BROUGHT


def gather(study: Study, files: Sequence[Path], image: SmearImage, notes: Sequence[str]) -> SegmentResult:
    """Collect from a study what belongs to the pictures `files` of one image layer."""
    fields, _, problems = jobs.fields_of(study, files)
    cells = None
    if any(fields):
        cells = layers.cell_layer(study, fields, name=image.name, stack=image.stack, specimen=study.specimen)
    return SegmentResult(study, cells, problems, tuple(notes))


def why_not_brought(labels: Labels | None, image: Image) -> str:
    """Why a labels layer cannot bring the cells of an image, in words; empty when it can."""
    if labels is None:
        return text("segment.why.no_labels")
    wanted = tuple((image.data[0] if image.multiscale else image.data).shape[:-1])
    found = tuple((labels.data[0] if labels.multiscale else labels.data).shape)
    if found != wanted:
        size = " × ".join(map(str, found)), " × ".join(map(str, wanted))
        return text("segment.why.size", name=labels.name, found=size[0], wanted=size[1])
    return ""
