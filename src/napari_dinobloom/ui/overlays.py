"""What the Patches window shows: patches of cells that are looked at, and their overlay on the field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels
from napari.utils.colormaps import ensure_colormap

from napari_dinobloom.encoders.overlay import paint
from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.study import Study
from napari_dinobloom.progress import Progress, Steps
from napari_dinobloom.ui import jobs, layers, workers
from napari_dinobloom.ui.correction import Correction
from napari_dinobloom.ui.images import TAG, tag
from napari_dinobloom.ui.previews import crops_of
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text

if TYPE_CHECKING:
    from napari_dinobloom.pipeline.cell_patches import CellPatches

MOST = 48
"""Cells whose patches are shown at a time: their tokens take some seconds and 40 MB."""

MOST_PIXELS = 16_000_000
"""Of the part of a field that an overlay covers; cells farther apart get theirs in the pictures only."""

ROLE = "patches"


def cells_in_view(viewer: Any, session: Session) -> list[str]:
    """Cells in the part of the topmost cell layer that is in sight, those in its middle first; up to `MOST`."""
    study, shown = session.study, Correction(viewer, session).cell_layers()
    layer = next((layer for layer in shown if layer.visible), None)
    if study is None or layer is None:
        return []
    corners = _view(viewer, layer)
    plane = int(np.clip(round(float(corners[0, 0])), 0, layer.data.shape[0] - 1)) if layer.ndim == 3 else 0
    field = tag(layer)["fields"][plane]
    obs = study.cells.obs
    here = obs[(obs["field"] == field) & ~obs["deleted"].astype(bool)]
    centres = here[["y0", "x0", "y1", "x1"]].to_numpy(np.float64).reshape(-1, 2, 2).mean(axis=1)
    low, high = corners[:, -2:].min(axis=0), corners[:, -2:].max(axis=0)
    inside = np.flatnonzero(((centres >= low) & (centres <= high)).all(axis=1))
    near = np.square(centres[inside] - (low + high) / 2).sum(axis=1).argsort(kind="stable")
    return [str(cell) for cell in here.index[inside[near[:MOST]]]]


def _view(viewer: Any, layer: Labels) -> npt.NDArray[np.float64]:
    """Corners of what the canvas shows, (4, ndim) in data coordinates of a layer."""
    dims, camera = viewer.dims, viewer.scene.camera
    centre = np.array(camera.center, dtype=float)[-2:]
    half = np.array(viewer.canvas.size, dtype=float) / 2 / camera.zoom
    corners = []
    for sign in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        world = np.array(dims.point, dtype=float)
        world[list(dims.displayed)[-2:]] = centre + half * sign
        corners.append(layer.world_to_data(world[-layer.ndim :]))
    return np.asarray(corners, dtype=np.float64)


def start_patches(
    session: Session,
    cells: Sequence[str],
    then: Callable[[CellPatches], object],
    **asked: Any,
) -> workers.StepsWorker | None:
    """Compute the patches of some cells in a second thread; `then` gets them.

    Parameters
    ----------
    session : Session
        Its study has the cells.
    cells : sequence of str
        Up to `MOST` cell ids; of more the first are taken.
    then : callable
        Called on the main thread.
    **asked
        As for `napari_dinobloom.pipeline.cell_patches.iter_cell_patches`.

    Returns
    -------
    StepsWorker or None
        None when another job is under way, which is said, or no study is open.
    """
    chosen = list(cells)[:MOST]
    return jobs.start_job(
        session,
        text("job.patches"),
        lambda study: _iter_patches(study, chosen, asked),
        then,
        done=text("patches.done", count=len(chosen)),
    )


def _iter_patches(study: Study, cells: list[str], asked: dict[str, Any]) -> Steps[CellPatches]:
    """Read the crops of cells, then compute their tokens."""
    from napari_dinobloom.pipeline.cell_patches import iter_cell_patches

    yield Progress(0, len(cells), "", "crop")
    _, crops, problem = crops_of(study, cells)
    if problem or len(crops) != len(cells):
        raise DinoBloomError(problem or text("patches.why.gone"))
    return (yield from iter_cell_patches(study, cells, crops, **asked))


def heat(similarity: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Colours of similarities: 0 and less is dark, 1 is bright; (..., ) to (..., 3) float32."""
    flat = np.clip(similarity, 0, 1).ravel()
    coloured: npt.NDArray[np.float32] = ensure_colormap("inferno").map(flat)[:, :3].astype(np.float32)
    return coloured.reshape(*similarity.shape, 3)


def show_on_fields(
    viewer: Any, session: Session, cells: Sequence[str], values: npt.NDArray[np.float32], opacity: float
) -> str:
    """Lay colours of patches over the fields that the viewer shows; earlier overlays go.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Gets one layer for each field with such cells.
    session : Session
        Its study has the cells.
    cells : sequence of str
        n cell ids.
    values : ndarray (n, h, w, 3) float32
        Colours of their patches, 0..1.
    opacity : float
        Of the layers, 0..1.

    Returns
    -------
    str
        Why some cells are not painted; empty when all are.
    """
    from napari_dinobloom.pipeline.cell_patches import field_tiles

    study, why, found = session.study, "", []
    if study is None:
        return ""
    fields = dict.fromkeys(study.cells.obs["field"].reindex(list(cells)).dropna())
    for field in fields:
        base = next((one for one in Correction(viewer, session).cell_layers() if field in tag(one)["fields"]), None)
        tiles = field_tiles(study, field, cells, values) if base is not None else []
        if base is None or not tiles:
            why = text("patches.why.not_shown") if base is None else why
            continue
        y0, x0 = min(tile.y0 for tile in tiles), min(tile.x0 for tile in tiles)
        y1 = max(tile.y0 + tile.rgba.shape[0] for tile in tiles)
        x1 = max(tile.x0 + tile.rgba.shape[1] for tile in tiles)
        if (y1 - y0) * (x1 - x0) > MOST_PIXELS:
            why = text("patches.why.far_apart")
            continue
        canvas = paint(tiles, np.zeros((y1 - y0, x1 - x0, 4), np.uint8), (y0, x0))
        found.append((field, base, canvas, (y0, x0)))
    _put(viewer, study, found, opacity)
    return why


def _put(viewer: Any, study: Study, found: Sequence[tuple[str, Labels, Any, tuple[int, int]]], opacity: float) -> None:
    """Add the overlays; a layer of ours for the same part of the same field takes the new colours."""
    present = {tag(layer)["part"]: layer for layer in viewer.layers if tag(layer).get("role") == ROLE}
    active = viewer.layers.selection.active
    for field, base, canvas, origin in found:
        part = (str(study.path), field, *origin, *canvas.shape[:2])
        data = canvas[None] if base.ndim == 3 else canvas
        layer = present.pop(part, None)
        if layer is not None:
            layer.data = data
            continue
        at = (tag(base)["fields"].index(field), *origin) if base.ndim == 3 else origin
        mark = {"role": ROLE, "study": str(study.path), "part": part}
        name = text("layer.patches", field=field)
        layer = Image(data, name=name, rgb=True, opacity=opacity, metadata={TAG: mark}, **_moved(base, at))
        viewer.add_layer(layer)
        viewer.layers.move(len(viewer.layers) - 1, viewer.layers.index(base))
    for layer in present.values():
        viewer.layers.remove(layer)
    if active is not None and active in viewer.layers:
        viewer.layers.selection.active = active


def _moved(base: Labels, origin: Sequence[int]) -> dict[str, Any]:
    """Place of a layer whose first pixel lies on the pixel `origin` of `base`, as keyword arguments."""
    place = layers.placement(base, base.ndim)
    matrix = np.eye(base.ndim + 1)
    zero = np.asarray(base.data_to_world(np.zeros(base.ndim)))
    for axis, unit in enumerate(np.eye(base.ndim)):
        matrix[:-1, axis] = np.asarray(base.data_to_world(unit)) - zero
    matrix[:-1, -1] = np.asarray(base.data_to_world(np.asarray(origin, dtype=float)))
    return {"affine": matrix, "units": place["units"], "axis_labels": place["axis_labels"]}


def remove(viewer: Any) -> None:
    """Take all overlays out of the viewer."""
    for layer in [layer for layer in viewer.layers if tag(layer).get("role") == ROLE]:
        viewer.layers.remove(layer)


def set_opacity(viewer: Any, opacity: float) -> None:
    """Change how much of the field shines through."""
    for layer in viewer.layers:
        if tag(layer).get("role") == ROLE:
            layer.opacity = opacity
