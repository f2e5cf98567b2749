from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA

from napari_dinobloom.explore.neighbours import exact_neighbours
from napari_dinobloom.explore.projection import FEWEST, iter_umap, projection_hash, umap

MAKE = """
import anndata, numpy as np
def cells(count):
    random = np.random.default_rng(0)
    centres = random.normal(size=(4, 20)) * 4
    x = (centres[np.arange(count) % 4] + random.normal(size=(count, 20))).astype(np.float32)
    adata = anndata.AnnData(x)
    adata.obs_names = [f"field:{i:05d}" for i in range(count)]
    return adata
"""
scope: dict = {}
exec(MAKE, scope)
cells = scope["cells"]


@pytest.fixture(scope="module")
def mapped() -> anndata.AnnData:
    adata = cells(150)
    umap(adata)
    return adata


def test_groups_of_cells_stay_together_on_the_map(mapped: anndata.AnnData) -> None:
    at = mapped.obsm["X_umap"]
    assert (at.shape, at.dtype) == ((150, 2), np.float32)
    nearest, _ = exact_neighbours(at, at, 5, exclude_self=True)
    assert (nearest % 4 == (np.arange(150) % 4)[:, None]).mean() > 0.98


def test_a_rerun_gives_the_same_bits(mapped: anndata.AnnData) -> None:
    again = cells(150)
    umap(again)
    np.testing.assert_array_equal(again.obsm["X_umap"], mapped.obsm["X_umap"])
    assert again.uns["dinobloom"]["projection"] == mapped.uns["dinobloom"]["projection"]
    assert (again.obsp["connectivities"] != mapped.obsp["connectivities"]).nnz == 0


@pytest.mark.slow
def test_a_fresh_process_gives_the_same_bits(mapped: anndata.AnnData) -> None:
    code = f"""{MAKE}
import hashlib
from napari_dinobloom.explore.projection import umap
adata = cells(150)
umap(adata)
print(hashlib.sha256(adata.obsm["X_umap"].tobytes()).hexdigest())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == hashlib.sha256(mapped.obsm["X_umap"].tobytes()).hexdigest()


def test_the_stored_graph_is_that_of_exact_neighbours(mapped: anndata.AnnData) -> None:
    indices, distances = exact_neighbours(mapped.X, mapped.X, 14, exclude_self=True)
    graph = mapped.obsp["distances"]
    assert (np.diff(graph.indptr) == 14).all()
    np.testing.assert_allclose(graph[np.arange(150)[:, None], indices].toarray(), distances, rtol=1e-6)
    strengths = mapped.obsp["connectivities"]
    assert abs(strengths - strengths.T).max() < 1e-7
    assert strengths.data.min() > 0
    assert strengths.data.max() <= 1
    assert mapped.uns["neighbors"]["params"]["n_neighbors"] == 15


def test_scanpy_clusters_the_table_as_it_is_after_a_round_trip(mapped: anndata.AnnData, tmp_path: Path) -> None:
    import scanpy

    mapped.write_h5ad(tmp_path / "cells.h5ad")
    adata = anndata.read_h5ad(tmp_path / "cells.h5ad")
    scanpy.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False, resolution=0.05, random_state=0)
    assert (
        pd.crosstab(adata.obs["leiden"], np.arange(150) % 4).to_numpy().tolist()
        == np.diag(np.bincount(np.arange(150) % 4)).tolist()
    )
    stored = adata.uns["dinobloom"]["projection"]
    assert {key: stored[key] for key in ("kind", "n_neighbors", "min_dist", "metric", "seed", "n")} == {
        "kind": "umap",
        "n_neighbors": 15,
        "min_dist": 0.1,
        "metric": "euclidean",
        "seed": 42,
        "n": 150,
    }
    assert stored["hash"] == mapped.uns["dinobloom"]["projection"]["hash"]


def test_the_hash_covers_embeddings_names_parameters_and_seed() -> None:
    x, names = np.zeros((2, 3), np.float32), ["a:1", "a:2"]
    params = {"seed": 1, "n_neighbors": 15}
    moved = x.copy()
    moved[1, 2] = 1e-30
    variants = [
        (x, names, params),
        (moved, names, params),
        (x.reshape(3, 2)[:2], names, params),
        (x, ["a:1", "a:3"], params),
        (x, ["a", ":1a:2"], params),
        (x, names, params | {"seed": 2}),
        (x, names, params | {"n_neighbors": 14}),
    ]
    hashes = [projection_hash(*variant) for variant in variants]
    assert len(set(hashes)) == len(variants)
    assert all(len(value) == 64 for value in hashes)
    assert projection_hash(x.copy(), list(names), dict(reversed(params.items()))) == hashes[0]


def test_cells_that_are_deleted_or_not_embedded_are_left_out() -> None:
    adata = cells(60)
    adata.obs["deleted"] = np.arange(60) == 7
    adata.X[11] = np.nan
    umap(adata)
    kept = np.setdiff1d(np.arange(60), [7, 11])
    only = cells(60)[kept].copy()
    umap(only)
    np.testing.assert_array_equal(adata.obsm["X_umap"][kept], only.obsm["X_umap"])
    assert np.isnan(adata.obsm["X_umap"][[7, 11]]).all()
    assert adata.obsp["connectivities"][[7, 11]].nnz == adata.obsp["connectivities"][:, [7, 11]].nnz == 0
    assert adata.uns["dinobloom"]["projection"]["hash"] == only.uns["dinobloom"]["projection"]["hash"]


@pytest.mark.parametrize("count", [1, 2, FEWEST - 1])
def test_few_cells_are_placed_by_principal_components(count: int, mapped: anndata.AnnData) -> None:
    adata = cells(count)
    adata.uns["neighbors"] = {"left": "over"}
    adata.obsp["connectivities"] = np.zeros((count, count))
    umap(adata)
    at = adata.obsm["X_umap"]
    if count > 2:
        np.testing.assert_allclose(at, PCA(2, svd_solver="full").fit_transform(adata.X.astype(np.float64)), atol=1e-4)
    else:
        assert np.isfinite(at).all()
    assert adata.uns["dinobloom"]["projection"]["kind"] == "pca"
    assert "neighbors" not in adata.uns
    assert not len(adata.obsp)


def test_no_cells_and_few_more_than_the_least() -> None:
    empty = anndata.AnnData(np.zeros((0, 20), np.float32))
    umap(empty)
    assert empty.obsm["X_umap"].shape == (0, 2)
    some = cells(FEWEST)
    umap(some)
    assert np.isfinite(some.obsm["X_umap"]).all()
    assert some.uns["dinobloom"]["projection"]["kind"] == "umap"


def test_copies_of_one_cell_are_mapped() -> None:
    adata = anndata.AnnData(np.ones((30, 5), np.float32))
    umap(adata)
    assert np.isfinite(adata.obsm["X_umap"]).all()


def test_progress_ends_complete_and_the_table_changes_only_at_the_end() -> None:
    adata = cells(40)
    for report in iter_umap(adata):
        assert report.done == report.total or "X_umap" not in adata.obsm
    assert report.done == report.total == 40


@pytest.mark.parametrize(
    "change", [{"n_neighbors": 1}, {"min_dist": -0.1}, {"min_dist": 2}, {"metric": "l1"}, {"seed": -1}], ids=str
)
def test_parameters_out_of_range_are_named(change: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        umap(cells(20), **change)
