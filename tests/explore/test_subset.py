from __future__ import annotations

import numpy as np
import pytest

from napari_dinobloom.explore.subset import MOST, SIZE, chosen_size, iter_subset
from napari_dinobloom.progress import drain


def cells() -> tuple[np.ndarray, np.ndarray]:
    """A common population, a rare one and a very rare one."""
    random = np.random.default_rng(0)
    kind = np.repeat([0, 1, 2], [9000, 300, 30])
    x = random.normal(size=(len(kind), 8)) + np.eye(8)[kind] * 30
    order = random.permutation(len(kind))
    return x[order].astype(np.float32), kind[order]


def test_rare_populations_are_thinned_less() -> None:
    x, kind = cells()
    rows = drain(iter_subset(x, 1500, 1))
    assert len(rows) == len(set(rows.tolist())) == 1500
    assert (np.diff(rows) > 0).all()
    share = np.bincount(kind[rows], minlength=3) / np.bincount(kind)
    assert share[2] > 1.5 * share[0]
    assert share[1] > share[0]
    np.testing.assert_array_equal(rows, drain(iter_subset(x, 1500, 1)))
    assert drain(iter_subset(x, 1500, 2)).tolist() != rows.tolist()


def test_all_cells_where_there_are_no_more() -> None:
    x, _ = cells()
    assert drain(iter_subset(x[:50], 50, 0)).tolist() == list(range(50))
    assert drain(iter_subset(x[:50], 80, 0)).tolist() == list(range(50))


@pytest.mark.parametrize(
    ("count", "asked", "size"),
    [(100, None, 100), (MOST, None, MOST), (MOST + 1, None, SIZE), (1000, 300, 300), (100, 300, 100)],
)
def test_how_many_are_fitted(count: int, asked: int | None, size: int) -> None:
    assert chosen_size(count, asked) == size
