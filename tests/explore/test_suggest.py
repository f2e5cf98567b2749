"""Suggested gates find the clusters that were put in, with outlines that can be edited."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from napari_dinobloom.explore import suggest
from napari_dinobloom.explore.gates import GateError
from napari_dinobloom.explore.gates.winding import inside_polygon
from napari_dinobloom.explore.suggest import outline, simplified, suggest_gates

XY = ("umap_1", "umap_2")


def blobs() -> tuple[pd.DataFrame, np.ndarray]:
    """Three clusters of 400, 300 and 200 cells, 60 scattered ones and 5 without a place."""
    random = np.random.default_rng(0)
    parts = [random.normal((x, y), 0.3, (n, 2)) for x, y, n in ((0, 0, 400), (4, 0, 300), (2, 4, 200))]
    xy = np.vstack([*parts, random.uniform(-3, 7, (60, 2)), np.full((5, 2), np.nan)])
    truth = np.repeat([0, 1, 2, -1], [400, 300, 200, 65])
    order = random.permutation(len(xy))
    table = pd.DataFrame(xy[order], columns=list(XY))
    table.attrs["projection"] = "ab" * 32
    return table, truth[order]


def test_each_cluster_gets_a_gate_of_the_map_from_the_largest_on() -> None:
    table, truth = blobs()
    gates = suggest_gates(table, XY)
    assert [gate.name for gate in gates] == ["cluster 1", "cluster 2", "cluster 3"]
    for number, gate in enumerate(gates):
        inside = gate.apply(table)
        assert inside[truth == number].mean() > 0.9
        assert inside[truth != number].mean() < 0.03
        assert 4 <= len(gate.points) <= 60
        assert gate.projection == "ab" * 32


def test_suggestions_are_the_same_again_also_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    table, _ = blobs()
    assert suggest_gates(table, XY) == suggest_gates(table.copy(), XY)
    monkeypatch.setattr(suggest, "MOST", 500)
    sampled = suggest_gates(table, XY)
    assert sampled == suggest_gates(table, XY)
    assert sampled != suggest_gates(table, XY, seed=1)
    assert len(sampled) == 3


def test_the_outline_follows_a_bent_cluster_where_a_hull_would_not() -> None:
    random = np.random.default_rng(1)
    angle = random.uniform(0, np.pi, 1500)
    points = np.column_stack([np.cos(angle), np.sin(angle)]) * random.uniform(1.8, 2.2, 1500)[:, None]
    ring = outline(points)
    assert inside_polygon(points[:, 0], points[:, 1], ring).mean() >= suggest.HOLDS
    assert not inside_polygon(np.array([0.0]), np.array([0.8]), ring)[0]
    assert len(ring) < 120


def test_cells_on_a_lattice_and_copies_have_an_outline() -> None:
    points = np.repeat(np.stack(np.meshgrid(np.arange(6.0), np.arange(4.0)), axis=-1).reshape(-1, 2), 3, axis=0)
    ring = outline(points)
    assert inside_polygon(points[:, 0], points[:, 1], ring).all()


def test_what_is_left_out_of_a_ring_lies_within_the_tolerance() -> None:
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    ring = np.column_stack([3 * np.cos(angle), np.sin(angle)])
    few = simplified(ring, 0.02)
    assert 8 < len(few) < 60
    ends = np.roll(few, -1, axis=0)
    share = np.clip(((ring[:, None] - few) * (ends - few)).sum(-1) / ((ends - few) ** 2).sum(-1), 0, 1)
    distance = np.linalg.norm(ring[:, None] - few - share[..., None] * (ends - few), axis=-1).min(axis=1)
    assert distance.max() <= 0.02
    square = np.array([[0, 0], [0.5, 0], [1, 0], [1, 1], [0, 1.0]])
    assert len(simplified(square, 1e-9)) == 4


def test_nothing_is_suggested_where_nothing_is_denser_or_enough() -> None:
    even = pd.DataFrame({"umap_1": [0.0] * 50, "umap_2": np.arange(50.0)})
    assert suggest_gates(even, XY) == []
    assert suggest_gates(even.iloc[:4], XY) == []
    with pytest.raises(GateError, match="at least 5"):
        suggest_gates(even, XY, min_cluster_size=2)
    with pytest.raises(GateError, match="no column 'umap_3'"):
        suggest_gates(even, ("umap_1", "umap_3"))


def test_scikit_learn_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, napari_dinobloom.explore.suggest; print('sklearn' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["False", "False"]
