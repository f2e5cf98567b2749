"""Sample data in napari's File menu: a generated smear, ten real fields, and a study that is ready to be looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_dinobloom.ui.layers import LayerData


def generated_smear() -> list[LayerData]:
    """A smear made by a seeded procedure, with the five main types of white cells; needs no network."""
    from napari_dinobloom.io.generate import generate_smear
    from napari_dinobloom.ui.texts import text

    smear = generate_smear(seed=7)
    return [(smear.image, _image_meta(text("sample.generated"), smear.pixel_size_um), "image")]


def real_fields() -> list[LayerData]:
    """The ten real BCCD fields as a stack; the first time they are fetched into the user's data folder.

    Raises
    ------
    DinoBloomError
        If they cannot be fetched; says how to go on.
    """
    import numpy as np

    from napari_dinobloom.io.sample import iter_fetch_real
    from napari_dinobloom.io.smear import read_smear
    from napari_dinobloom.ui.texts import text
    from napari_dinobloom.ui.workers import finish

    files = finish(text("sample.fetching"), iter_fetch_real)
    stack = np.stack([np.asarray(read_smear(file).image) for file in files])
    return [(stack, _image_meta(text("sample.real"), None), "image")]


def ready_study() -> list[LayerData]:
    """The fields of a small generated study with cells, map, gates and predictions; made the first time, and kept.

    Raises
    ------
    DinoBloomError
        If it cannot be made; what is finished is kept.
    """
    from napari_dinobloom.pipeline.sample_study import iter_sample_study
    from napari_dinobloom.ui.reader import read_study
    from napari_dinobloom.ui.texts import text
    from napari_dinobloom.ui.workers import finish

    return read_study(str(finish(text("sample.making"), iter_sample_study)))


def _image_meta(name: str, pixel_size_um: float | None) -> dict[str, Any]:
    """Keyword arguments of a colour image, in micrometres where the pixel size is known."""
    meta: dict[str, Any] = {"name": name, "rgb": True}
    if pixel_size_um is not None:
        meta |= {"scale": (pixel_size_um, pixel_size_um), "units": ("um", "um")}
    return meta
