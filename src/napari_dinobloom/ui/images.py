"""Image layers as smears: which can be used, and how their pixels get into the pipeline.

A layer that shows a file as it lies on the disk goes in by its path, so that the study keeps naming that file. Any
other (sample data, a layer that was drawn in, an RGBA or float image, a plane of a stack) is written as PNG into the
study's own ``fields/`` folder first. The user's layers are only read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image

from napari_dinobloom.cells.background import thinned
from napari_dinobloom.cells.segment import IN_MEMORY
from napari_dinobloom.errors import ImageError, StudyError
from napari_dinobloom.io.omezarr import is_picture
from napari_dinobloom.io.pixels import on_white, to_uint8
from napari_dinobloom.io.smear import read_smear
from napari_dinobloom.io.study import Study
from napari_dinobloom.progress import Progress, Steps
from napari_dinobloom.report.counting import Specimen
from napari_dinobloom.ui.texts import text

TAG = "napari_dinobloom"
"""Key in ``layer.metadata`` that marks a layer as ours; names belong to the user."""

STUDY_SUFFIX = ".dinobloom"


def tag(layer: Any) -> Mapping[str, Any]:
    """What we wrote about one of our layers in its metadata; empty for the user's own."""
    found = layer.metadata.get(TAG)
    return found if isinstance(found, Mapping) else {}


@dataclass(frozen=True, slots=True)
class SmearImage:
    """Pixels of one image layer and where they come from; a snapshot that a second thread may read.

    Attributes
    ----------
    name : str
        Name of the layer.
    data : array
        (Y, X, 3 or 4) or (N, Y, X, 3 or 4), full resolution, any dtype that a colour layer can have; may be lazy.
    path : Path or None
        File or folder that the layer was opened from.
    study : Path or None
        Study that the layer was opened from, with `fields`.
    fields : tuple of str
        Ids of the study's fields, one for each plane.
    pixel_size_um : float or None
        Micrometres per pixel, when the layer has a unit of length.
    """

    name: str
    data: Any
    path: Path | None = None
    study: Path | None = None
    fields: tuple[str, ...] = ()
    pixel_size_um: float | None = None

    @property
    def stack(self) -> bool:
        """Whether there are several planes, each of them a field."""
        return bool(self.data.ndim == 4)

    @property
    def planes(self) -> int:
        """Number of fields."""
        return int(self.data.shape[0]) if self.stack else 1

    def rgb(self, plane: int = 0) -> npt.NDArray[np.uint8]:
        """(Y, X, 3) uint8 pixels of one plane, as `rgb8` converts them."""
        data = self.data[plane] if self.stack else self.data
        return rgb8(np.asarray(data), self.name)

    def default_folder(self) -> Path:
        """Study folder that is proposed: beside the file, else in the home folder."""
        if self.study is not None:
            return self.study
        if self.path is not None and self.path.exists() and _writable(self.path.parent):
            return self.path.parent / f"{safe_name(self.path.stem)}{STUDY_SUFFIX}"
        return Path.home() / f"{safe_name(self.name)}{STUDY_SUFFIX}"


def why_unusable(layer: Image) -> str:
    """Return why this image layer cannot be a smear, in words for the user; empty when it can."""
    data = layer.data[0] if layer.multiscale else layer.data
    if 0 in data.shape:
        return text("image.empty", name=layer.name)
    if tag(layer).get("role") == "pictures":
        return text("image.pictures", name=layer.name)
    if not layer.rgb:
        separate = layer.ndim == 3 and 3 in (data.shape[0], data.shape[-1])
        return text("image.channels" if separate else "image.grey", name=layer.name)
    if layer.ndim not in (2, 3):
        return text("image.dims", name=layer.name, ndim=layer.ndim)
    if np.dtype(data.dtype).kind not in "uf":
        return text("image.dtype", name=layer.name, dtype=data.dtype)
    return ""


def smear_image(layer: Image) -> SmearImage:
    """Take what the pipeline needs from a layer that `why_unusable` has nothing against; reads no pixels."""
    mark = tag(layer)
    source = layer.source.path
    return SmearImage(
        name=str(layer.name),
        data=layer.data[0] if layer.multiscale else layer.data,
        path=Path(source) if source else None,
        study=Path(mark["study"]) if "study" in mark else None,
        fields=tuple(mark.get("fields", ())),
        pixel_size_um=pixel_size_um(layer),
    )


def pixel_size_um(layer: Image) -> float | None:
    """Micrometres per pixel of a layer whose unit is a length and whose pixels are square; else None."""
    units, scale = layer.units[-2:], np.abs(np.asarray(layer.scale, dtype=float)[-2:])
    if not all(unit.is_compatible_with("micrometer") for unit in units):
        return None
    y, x = (float((factor * unit).to("micrometer").magnitude) for factor, unit in zip(scale, units, strict=True))
    return y if x > 0 and abs(y / x - 1) < 0.01 else None


def rgb8(pixels: npt.NDArray[Any], where: str = "image") -> npt.NDArray[np.uint8]:
    """Convert a colour picture to eight bits per channel by the rule of `napari_dinobloom.io.pixels`.

    Parameters
    ----------
    pixels : (Y, X, 3 or 4) array
        Unsigned integers, or floats from 0 to 1. A fourth channel is opacity, laid on white, which is how an empty
        slide looks.
    where : str
        Name of the layer, for messages.

    Returns
    -------
    (Y, X, 3) uint8 array

    Raises
    ------
    ImageError
        If there is no rule for these values.
    """
    eight = to_uint8(pixels, where)
    return on_white(eight) if eight.shape[-1] == 4 else np.ascontiguousarray(eight)


def safe_name(name: str) -> str:
    """A file name made of `name`: letters, digits, ``_``, ``-`` and ``.``, 80 at most, never empty or hidden."""
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("._")[:80] or "smear"


def iter_inputs(image: SmearImage, folder: Path, specimen: Specimen = "blood") -> Steps[list[Path]]:
    """Give the pictures of `image` as files, one for each plane.

    Parameters
    ----------
    image : SmearImage
        What to work on.
    folder : Path
        The study folder; made when a picture has to be written and there is none yet.
    specimen : {"blood", "marrow"}
        What a new study is about.

    Returns
    -------
    list of Path
        The layer's own file or files where they hold the same pixels, else PNG files below ``fields/``.

    Raises
    ------
    StudyError
        If `folder` exists and is not a study, or may not be written.
    ImageError
        If the layer's values cannot be shown as colours.
    """
    total, step = image.planes, text("job.preparing")
    yield Progress(0, total, image.name, step)
    known = _files_of(image)
    files: list[Path] = []
    with ExitStack() as closing:
        study: Study | None = None
        for plane in range(total):
            path = known[plane] if len(known) == total else None
            if path is None or not _same_pixels(path, image, plane):
                if study is None:
                    study = closing.enter_context(Study.open_or_create(folder, specimen=specimen))
                name = image.name + (f"-{plane + 1:04d}" if image.stack else "")
                path = study.keep_picture(name, image.rgb(plane), image.pixel_size_um)
            files.append(path)
            yield Progress(plane + 1, total, image.name, step)
    return files


def _files_of(image: SmearImage) -> list[Path]:
    """Files that may hold the planes of `image`, in order; to be compared."""
    if image.study is not None:
        try:
            study = Study.open(image.study, read_only=True)
            return [study.locate(field) for field in image.fields]
        except StudyError:
            return []  # the study or its pictures are gone; what the layer shows goes in
    if image.path is not None and (image.path.is_file() or is_picture(image.path)) and not image.stack:
        return [image.path]
    return []


def _same_pixels(path: Path, image: SmearImage, plane: int) -> bool:
    """Whether reading `path` gives just what the layer shows; of whole slides 64 windows are compared."""
    try:
        smear = read_smear(path)
        if smear.image.shape[:2] != image.data.shape[-3:-1]:
            return False
        if smear.image.shape[0] * smear.image.shape[1] > IN_MEMORY:
            whole = image.data[plane] if image.stack else image.data
            read, shown = thinned(smear.image), rgb8(thinned(whole), image.name)
        else:
            read, shown = np.asarray(smear.image), image.rgb(plane)
    except ImageError:
        return False
    return bool(np.abs(read.astype(np.int16) - shown).max(initial=0) <= 1)  # readers round opacity differently


def _writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, as far as can be told without making one."""
    return os.access(folder, os.W_OK)
