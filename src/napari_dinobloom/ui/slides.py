"""Whole slides in napari: the reader of their files, and the quality map as a layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_dinobloom.io.study import Study
    from napari_dinobloom.ui.layers import LayerData

COLOURS = {"right": "#1a9850", "thick": "#b2182b", "feathered": "#2166ac"}
"""Colour of each grade of the quality map; blank glass is transparent."""


def get_slide_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return `read_slides` when every path is a whole slide or an OME-Zarr picture, else None (npe2 contract)."""
    from napari_dinobloom.io.omezarr import is_picture
    from napari_dinobloom.io.slides import ENDINGS

    paths = [Path(one) for one in ([path] if isinstance(path, str) else path)]
    if paths and all(one.suffix.lower() in ENDINGS or is_picture(one) for one in paths):
        return read_slides
    return None


def read_slides(path: str | Sequence[str]) -> list[LayerData]:
    """Open whole slides as multiscale images in micrometres; their pixels are read where they are looked at.

    Raises
    ------
    ImageError
        If one cannot be read, or needs OpenSlide, which is not there.
    """
    from napari_dinobloom.io.lazy import pyramid
    from napari_dinobloom.io.smear import read_smear

    built: list[LayerData] = []
    for one in [path] if isinstance(path, str) else path:
        smear = read_smear(one)
        levels = pyramid(smear.levels)
        meta: dict[str, Any] = {"name": smear.name, "rgb": True, "multiscale": len(levels) > 1}
        if smear.pixel_size_um is not None:
            meta |= {"scale": (smear.pixel_size_um,) * 2, "units": ("um", "um")}
        built.append((levels if len(levels) > 1 else levels[0], meta, "image"))
    return built


def quality_layers(study: Study, field: str, place: Mapping[str, Any]) -> list[LayerData]:
    """The quality map of a slide of a study as a layer of labels, if there is one.

    Parameters
    ----------
    study : Study
        Holds the map.
    field : str
        The slide.
    place : mapping
        ``scale``, ``translate`` and ``units`` of the slide's image layer; pixels where there are none.
    """
    from napari.utils.colormaps import DirectLabelColormap

    from napari_dinobloom.cells.monolayer import GRADES
    from napari_dinobloom.pipeline.quality import read_map
    from napari_dinobloom.ui.images import TAG
    from napari_dinobloom.ui.texts import text

    found = read_map(study, field)
    if found is None:
        return []
    colours = {None: "transparent", 0: "transparent"} | {GRADES.index(name): c for name, c in COLOURS.items()}
    pixel = np.asarray(place.get("scale", (1.0, 1.0)), float)
    meta = {
        "name": text("layer.quality", name=field),
        "colormap": DirectLabelColormap(color_dict=colours),
        "opacity": 0.25,
        "visible": False,
        **place,
        "scale": pixel * found.side,
        "translate": np.asarray(place.get("translate", (0.0, 0.0))) + pixel * (found.side - 1) / 2,  # its first middle
        "metadata": {TAG: {"role": "quality", "study": str(study.path), "fields": (field,), "width": 0}},  # filled
    }
    return [(found.grades, meta, "labels")]


def show_quality(viewer: Any, image: Layer, study: Study, field: str) -> None:
    """Put the quality map of a slide, if it has one, over its image and under its cells; an earlier one goes."""
    from napari_dinobloom.ui.layers import find

    earlier = find(viewer.layers, "quality", str(study.path), (field,))
    if earlier is not None:
        viewer.layers.remove(earlier)
    active = viewer.layers.selection.active
    place = {"scale": image.scale[-2:], "translate": image.translate[-2:], "units": image.units[-2:]}
    for data, meta, _ in quality_layers(study, field, place):
        layer = viewer.add_labels(data, **meta)
        viewer.layers.move(viewer.layers.index(layer), viewer.layers.index(image) + 1)
    viewer.layers.selection.active = active
