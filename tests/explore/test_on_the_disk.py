"""Embeddings that stay on the disk give the same maps, places and searches as those in memory."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from napari_dinobloom.explore import layout, placing, projection, restandardise
from napari_dinobloom.explore.layout import fitted_rows, iter_spots, place, umap
from napari_dinobloom.explore.neighbours import exact_neighbours
from napari_dinobloom.explore.restandardise import Restandardise, batches, sample
from napari_dinobloom.explore.subset import iter_subset
from napari_dinobloom.io import celltable, vectors
from napari_dinobloom.io.study import Study
from napari_dinobloom.io.vectors import Vectors
from napari_dinobloom.progress import drain

N, D = 400, 8


def table(shift: float = 0.5) -> AnnData:
    rng = np.random.default_rng(0)
    kind, slide = rng.integers(0, 4, N), np.arange(N) % 3
    x = (4 * rng.standard_normal((4, D)))[kind] + rng.standard_normal((N, D)) + shift * slide[:, None]
    obs = pd.DataFrame({"cell_id": [celltable.cell_id(f"f{s}", i + 1) for i, s in enumerate(slide)]})
    obs["field"] = obs["slide"] = obs["patient"] = [f"s{s}" for s in slide]
    obs["deleted"] = np.arange(N) % 50 == 7
    return AnnData(x.astype(np.float32), obs=celltable.complete(obs))


@pytest.fixture
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AnnData:
    monkeypatch.setattr(vectors, "LAZY", 1000)
    monkeypatch.setattr(vectors, "ROWS", 37)
    for module in (placing, projection):
        monkeypatch.setattr(module, "BLOCK", 64)
    study = Study.create(tmp_path / "s.dinobloom")
    study.save_cells(table())
    assert Vectors.of(study.cells).lazy
    return study.cells


@pytest.mark.parametrize("by", [None, "slide"])
def test_a_map_and_the_cells_placed_on_it(on_disk: AnnData, by: str | None) -> None:
    spots = np.random.default_rng(1).standard_normal((N, 2)).astype(np.float32)
    spots[::3] = np.nan  # these are placed
    in_memory = table()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # slides hold few cells
        one = umap(in_memory, coordinates=spots, restandardise=by)
        other = umap(on_disk, coordinates=spots, restandardise=by)
    assert one.hash == other.hash
    assert np.array_equal(in_memory.obsm["X_umap"], on_disk.obsm["X_umap"], equal_nan=True)
    assert np.array_equal(fitted_rows(on_disk), np.flatnonzero(~table().obs["deleted"].to_numpy(bool)))
    place(in_memory, one)
    place(on_disk, other)
    assert np.array_equal(in_memory.obsm["X_umap"], on_disk.obsm["X_umap"], equal_nan=True)


def test_new_slides_of_a_restandardised_map(on_disk: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    known = table()[table().obs["slide"] == "s0"].copy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spots = np.random.default_rng(2).standard_normal((known.n_obs, 2))
        fitted = umap(known, coordinates=spots, restandardise="slide")
        whole, places = drain(iter_spots(table(), fitted))
        monkeypatch.setattr(projection, "AT_ONCE", 5)  # a slide at a time
        parts, same = drain(iter_spots(on_disk, fitted))
    assert whole.standards is not None
    assert parts.standards is not None
    assert whole.standards.groups == parts.standards.groups
    np.testing.assert_allclose(whole.standards.shift, parts.standards.shift, rtol=0, atol=1e-6)
    np.testing.assert_allclose(places, same, rtol=0, atol=1e-4)


def test_the_same_cells_are_chosen_to_be_fitted(on_disk: AnnData) -> None:
    assert np.array_equal(drain(iter_subset(table().X, 50, 1)), drain(iter_subset(Vectors.of(on_disk), 50, 1)))


def test_slides_are_read_whole_and_a_sample_has_a_part_of_each() -> None:
    groups = np.random.default_rng(0).choice(["a", "b", "c", "d"], 1000, p=[0.7, 0.2, 0.09, 0.01])
    parts = list(batches(groups, 250))
    assert [sorted(set(groups[rows])) for rows in parts] == [["a"], ["b"], ["c", "d"]]
    assert sorted(np.concatenate(parts).tolist()) == list(range(1000))
    assert all(len(rows) <= 250 or len(set(groups[rows])) == 1 for rows in parts)
    chosen = sample(groups, 100)
    assert len(chosen) <= 104
    counts = pd.Series(groups[chosen]).value_counts()
    assert set(counts.index) == {"a", "b", "c", "d"}
    assert abs(counts["a"] - 70) <= 5
    assert np.array_equal(sample(groups, 1000), np.arange(1000))


def test_a_slide_moves_by_the_same_whether_others_are_fitted_beside_it() -> None:
    x, slides = table(2.0).X, table().obs["slide"].to_numpy(object)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = Restandardise.fit(x[slides == "s0"], slides[slides == "s0"])
        together = model.with_groups(x, slides)
        apart = model
        for rows in restandardise.batches(slides, 1):
            apart = apart.with_groups(x[rows], slides[rows])
    assert together.groups == apart.groups
    np.testing.assert_allclose(together.shift, apart.shift, rtol=0, atol=1e-6)


def test_several_devices_find_what_one_finds() -> None:
    rng = np.random.default_rng(5)
    reference, query = rng.standard_normal((300, D)), rng.standard_normal((2500, D))  # three chunks
    one, several = (exact_neighbours(query, reference, 7, device=d) for d in ("cpu", ("cpu", "cpu")))
    assert all(np.array_equal(a, b) for a, b in zip(one, several, strict=True))


def test_small_slides_move_as_far_where_only_a_sample_tells_the_populations(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, slides, each = np.random.default_rng(4), 30, 60
    slide = np.repeat(np.arange(slides), each)
    shifts = rng.normal(0, 0.6, (slides, D))
    spreads = rng.uniform(0.7, 1.4, slides)[slide, None]
    x = (5 * rng.standard_normal((4, D)))[rng.integers(0, 4, len(slide))]
    x = x + spreads * rng.standard_normal((len(slide), D)) + shifts[slide]
    obs = pd.DataFrame({"slide": [f"s{one:02d}" for one in slide]}, index=[f"c{i}" for i in range(len(slide))])
    cells = AnnData(x.astype(np.float32), obs=obs)
    spots = rng.standard_normal((len(slide), 2))
    found = []
    for most in (len(slide), 6 * slides):  # all cells, and six of each slide
        monkeypatch.setattr(layout, "AT_ONCE", most)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(umap(cells.copy(), coordinates=spots, restandardise="slide").standards)
    whole, sampled = found
    assert sampled.groups == whole.groups
    assert sampled.cells.tolist() == whole.cells.tolist() == [each] * slides
    left = [np.sqrt(np.square((s := one.shift - shifts) - s.mean(0)).mean()) for one in found]
    assert left[0] < 0.25
    assert left[1] < 1.1 * left[0], "as much of the shifts is left as where all cells tell"
    np.testing.assert_allclose(sampled.scale, whole.scale, rtol=0.15)
