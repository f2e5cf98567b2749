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
        For each group of fields of one size and slide scale: an image, lazy, and its cell layer.

    Raises
    ------
    StudyError
        If a folder is no sound study, or none of its fields can be used.
    """
    from napari_dinobloom.errors import StudyError
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.ui.texts import text

    built: list[LayerData] = []
    for one in [path] if isinstance(path, str) else path:
        # Left open on purpose: the lazy layers read from it. Read-only, it holds no lock.
        study = Study.open(study_folder(one), read_only=True)
        fields = [record for record in study.fields if record.status == "ok"]
        if not fields:
            raise StudyError(text("reader.no_fields", folder=study.path))
        built += layers_of(study, fields)
    return built


def layers_of(study: Study, fields: Sequence[FieldRecord]) -> list[LayerData]:
    """Image and cell layer for each group of some usable fields that can share a stack."""
    groups: dict[tuple[Any, ...], list[FieldRecord]] = {}
    for record in fields:
        groups.setdefault((record.height, record.width, record.pixel_size_um), []).append(record)
    return [layer for records in groups.values() for layer in _group(study, records)]


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

    from napari_dinobloom.errors import DinoBloomError
    from napari_dinobloom.ui.images import TAG
    from napari_dinobloom.ui.layers import cell_layer
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
        pictures = [study.read_field(field).image for field in fields]
    except DinoBloomError as error:
        show_warning(text("reader.no_image", count=len(fields), problem=error))
        return built
    import dask.array as da

    image = da.stack(pictures) if stack else pictures[0]
    mark = {"role": "image", "study": str(study.path), "fields": tuple(fields)}
    return [(image, {"name": name, "rgb": True, "metadata": {TAG: mark}, **place}, "image"), *built]
