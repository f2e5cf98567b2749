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

from napari_dinobloom.explore import graph
from napari_dinobloom.explore.layout import FEWEST, iter_umap, place, umap
from napari_dinobloom.explore.neighbours import exact_neighbours
from napari_dinobloom.explore.projection import ProjectionError

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
from napari_dinobloom.explore.layout import umap
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
    "change",
    [
        {"n_neighbors": 1},
        {"min_dist": -0.1},
        {"min_dist": 2},
        {"metric": "l1"},
        {"seed": -1},
        {"method": "tsne"},
        {"search": "faiss"},
        {"subset": 3},
        {"restandardise": "scanner"},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_named(change: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        umap(cells(20), **change)


def test_another_layout_of_the_same_cells_searches_no_neighbours_again(
    mapped: anndata.AnnData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fresh = cells(150)
    umap(fresh, min_dist=0.4, seed=3)
    mapped.write_h5ad(tmp_path / "cells.h5ad")
    adata = anndata.read_h5ad(tmp_path / "cells.h5ad")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("searched again")

    monkeypatch.setattr(graph, "iter_neighbours", refuse)
    umap(adata, min_dist=0.4, seed=3)
    np.testing.assert_array_equal(adata.obsm["X_umap"], fresh.obsm["X_umap"])
    with pytest.raises(AssertionError, match="searched again"):
        umap(adata, n_neighbors=10)
    adata.X[3] += 1
    with pytest.raises(AssertionError, match="searched again"):
        umap(adata)


def test_recall_of_approximate_neighbours_is_measured_and_low_recall_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    adata = cells(300)
    true, _ = exact_neighbours(adata.X, adata.X, 15)

    def good(x: np.ndarray, size: int, metric: str) -> np.ndarray:
        found = true.copy()
        found[:60, 14] = (true[:60, 0] + 150) % 300  # a fifth of the cells miss one of their 14 neighbours
        return found

    def bad(x: np.ndarray, size: int, metric: str) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 300, (300, size))

    monkeypatch.setattr(graph, "descend", good)
    umap(adata, search="nn-descent")
    about = adata.uns["dinobloom"]["projection"]
    assert (about["search"], about["recall_cells"]) == ("nn-descent", 300)
    assert about["recall"] == pytest.approx(1 - 0.2 / 14, abs=0.002)
    monkeypatch.setattr(graph, "descend", bad)
    with pytest.warns(UserWarning, match="NN-descent found"):
        umap(cells(300), search="nn-descent")


@pytest.mark.slow
def test_nn_descent_is_bit_identical_and_nearly_exact() -> None:
    one, other = cells(5000), cells(5000)
    umap(one, search="nn-descent")
    umap(other, search="nn-descent")
    np.testing.assert_array_equal(one.obsm["X_umap"], other.obsm["X_umap"])
    assert one.uns["dinobloom"]["projection"]["hash"] == other.uns["dinobloom"]["projection"]["hash"]
    assert one.uns["dinobloom"]["projection"]["recall"] > 0.9


def test_search_is_exact_for_few_cells_and_approximate_for_many_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "best_device", lambda: "cpu")
    assert (graph.choose_search(20_000), graph.choose_search(20_001)) == ("exact", "nn-descent")
    assert graph.choose_search(100, "nn-descent") == "nn-descent"
    monkeypatch.setattr(graph, "best_device", lambda: "cuda")
    assert graph.choose_search(500_000) == "exact"


def test_copies_that_crowd_a_cell_out_of_its_own_neighbours() -> None:
    found = np.array([[0, 1, 2], [0, 2, 1], [0, 1, 1]])
    assert graph.without_self(found, 2).tolist() == [[1, 2], [0, 2], [0, 1]]


def test_a_subset_is_fitted_and_the_others_are_placed() -> None:
    adata = cells(400)
    projection = umap(adata, subset=200)
    at = adata.obsm["X_umap"]
    assert (len(projection), np.isfinite(at).all()) == (200, True)
    chosen = adata.obs_names.get_indexer(list(projection.cell_ids))
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(at[chosen], projection.coordinates)
    np.testing.assert_array_equal(at, projection.place(adata.X))
    nearest, _ = exact_neighbours(at, at, 5, exclude_self=True)
    assert (nearest % 4 == (np.arange(400) % 4)[:, None]).mean() > 0.98
    assert adata.obsp["distances"][chosen].nnz == adata.obsp["distances"].nnz == 200 * 14


def test_pca_is_placed_by_its_axes() -> None:
    adata = cells(100)
    adata.obsp["distances"] = np.zeros((100, 100))
    projection = umap(adata, method="pca")
    wanted = PCA(2, svd_solver="full").fit(adata.X.astype(np.float64))
    np.testing.assert_allclose(adata.obsm["X_umap"], wanted.transform(adata.X.astype(np.float64)), atol=1e-4)
    new = cells(130)[100:].copy()
    place(new, projection)
    np.testing.assert_allclose(new.obsm["X_umap"], wanted.transform(new.X.astype(np.float64)), atol=1e-4)
    assert new.uns["dinobloom"]["projection"]["hash"] == projection.hash
    assert not len(adata.obsp)


def test_given_coordinates_are_kept_and_the_others_placed_among_them() -> None:
    adata = cells(100)
    spots = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    spots[90:] = np.nan
    projection = umap(adata, coordinates=spots)
    np.testing.assert_array_equal(adata.obsm["X_umap"][:90], spots[:90])
    np.testing.assert_array_equal(adata.obsm["X_umap"][90:], projection.place(adata.X[90:]))
    assert projection.kind == adata.uns["dinobloom"]["projection"]["kind"] == "given"
    with pytest.raises(ValueError, match="coordinates have shape"):
        umap(adata, coordinates=spots[:5])


def test_another_patients_cells_on_a_map(mapped: anndata.AnnData) -> None:
    projection = umap(cells(150))
    more = cells(200)
    more.obs["deleted"] = np.arange(200) == 180
    more.X[190] = np.nan
    place(more, projection)
    at = more.obsm["X_umap"]
    np.testing.assert_array_equal(at[:150], mapped.obsm["X_umap"], err_msg="fitted cells lie where they lay")
    assert np.flatnonzero(np.isnan(at).any(1)).tolist() == [180, 190]
    kept = np.setdiff1d(np.arange(150, 200), [180, 190])
    nearest, _ = exact_neighbours(at[kept], projection.coordinates, 5)
    assert (nearest % 4 == (kept % 4)[:, None]).mean() > 0.98
    other = more[150:].copy()
    other.obs_names = [f"patient2:{i}" for i in range(50)]
    place(other, projection)
    np.testing.assert_array_equal(other.obsm["X_umap"], at[150:])


def test_cells_of_another_encoder_are_refused() -> None:
    adata = cells(60)
    adata.uns["dinobloom"] = {"encoder": "one", "encoder_sha256": "a" * 64, "pooling": "class"}
    projection = umap(adata)
    other = cells(10)
    other.uns["dinobloom"] = {"encoder": "two", "encoder_sha256": "b" * 64, "pooling": "class"}
    with pytest.raises(ProjectionError, match="belongs to one"):
        place(other, projection)
    assert "X_umap" not in other.obsm
    with pytest.raises(ProjectionError, match="20 numbers"):
        projection.place(np.zeros((3, 19)))


def test_a_map_of_restandardised_cells_places_known_and_new_slides() -> None:
    adata = cells(600)
    slide = np.arange(600) // 4 % 3
    adata.X += np.random.default_rng(5).normal(size=(3, 20)).astype(np.float32)[slide] * 1.5
    adata.obs["slide"] = np.array(["a", "b", "c"])[slide]
    first = adata[slide < 2].copy()
    projection = umap(first, restandardise="slide")
    np.testing.assert_array_equal(
        projection.place(first.X[:30], first.obs["slide"][:30].tolist()), first.obsm["X_umap"][:30]
    )
    with pytest.raises(ProjectionError, match="say the group"):
        projection.place(first.X)
    with pytest.raises(ProjectionError, match="'c' is not known"):
        projection.place(first.X[:1], ["c"])
    wider = place(adata, projection)
    assert wider.hash == projection.hash
    assert wider.standards is not None
    assert wider.standards.groups == ("a", "b", "c")
    alone = wider.place(adata.X[2 * 4 : 2 * 4 + 1], ["c"])
    np.testing.assert_array_equal(alone, adata.obsm["X_umap"][8:9])
