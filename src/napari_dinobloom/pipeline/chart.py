"""Fifth step: the map of all cells, and which cells stand in two overlapping fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from napari_dinobloom.explore.duplicates import find_duplicates
from napari_dinobloom.io.vectors import Vectors
from napari_dinobloom.pipeline.map_changes import Backup, commit, iter_follow
from napari_dinobloom.pipeline.maps import layout_of
from napari_dinobloom.pipeline.settings import RunSettings
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study

THUMBNAIL_UM = 0.4
"""Pixel size at which overlapping fields are recognised; a white cell is then about 30 pixels wide."""


def iter_map_study(study: Study, settings: RunSettings) -> Steps[None]:
    """Fit the map, or place cells on one with gates, and flag cells that another field of the slide shows too."""
    adata = study.cells
    backup = Backup(adata)
    try:
        projection = yield from iter_follow(study, adata, settings)
        if not settings.cells:
            yield Progress(adata.n_obs, adata.n_obs, "looking for fields that overlap")
            sizes = adata.obs.groupby("field")["pixel_size_um"].first()
            twins = find_duplicates(adata.obs, Vectors.of(adata), lambda field: thumbnail(study, field, sizes[field]))
            adata.obs["duplicate_of"] = twins.reindex(adata.obs.index).fillna("").to_numpy(dtype=object)
        commit(study, adata, projection, layout_of(settings))
    except BaseException:
        backup.restore()  # a window would go on showing a map that is nowhere on the disk
        raise
    return None


def thumbnail(study: Study, field: str, pixel_size_um: float) -> tuple[NDArray[np.uint8], int]:
    """Small picture of a field, and the side of the block of its pixels that makes one of the small ones."""
    image = study.read_field(field).load()
    block = max(1, round(THUMBNAIL_UM / pixel_size_um))
    height, width = max(1, image.shape[0] // block), max(1, image.shape[1] // block)
    part = Pillow.fromarray(image[: height * block, : width * block])
    return np.asarray(part.reduce(block)), block
