"""Label images at full resolution from outlines and nuclei found at working resolution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.cytoplasm import RAYS, Outlines
from napari_dinobloom.cells.nuclei import Nuclei

VERSION = 1

Float = NDArray[np.float32]
Labels = NDArray[np.int32]


def draw_cells(outlines: Outlines, nuclei: Nuclei, shape: tuple[int, int]) -> tuple[Labels, Labels]:
    """Draw whole cells and nuclei.

    Parameters
    ----------
    outlines : Outlines
        Of the cells at working resolution.
    nuclei : Nuclei
        At working resolution, numbers 1 to n as the rows of `outlines`.
    shape : tuple of int
        Height and width of the full picture.

    Returns
    -------
    labels, nuclei : numpy.ndarray
        (Y, X) int32; a pixel that two outlines claim goes to the nearer nucleus, every nucleus lies in its cell.
    """
    from scipy import ndimage as ndi

    labels, inner = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    fy, fx = shape[0] / nuclei.labels.shape[0], shape[1] / nuclei.labels.shape[1]
    for number, box in enumerate(ndi.find_objects(nuclei.labels), start=1):
        if box is not None:
            _draw_nucleus(nuclei, box, number, inner, (fy, fx))
    for row in range(len(outlines.centres)):
        _draw_outline(outlines.centres[row], outlines.radii[row], row + 1, labels, (fy, fx))
    labels = np.where(inner > 0, inner, labels)
    return labels, inner


def _draw_nucleus(
    nuclei: Nuclei, box: tuple[slice, slice], number: int, target: Labels, factor: tuple[float, float]
) -> None:
    """Enlarge the margin map around one nucleus and write where it is positive."""
    from scipy import ndimage as ndi

    y0, x0 = max(box[0].start - 2, 0), max(box[1].start - 2, 0)
    window = (slice(y0, box[0].stop + 2), slice(x0, box[1].stop + 2))
    mask = nuclei.labels[window] == number
    near = ndi.binary_dilation(mask)
    margin = np.clip(nuclei.margin[window], -0.5, 0.5)
    margin = np.where(mask, np.maximum(margin, 0.02), np.where(near, np.minimum(margin, -0.02), -0.5))
    fy, fx = factor
    rows = np.arange(int(y0 * fy), min(int(np.ceil((y0 + mask.shape[0]) * fy)), target.shape[0]))
    columns = np.arange(int(x0 * fx), min(int(np.ceil((x0 + mask.shape[1]) * fx)), target.shape[1]))
    y, x = (rows + 0.5) / fy - 0.5 - y0, (columns + 0.5) / fx - 0.5 - x0
    fine = _bilinear(margin.astype(np.float32), y, x) > 0
    view = target[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    view[fine & (view == 0)] = number


def _bilinear(values: Float, y: NDArray[np.float64], x: NDArray[np.float64]) -> Float:
    """Interpolate on the grid of rows `y` and columns `x`, the edge repeated outside."""
    result = values
    for axis, place in ((0, y), (1, x)):
        place = np.clip(place, 0, values.shape[axis] - 1)
        low = np.minimum(place.astype(np.int64), max(values.shape[axis] - 2, 0))
        share = (place - low).astype(np.float32)
        high = np.minimum(low + 1, values.shape[axis] - 1)
        share = share[:, None] if axis == 0 else share[None, :]
        result = np.take(result, low, axis) * (1 - share) + np.take(result, high, axis) * share
    return result


def _draw_outline(centre: Float, radii: Float, number: int, target: Labels, factor: tuple[float, float]) -> None:
    """Write the pixels whose distance from the centre is below the outline's radius in their direction."""
    fy, fx = factor
    y, x = (centre[0] + 0.5) * fy - 0.5, (centre[1] + 0.5) * fx - 0.5
    reach = float(radii.max())
    y0, y1 = max(int(y - reach * fy) - 1, 0), min(int(y + reach * fy) + 3, target.shape[0])
    x0, x1 = max(int(x - reach * fx) - 1, 0), min(int(x + reach * fx) + 3, target.shape[1])
    dy = (np.arange(y0, y1, dtype=np.float32)[:, None] - y) / fy
    dx = (np.arange(x0, x1, dtype=np.float32)[None, :] - x) / fx
    turn = np.arctan2(dy, dx) * (RAYS / (2 * np.pi)) % RAYS
    low = turn.astype(np.int64) % RAYS
    share = turn - np.floor(turn)
    limit = radii[low] * (1 - share) + radii[(low + 1) % RAYS] * share
    view = target[y0:y1, x0:x1]
    view[(dy * dy + dx * dx <= limit * limit) & (view == 0)] = number
