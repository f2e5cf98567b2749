"""Work in a process of its own: same numbers, ends with whoever asked, fails with a sentence."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_dinobloom.explore import apart
from napari_dinobloom.explore.graph import iter_graph
from napari_dinobloom.explore.neighbours import exact_neighbours
from napari_dinobloom.explore.suggest import outlines, suggest_gates
from napari_dinobloom.progress import Progress, drain

REPORT = Progress(0, 1, "cells", "map")


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    random = np.random.default_rng(0)
    return np.vstack([random.normal(centre, 1, (60, 8)) for centre in (0, 4, 8)]).astype(np.float32)


def test_closing_the_generator_ends_the_process(x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    popen = apart.subprocess.Popen

    def start(*arguments, **options):
        made.append(popen(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(apart.subprocess, "Popen", start)
    steps = apart.iter_apart("neighbours", {"x": x}, REPORT, size=11, metric="euclidean")
    next(steps)
    assert made[0].poll() is None
    steps.close()
    assert made[0].poll() is not None


def test_files_where_napari_was_started_are_not_run(
    x: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('this is a folder of data')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = drain(apart.iter_apart("outlines", {"xy": x[:, :2].astype(float)}, REPORT, size=20))
    rings = np.split(found["points"], found["starts"])
    expected = outlines(x[:, :2].astype(float), 20)
    assert len(rings) == max(1, len(expected))
    assert all(np.array_equal(one, other) for one, other in zip(rings, expected, strict=False))


def test_a_failure_says_what_happened(x: np.ndarray) -> None:
    with pytest.raises(apart.ApartError, match=r"could not be computed: ValueError"):
        drain(apart.iter_apart("neighbours", {"x": x}, REPORT, size=11, metric="nowhere"))


def test_a_map_that_is_fitted_in_another_thread_is_the_same_map(x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    from anndata import AnnData

    from napari_dinobloom.explore.layout import umap

    monkeypatch.setattr(apart, "FEWEST", 10)
    tables = [AnnData(x.copy()), AnnData(x.copy())]
    umap(tables[0])
    thread = threading.Thread(target=umap, args=tables[1:])
    thread.start()
    thread.join()
    assert np.array_equal(tables[0].obsm["X_umap"], tables[1].obsm["X_umap"])
    assert (tables[0].obsp["connectivities"] != tables[1].obsp["connectivities"]).nnz == 0
    assert tables[0].uns["dinobloom"]["projection"] == tables[1].uns["dinobloom"]["projection"]


def test_neighbours_of_a_window_are_found_apart(x: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def found_apart(task, arrays, report, **options):
        yield report
        asked.append((task, options))
        return {"indices": exact_neighbours(arrays["x"], arrays["x"], options["size"])[0]}

    monkeypatch.setattr(apart, "wanted", lambda count: True)
    monkeypatch.setattr(apart, "iter_apart", found_apart)
    graph = drain(iter_graph(x, 10, "euclidean", "nn-descent"))
    assert asked == [("neighbours", {"size": 11, "metric": "euclidean"})]
    assert np.array_equal(graph.indices, exact_neighbours(x, x, 10, exclude_self=True)[0])
    assert graph.recall == 1


def test_only_long_work_of_other_threads_is_done_apart() -> None:
    found = {"main": apart.wanted(10**6)}
    thread = threading.Thread(target=lambda: found.update(many=apart.wanted(10**6), few=apart.wanted(10)))
    thread.start()
    thread.join()
    assert found == {"main": False, "many": True, "few": False}


def test_suggestions_of_a_window_are_those_of_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    places = np.vstack([random.normal(centre, 0.3, (60, 2)) for centre in (0, 4)])
    table = pd.DataFrame(places, columns=["umap_1", "umap_2"])
    monkeypatch.setattr(apart, "FEWEST", 10)
    found = []
    thread = threading.Thread(target=lambda: found.extend(suggest_gates(table, ("umap_1", "umap_2"))))
    thread.start()
    thread.join()
    assert len(found) == 2
    assert found == suggest_gates(table, ("umap_1", "umap_2"))
