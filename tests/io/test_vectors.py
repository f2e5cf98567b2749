"""Embeddings on the disk: what is read of them equals the array, and a table keeps them without holding them."""

from __future__ import annotations

from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io import celltable, vectors
from napari_dinobloom.io.embeddings import EmbeddingSet
from napari_dinobloom.io.study import Study
from napari_dinobloom.io.vectors import Changed, Vectors

N, D = 100, 6


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "LAZY", 4 * D * 20)
    monkeypatch.setattr(vectors, "ROWS", 7)


def table(n: int = N, seed: int = 0) -> AnnData:
    x = np.random.default_rng(seed).random((n, D), dtype=np.float32)
    obs = pd.DataFrame({"cell_id": [celltable.cell_id(f"f{i % 3}", i + 1) for i in range(n)], "field": "f0"})
    obs["label"] = np.where(np.arange(n) % 4 == 0, "monocyte", "")
    return AnnData(x, obs=celltable.complete(obs))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create(tmp_path / "s.dinobloom")


def test_every_way_of_asking_gives_what_the_array_gives(study: Study) -> None:
    x = table().X.copy()
    study.save_cells(table())
    found = Vectors.of(study.cells)
    assert found.lazy
    assert not isinstance(study.cells.X, np.ndarray)
    rng = np.random.default_rng(1)
    for rows in (np.arange(0), np.array([99, 0, 5, 5, 4]), rng.permutation(N), rng.integers(0, N, 300)):
        assert np.array_equal(found[rows], x[rows])
        assert np.array_equal(np.asarray(found.take(rows)), x[rows])
        assert np.array_equal(found.take(rows)[1:40:3], x[rows][1:40:3])
        twice = Changed(found, lambda block, part: block + np.arange(N)[part, None].astype(np.float32)).take(rows)
        assert np.array_equal(twice[:], x[rows] + rows[:, None].astype(np.float32))
    assert np.array_equal(found[3:50], x[3:50])
    assert np.array_equal(np.concatenate([block for _, block in found.blocks(9)]), x)
    assert np.array_equal(np.asarray(study.cells.X), x)
    assert np.array_equal(study.cells[10:20].X.compute(), x[10:20])


def test_a_table_is_saved_again_without_reading_its_embeddings(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    x = table().X.copy()
    study.save_cells(table())
    name = study.cells.X.name
    monkeypatch.setattr(vectors, "computed", lambda array: pytest.fail("was read"))
    study.cells.obs["confidence"] = np.float32(0.5)
    study.save_cells(study.cells)
    assert study.cells.X.name == name
    stored = anndata.read_h5ad(study.path / "cells.h5ad")
    assert np.array_equal(stored.X, x)
    assert (stored.obs["confidence"] == 0.5).all()


def test_a_table_that_was_read_before_other_embeddings_came_says_so(study: Study) -> None:
    study.save_cells(table())
    before, same = study.cells, study.cells.copy()
    study.save_cells(same)
    assert np.array_equal(np.asarray(before.X), table().X)  # the same embeddings: it may go on
    study.save_cells(table(seed=9))
    with pytest.raises(StudyError, match=r"cells\.h5ad: holds other embeddings .*Take `study\.cells` anew"):
        np.asarray(before.X)
    assert np.array_equal(np.asarray(study.cells.X), table(seed=9).X)


def test_cells_that_people_add_get_undefined_embeddings(study: Study) -> None:
    study.save_cells(table())
    study.save_cells(celltable.grown(study.cells, pd.DataFrame({"cell_id": ["f0:00500"], "x": [1.0], "y": [2.0]})))
    found = Vectors.of(study.cells)
    assert found.lazy
    assert found.finite().tolist() == [True] * N + [False]
    assert np.array_equal(found[0:N], table().X)


def test_embeddings_go_from_their_blocks_into_the_table(study: Study, tmp_path: Path) -> None:
    keys = np.random.default_rng(3).permutation(N).astype(np.uint64)
    blocks = EmbeddingSet(tmp_path / "e", {"key": "k"}, D)
    for start in range(0, N, 30):
        blocks.append(keys[start : start + 30], table().X[start : start + 30])
    wanted = np.append(keys[::-1], np.uint64(10**9))  # the last has none
    rows = blocks.rows(wanted)
    assert np.array_equal(rows[20:60], table().X[::-1][20:60])
    cells = table(N + 1)
    cells.X = vectors.lazy(rows, "rows")
    study.save_cells(cells)
    assert np.array_equal(np.asarray(study.cells.X)[:N], table().X[::-1])
    assert np.isnan(np.asarray(study.cells.X)[N]).all()


def test_text_comes_back_as_it_was_and_is_stored_once_each(study: Study) -> None:
    study.save_cells(table())
    study.reload()
    assert study.cells.obs["label"].tolist() == table().obs["label"].tolist()
    assert study.cells.obs["label"].dtype == object
    stored = anndata.read_h5ad(study.path / "cells.h5ad").obs
    assert stored["label"].cat.categories.tolist() == ["", "monocyte"]
    assert stored["cell_id"].tolist() == stored.index.tolist()


def test_small_tables_stay_arrays(study: Study) -> None:
    study.save_cells(table(20))
    study.reload()
    assert isinstance(study.cells.X, np.ndarray)
    assert not Vectors.of(study.cells).lazy


def test_rows_are_named_as_numpy_understands_them(study: Study) -> None:
    x = table().X.copy()
    study.save_cells(table())
    mask = np.arange(N) % 3 == 0
    on_disk = Vectors.of(study.cells)
    for found in (on_disk, Vectors(x), Changed(on_disk, lambda block, part: block)):
        for rows in (mask, np.array([-1, 4, -N]), np.zeros(N, bool)):
            assert np.array_equal(found[rows], x[rows])
            assert np.array_equal(np.asarray(found.take(rows)), x[rows])
            assert np.array_equal(np.asarray(found.take(mask).take(np.array([-1, 0]))), x[mask][[-1, 0]])
        for wrong in (np.array([N]), np.array([-N - 1]), mask[1:]):
            with pytest.raises(IndexError):
                found[wrong]
            with pytest.raises(IndexError):
                found.take(wrong)


def test_rows_of_a_table_that_another_program_wrote_are_never_those_of_its_successor(study: Study) -> None:
    file = study.path / "cells.h5ad"
    for seed in (0, 9):
        table(seed=seed).write_h5ad(study.path / f"{seed}.h5ad")
    (study.path / "0.h5ad").replace(file)
    study.reload()
    before = study.cells
    assert np.array_equal(np.asarray(before.X), table().X)
    (study.path / "9.h5ad").replace(file)
    with pytest.raises(StudyError, match="holds other embeddings"):
        np.asarray(before.X)
    study.reload()
    study.save_cells(study.cells)  # has a mark from now on
    assert np.array_equal(np.asarray(study.cells.X), table(seed=9).X)


@pytest.mark.parametrize("how", ["link", "external", "virtual"])
def test_numbers_of_other_files_are_not_read_from_a_table_that_was_exchanged(study: Study, how: str) -> None:
    study.save_cells(table())
    before, file, other = study.cells, study.path / "cells.h5ad", study.path / "other.h5"
    mark = before.X.name.removeprefix(f"{vectors.MARK}-")
    with h5py.File(other, "w") as secret:
        secret["X"] = np.ones((N, D), np.float32)
        secret["X"].attrs[vectors.MARK] = mark
    with h5py.File(file, "r+") as exchanged:
        del exchanged["X"]
        if how == "link":
            exchanged["X"] = h5py.ExternalLink(str(other), "X")
        elif how == "external":
            exchanged.create_dataset("X", (N, D), np.float32, external=[(str(other), 0, 4 * N * D)])
        else:
            layout = h5py.VirtualLayout((N, D), np.float32)
            layout[:] = h5py.VirtualSource(str(other), "X", (N, D))
            exchanged.create_virtual_dataset("X", layout)
        if how != "link":
            exchanged["X"].attrs[vectors.MARK] = mark
    with pytest.raises(StudyError, match="no array that lies in this file"):
        np.asarray(before.X)
    with pytest.raises(StudyError, match="no array that lies in this file"):
        study.save_cells(before)


def test_text_in_place_of_embeddings_is_refused_when_a_study_is_opened(study: Study) -> None:
    study.save_cells(table())
    with h5py.File(study.path / "cells.h5ad", "r+") as file:
        kind = dict(file["X"].attrs)
        del file["X"]
        file.create_dataset("X", (N, D), h5py.string_dtype()).attrs.update(kind)
    study.reload()
    with pytest.raises(StudyError, match="X is no array of numbers"):
        _ = study.cells


def test_cells_that_another_program_gave_other_names_keep_their_gates(study: Study) -> None:
    cells = table(20)
    cells.obsm["gates"] = pd.DataFrame({"A": np.arange(20) % 2 == 0}, index=cells.obs_names)
    study.save_cells(cells)
    other = anndata.read_h5ad(study.path / "cells.h5ad")
    other.obs_names = [f"cell {i}" for i in range(20)]
    other.write_h5ad(study.path / "cells.h5ad")
    study.reload()
    gates = study.cells.obsm["gates"]
    assert gates.index.equals(study.cells.obs_names)
    assert gates.index.tolist() == cells.obs["cell_id"].tolist()
    assert gates["A"].tolist() == (np.arange(20) % 2 == 0).tolist()
