"""What a study gives to other programs: tables, outlines for QuPath, label images. Windows and commands call it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_dinobloom.io.labelimage import write_label_tiff
from napari_dinobloom.pipeline.results import write_outlines, write_tables
from napari_dinobloom.progress import Progress, Steps, drain

if TYPE_CHECKING:
    from napari_dinobloom.io.pseudonyms import PseudonymousStudy
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.pipeline.settings import RunSettings

Kind = Literal["tables", "outlines", "labels"]

KINDS: tuple[Kind, ...] = ("tables", "outlines", "labels")


def export(study: Study | PseudonymousStudy, settings: RunSettings, folder: Path, kinds: Sequence[Kind]) -> list[Path]:
    """Write a study as it is now, with the acts of people in it, into a folder; files of the same names are replaced.

    Parameters
    ----------
    study : Study or PseudonymousStudy
        May be open for reading only.
    settings : RunSettings
        How it is counted.
    folder : Path
        Made where it is not there.
    kinds : sequence of {"tables", "outlines", "labels"}
        The cell table, differential and summary as CSV; ``FIELD.geojson``; ``FIELD-cells.tif``, (Y, X) int32, 0 or the
        number in a cell's id.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    StudyError
        If the disk is full or the folder may not be written.
    """
    return drain(iter_export(study, settings, folder, kinds))


def iter_export(
    study: Study | PseudonymousStudy, settings: RunSettings, folder: Path, kinds: Sequence[Kind]
) -> Steps[list[Path]]:
    """Write a study as `export` does, with progress."""
    paths: list[Path] = []
    for done, kind in enumerate(kinds):
        yield Progress(done, len(kinds), kind, "export")
        if kind == "tables":
            paths += write_tables(study, settings, folder)
        elif kind == "outlines":
            paths += write_outlines(study, folder)
        else:
            paths += yield from _iter_labels(study, folder)
    yield Progress(len(kinds), len(kinds), "", "export")
    return paths


def _iter_labels(study: Study | PseudonymousStudy, folder: Path) -> Steps[list[Path]]:
    """Write a label image of each field."""
    fields = [record for record in study.fields if record.status == "ok"]
    paths = []
    for done, record in enumerate(fields):
        yield Progress(done, len(fields), record.id, "labels")
        shape = (record.height, record.width)
        paths.append(
            write_label_tiff(study.masks(record.id), shape, folder / f"{record.id}-cells.tif", record.pixel_size_um)
        )
    yield Progress(len(fields), len(fields), "", "labels")
    return paths
