"""Reader of folders of single-cell pictures: a stack that is read where it is looked at, with name and class of each.

The class is the folder that a picture lies in, where there are several below the one that was opened. What core napari
does with folders stays: it asks who is to read one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from napari_dinobloom.cells.picture_files import PictureFiles
    from napari_dinobloom.io.inputs import Source
    from napari_dinobloom.ui.layers import LayerData

LARGEST = 640
"""Pixels of a side of a picture that can be of one cell; sets have 128 to 600."""
GREY = 127
"""Of a picture that cannot be read."""


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return `read_cell_pictures` when every path is a folder and none a study or an OME-Zarr (npe2 contract)."""
    folders = [Path(one) for one in ([path] if isinstance(path, str) else path)]
    others = any((one / "study.json").is_file() or one.name.lower().endswith(".zarr") for one in folders)
    return read_cell_pictures if folders and not others and all(one.is_dir() for one in folders) else None


def read_cell_pictures(path: str | Sequence[str]) -> list[LayerData]:
    """Open single-cell pictures as one stack.

    Parameters
    ----------
    path : str or sequence of str
        Folders; all pictures in them and below are taken, in the order of their paths.

    Returns
    -------
    list of LayerData
        (n, 224, 224, 3) uint8, lazy: each picture whole, resized as the encoders get it; and a layer of points, one for
        each picture, whose features are ``class``, ``name`` and ``file``, which stand above it.

    Raises
    ------
    InputError
        There is no picture, or the first one is larger than one of a single cell.
    """
    import dask.array as da

    from napari_dinobloom.cells.picture_files import PictureFiles
    from napari_dinobloom.errors import InputError
    from napari_dinobloom.io.inputs import find_images
    from napari_dinobloom.io.smear import read_smear
    from napari_dinobloom.ui.images import TAG
    from napari_dinobloom.ui.texts import text

    folders = [path] if isinstance(path, str) else list(path)
    sources = find_images(folders).files
    if not sources:
        raise InputError(text("reader.no_pictures", folder=folders[0]))
    height, width = read_smear(sources[0].path).image.shape[:2]
    if max(height, width) > LARGEST:
        raise InputError(text("reader.not_cells", file=sources[0].path, height=height, width=width))
    pictures = _Lazy(PictureFiles([source.path for source in sources]))
    stack = da.from_array(pictures, chunks=(1, *pictures.shape[1:]), name=False)
    name = Path(folders[0]).name
    meta = {"name": name, "rgb": True, "metadata": {TAG: {"role": "pictures"}}}
    return [(stack, meta, "image"), _captions(sources, name)]


def _captions(sources: Sequence[Source], name: str) -> LayerData:
    """A point above each picture that carries what is known of it."""
    import pandas as pd

    from napari_dinobloom.ui.texts import text

    files = [PurePosixPath(source.file) for source in sources]
    folders = [file.parent.name for file in files]
    table: pd.DataFrame = pd.DataFrame({"class": folders, "name": [f.name for f in files], "file": map(str, files)})
    places = np.zeros((len(table), 3))
    places[:, 0] = np.arange(len(table))
    places[:, 1] = -6
    meta = {
        "name": text("layer.captions", name=name),
        "features": table,
        "size": 1,
        "face_color": "transparent",
        "border_color": "transparent",
        "text": {"string": "{class}  {name}", "anchor": "lower_left", "size": 10, "color": "#888888"},
    }
    return places, meta, "points"


class _Lazy:
    """Pictures as dask slices them; one that cannot be read is grey, which is said."""

    ndim, dtype = 4, np.dtype(np.uint8)

    def __init__(self, files: PictureFiles) -> None:
        self._files, self.shape = files, files.shape

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray[Any, Any]:
        from napari.utils.notifications import show_warning

        from napari_dinobloom.errors import ImageError

        at, *rest = key
        rows = at if isinstance(at, slice) else slice(int(at), int(at) + 1)  # dask asks for a plane by its number
        try:
            found = self._files[rows]
        except ImageError as error:
            show_warning(str(error))
            found = np.full((len(range(*rows.indices(len(self._files)))), *self.shape[1:]), GREY, np.uint8)
        part: np.ndarray[Any, Any] = found[(slice(None), *rest)]
        return part if isinstance(at, slice) else part[0]
