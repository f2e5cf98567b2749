"""Reader of study folders: dropping ``NAME.dinobloom`` into napari opens its fields and their cells.

Fields of one size make one stack, since a differential is walked through field by field; others open beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_dinobloom.io.fields import FieldRecord
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.ui.layers import LayerData


NOTHING: list[Any] = [(None,)]
"""What a reader returns that has done its work and has no layer (npe2 contract)."""


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return `read_study` when every path is a study folder or its ``study.json``, else None (npe2 contract)."""
    paths = [path] if isinstance(path, str) else list(path)
    if paths and all((study_folder(one) / "study.json").is_file() for one in paths):
        return read_study
    return None


def study_folder(path: str) -> Path:
    """The study folder that `path` means: itself, or the folder of a ``study.json``."""
    found = Path(path)
    return found.parent if found.name == "study.json" else found


def read_study(path: str | Sequence[str]) -> list[LayerData]:
    """Open the fields of a study with their cells.

    Parameters
    ----------
    path : str or sequence of str
        One or more study folders.

    Returns
    -------
    list of LayerData
        For each group of fields of one size and slide scale: an image, lazy, and its cell layer, as they were left.
        Fields that the one viewer there is shows already are left out; npe2's mark for "no layer" where none remains.

    Raises
    ------
    StudyError
        If a folder is no sound study, or none of its fields can be used.
    """
    from napari_dinobloom.errors import StudyError
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.io.view import recall_view
    from napari_dinobloom.ui.texts import text

    built: list[LayerData] = []
    for one in [path] if isinstance(path, str) else path:
        # Left open on purpose: the lazy layers read from it. Read-only, it holds no lock.
        study = Study.open(study_folder(one), read_only=True)
        fields = [record for record in study.fields if record.status == "ok"]
        if not fields:
            raise StudyError(text("reader.no_fields", folder=study.path))
        there = _shown(study)
        away = there or set(recall_view(study).closed)
        left = [record for record in fields if record.id not in away]
        built += layers_of(study, left or ([] if there else fields))
    return built or NOTHING


def _shown(study: Study) -> set[str]:
    """Fields that the viewer shows already; none where there are several viewers, as npe2 does not say which it is."""
    from napari.viewer import current_viewer
    from qtpy.QtWidgets import QApplication, QMainWindow

    from napari_dinobloom.ui.layer_looks import layer_views

    windows = [widget for widget in QApplication.topLevelWidgets() if isinstance(widget, QMainWindow)]
    viewer = current_viewer() if len(windows) == 1 else None
    found = [] if viewer is None else layer_views(viewer.layers, study)
    return {field for one in found if one.role == "cells" for field in one.fields}


def layers_of(study: Study, fields: Sequence[FieldRecord]) -> list[LayerData]:
    """Image and cell layer for each group of some usable fields that can share a stack, as they were left."""
    from napari_dinobloom.cells.segment import IN_MEMORY
    from napari_dinobloom.io.view import recall_view
    from napari_dinobloom.ui.layer_looks import arranged

    view = recall_view(study)
    together = {field: at for at, one in enumerate(view.layers) if one.role == "cells" for field in one.fields}
    groups: dict[tuple[Any, ...], list[FieldRecord]] = {}
    for record in fields:
        slide = record.id if record.height * record.width > IN_MEMORY else ""  # each by itself: it has levels
        place = (together.get(record.id, -1), slide, record.height, record.width, record.pixel_size_um)
        groups.setdefault(place, []).append(record)
    return arranged([layer for records in groups.values() for layer in _group(study, records)], view)


def field_layers(study: Study, field: str) -> list[LayerData]:
    """Image and cell layer of one field of an open study.

    Raises
    ------
    StudyError
        The study has no such field.
    """
    return _group(study, [study.field(field)])


def _group(study: Study, records: list[FieldRecord]) -> list[LayerData]:
    """Layers of fields of one size: an image if the pictures are on this computer, and the cells."""
    from napari.utils.notifications import show_warning

    from napari_dinobloom.cells.segment import IN_MEMORY
    from napari_dinobloom.errors import DinoBloomError
    from napari_dinobloom.io.lazy import pyramid
    from napari_dinobloom.ui.images import TAG
    from napari_dinobloom.ui.layers import cell_layer
    from napari_dinobloom.ui.slides import quality_layers
    from napari_dinobloom.ui.texts import text

    fields, stack = [record.id for record in records], len(records) > 1
    name = study.path.stem if stack else fields[0]
    size = records[0].pixel_size_um
    place: dict[str, Any] = {}
    if size is not None:
        place = {
            "scale": (1.0, size, size)[-3 if stack else -2 :],
            "units": ("pixel", "um", "um")[-3 if stack else -2 :],
        }
    data, meta, kind = cell_layer(study, fields, name=name, stack=stack)
    built: list[LayerData] = [(data, meta | place, kind)]
    try:
        smears = [study.read_field(field) for field in fields]
    except DinoBloomError as error:
        show_warning(text("reader.no_image", count=len(fields), problem=error))
        return built
    import dask.array as da

    image = da.stack([smear.image for smear in smears]) if stack else smears[0].image
    if not stack and records[0].height * records[0].width > IN_MEMORY:
        image, built = pyramid(smears[0].levels), [*quality_layers(study, fields[0], place), *built]
    mark = {"role": "image", "study": str(study.path), "fields": tuple(fields)}
    return [(image, {"name": name, "rgb": True, "metadata": {TAG: mark}, **place}, "image"), *built]
