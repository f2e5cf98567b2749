import numpy as np

from napari_dinobloom.cells.cytoplasm import RAYS, _close_outline, grow_cells
from napari_dinobloom.cells.drawing import draw_cells
from napari_dinobloom.cells.material import Material
from napari_dinobloom.cells.nuclei import Nuclei

PIXEL_UM = 0.16
Y, X = np.mgrid[:160, :200] * PIXEL_UM


def _disc(y: float, x: float, radius: float) -> np.ndarray:
    return np.hypot(Y - y, X - x) < radius


def _grow(cell: np.ndarray, nucleus: np.ndarray, red: np.ndarray | None = None) -> np.ndarray:
    stained = cell if red is None else cell | red
    redness = np.zeros(Y.shape) if red is None else (red & ~cell).astype(float)
    material = Material((0.3 * stained).astype(np.float32), redness.astype(np.float32), 0.05)
    labels = nucleus.astype(np.int32)
    outlines = grow_cells(material, labels, PIXEL_UM, 6.0)
    margin = np.where(nucleus, 0.5, -0.5).astype(np.float32)
    return draw_cells(outlines, Nuclei(labels, margin), Y.shape)[0] > 0


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_a_round_cell_is_grown_to_its_edge():
    cell = _disc(12, 15, 6.5)
    assert _dice(_grow(cell, _disc(12, 16.5, 3.0)), cell) > 0.97


def test_a_red_cell_that_leans_against_the_cell_is_left_out():
    cell, red = _disc(12, 12, 6.0), _disc(12, 21.5, 3.75)
    grown = _grow(cell, _disc(12, 12, 3.5), red)
    assert _dice(grown, cell) > 0.96
    assert (grown & red & ~cell).sum() < 0.05 * red.sum()


def test_the_outline_is_the_best_of_all_smooth_closed_ones():
    """Viterbi against brute force on a small wheel of eight rays."""
    rng = np.random.default_rng(5)
    total = rng.normal(size=(1, 8, 4)).astype(np.float32) * 3
    found = _close_outline(total)[0]
    paths = np.stack(np.meshgrid(*[np.arange(4)] * 8, indexing="ij"), axis=-1).reshape(-1, 8)
    jump = np.abs(np.diff(paths, axis=1, append=paths[:, :1]))
    score = total[0, np.arange(8), paths].sum(axis=1) - 0.4 * jump.sum(axis=1)
    score[(jump > 2).any(axis=1)] = -np.inf
    best = score.max()
    mine = score[(paths == found).all(axis=1)][0]
    assert mine >= best - 0.5
    assert RAYS == 64
