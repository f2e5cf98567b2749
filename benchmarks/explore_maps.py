"""Parts of `explore.py` that measure maps: fitting, placing, re-standardising, and a million cells.

Real embeddings come from `pbc`.
"""

from __future__ import annotations

import resource
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from pbc import pictures

from napari_dinobloom.explore.graph import Graph
from napari_dinobloom.explore.layout import lay_out, umap
from napari_dinobloom.explore.mixing import mixing
from napari_dinobloom.explore.neighbours import exact_neighbours
from napari_dinobloom.explore.restandardise import Restandardise
from napari_dinobloom.explore.slide_shifts import taken_share

Float32 = NDArray[np.float32]
DIM = 768
PAIRS = (("promyelocytic", "normal"), ("left_shift", "normal"), ("promyelocytic", "left_shift"))


def clustered(count: int, seed: int = 0) -> Float32:
    """Embeddings (count, 768) float32 in 15 clouds of unequal size, each on 20 directions of its own, with noise."""
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.ones(15) * 2)
    kind = np.sort(random.choice(15, count, p=shares))
    x = np.empty((count, DIM), np.float32)
    for one in range(15):
        rows = np.flatnonzero(kind == one)
        spread = random.normal(size=(20, DIM)).astype(np.float32)
        x[rows] = random.normal(size=DIM).astype(np.float32) * 4
        x[rows] += random.normal(size=(len(rows), 20)).astype(np.float32) @ spread
    for start in range(0, count, 1 << 14):
        x[start : start + (1 << 14)] += random.normal(size=x[start : start + (1 << 14)].shape).astype(np.float32)
    return x[random.permutation(count)]


def watched(task: Any) -> tuple[Any, dict[str, float]]:
    """Result of a task, and its seconds on the clock and of the process."""
    start, used = time.perf_counter(), time.process_time()
    result = task()
    took = {"clock": round(time.perf_counter() - start, 2), "processor": round(time.process_time() - used, 2)}
    return result, took


def fit(count: int) -> dict[str, Any]:
    """Embeddings to map, ours and seeded umap-learn, after one fit of each that compiles."""
    from umap import UMAP

    x, small = clustered(count), clustered(5000, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        UMAP(random_state=42, n_jobs=1).fit(small)
        umap(AnnData(small), search="nn-descent")
        _, theirs = watched(lambda: UMAP(random_state=42, n_jobs=1).fit(x))
        adata = AnnData(x)
        projection, ours = watched(lambda: umap(adata))
        _, relayout = watched(lambda: umap(adata, min_dist=0.4))
    about = dict(projection.about)
    return {
        "cells": count,
        "dimensions": DIM,
        "umap-learn, seeded": theirs,
        "ours": ours,
        "ratio": round(ours["processor"] / theirs["processor"], 3),
        "another min_dist, graph kept": relayout,
        "search": projection.params["search"],
        "recall": round(about["recall"], 4),
        "recall_cells": about["recall_cells"],
    }


def million(count: int) -> dict[str, Any]:
    """Many cells: a density-aware subset is fitted, the rest placed; time and largest memory of the process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        umap(AnnData(clustered(5000, seed=1)), search="nn-descent")
    adata = AnnData(clustered(count))
    subset = None if count > 200_000 else count // 4
    projection, took = watched(lambda: umap(adata, subset=subset))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    embeddings = round(count * DIM * 4 / 1024**3, 2)
    facts = {"cells": count, "fitted": len(projection), "search": projection.params["search"]}
    return {**facts, "seconds": took, "peak GiB": round(peak, 2), "embeddings GiB": embeddings}


def place() -> dict[str, Any]:
    """Held-out real cells: our placing, umap-learn's transform, a joint fit; and whether company matters."""
    from umap import UMAP

    rows, x = pictures("pbc.csv")
    y = rows["cell_type"].to_numpy(str)
    held = np.zeros(len(x), bool)
    held[np.random.default_rng(0).choice(len(x), len(x) // 5, replace=False)] = True
    fitted, new = np.ascontiguousarray(x[~held]), np.ascontiguousarray(x[held])
    projection = umap(AnnData(fitted))
    truth, _ = exact_neighbours(new, fitted, 30)
    placed, took = watched(lambda: projection.place(new))
    own = projection.place(fitted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = UMAP(random_state=42, n_jobs=1).fit(fitted)
        moved, transform = watched(lambda: model.transform(new))
        alone = model.transform(new[:20])
    near, far = exact_neighbours(x, x, 14, exclude_self=True)
    joint, _ = lay_out(x, Graph(near, far, "exact", 1.0, len(x)), 0.1, "euclidean", 42)

    def score(spots: Float32, reference: Float32) -> dict[str, float]:
        found, gaps = exact_neighbours(spots, reference, 30)
        names, codes = np.unique(y[~held], return_inverse=True)
        votes = np.array([np.bincount(row, minlength=len(names)).argmax() for row in codes[found[:, :15]]])
        kept = np.mean([len(set(a) & set(b)) / 30 for a, b in zip(found.tolist(), truth.tolist(), strict=True)])
        size = float(np.ptp(reference, axis=0).max())
        return {
            "15-NN accuracy on the map": round(float((names[votes] == y[held]).mean()), 4),
            "30 neighbours kept": round(float(kept), 4),
            "in a void (gap over 2 % of the map)": round(float((gaps[:, 0] > 0.02 * size).mean()), 4),
        }

    company = max(float(np.abs(projection.place(new[i : i + 1]) - placed[i]).max()) for i in range(20))
    votes = _votes(y[~held], truth[:, :15])
    return {
        "fitted": len(fitted),
        "placed": len(new),
        "15-NN accuracy of the embeddings": round(float((votes == y[held]).mean()), 4),
        "ours": {**score(placed, projection.coordinates), **took, "alone against together": company},
        "umap-learn transform": {
            **score(np.asarray(moved, np.float32), np.asarray(model.embedding_, np.float32)),
            **transform,
            "alone against together": round(float(np.abs(alone - moved[:20]).max()), 4),
        },
        "joint fit": score(joint[held], joint[~held]),
        "fitted cells placed anew, largest distance from their own spot": float(
            np.abs(own - projection.coordinates).max()
        ),
    }


def _votes(labels: NDArray[np.str_], near: NDArray[np.int64]) -> NDArray[np.str_]:
    names, codes = np.unique(labels, return_inverse=True)
    return names[np.array([np.bincount(row, minlength=len(names)).argmax() for row in codes[near]])]


def auc(x: Float32, rows: pd.DataFrame, pair: tuple[str, str]) -> float:
    """Area under the curve, mean over the five pools: mean embedding of a patient, logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    some = rows[rows["diagnosis"].isin(pair)].groupby("patient")
    means = np.stack([x[part.index].mean(0) for _, part in some])
    truth = np.array([part["diagnosis"].iloc[0] == pair[0] for _, part in some])
    pool = np.array([part["pool"].iloc[0] for _, part in some])
    found = []
    for one in np.unique(pool):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        model.fit(means[pool != one], truth[pool != one])
        found.append(roc_auc_score(truth[pool == one], model.decision_function(means[pool == one])))
    return round(float(np.mean(found)), 4)


def standards(figure: Path | None = None) -> dict[str, Any]:
    """What re-standardising by patient does to composition and mixing, with one stain and with two."""
    rows, plain = pictures("bags.csv")
    _, other = pictures("bags.csv", "-stained")
    patients = rows["patient"].to_numpy(str)
    odd = pd.factorize(patients)[0] % 2 == 1
    once = ~rows["file"].duplicated().to_numpy()  # a picture stands in several patients; its copies would be neighbours
    found: dict[str, Any] = {}
    for title, x in (
        ("one stain", plain),
        ("another stain in every other patient", np.where(odd[:, None], other, plain)),
    ):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            (model, took) = watched(lambda x=x: Restandardise.fit(x, patients.tolist()))
        after = model.transform(x, patients.tolist())
        stain = np.where(odd, "other", "one")
        found[title] = {
            "AUC": {" against ".join(pair): _three(x, after, rows, pair, patients) for pair in PAIRS},
            "share of composition taken": round(model.taken, 4),
            "share taken by standardising every patient": round(_naive_taken(model, x, patients), 4),
            "warnings": [str(one.message) for one in said],
            "mixing of stains, 0 to 1": _both(x, after, stain, once),
            "mixing of patients, 0 to 1": _both(x, after, patients, once),
            "fit": took,
        }
        if figure is not None and title != "one stain":
            draw(x[once], after[once], stain[once], figure)
    return found


def _three(x: Float32, after: Float32, rows: pd.DataFrame, pair: tuple[str, str], patients: Any) -> dict[str, float]:
    return {
        "before": auc(x, rows, pair),
        "after": auc(after, rows, pair),
        "naive": auc(_naive(x, patients), rows, pair),
    }


def _naive(x: Float32, groups: NDArray[np.str_]) -> Float32:
    """Every patient's mean and spread made equal: what must not be done."""
    out = x.copy()
    for one in np.unique(groups):
        rows = groups == one
        out[rows] = (x[rows] - x[rows].mean(0)) / x[rows].std(0) * x.std(0) + x.mean(0)
    return out


def _naive_taken(model: Restandardise, x: Float32, groups: NDArray[np.str_]) -> float:
    """The same number for the naive shifts, by the populations that the model found."""
    rows = [groups == name for name in model.groups]
    kinds = exact_neighbours(model.transform(x, groups.tolist()), model.clusters, 1)[0][:, 0]
    composition = np.stack([model.clusters[kinds[one]].mean(0, dtype=np.float64) for one in rows])
    shift = np.stack([x[one].mean(0, dtype=np.float64) for one in rows]) - x.mean(0, dtype=np.float64)
    return taken_share(shift, composition, model.cells.astype(np.float64))


def _both(x: Float32, after: Float32, groups: NDArray[np.str_], once: NDArray[np.bool_]) -> dict[str, float]:
    return {"before": _mixed(x[once], groups[once]), "after": _mixed(after[once], groups[once])}


def _mixed(x: Float32, groups: NDArray[np.str_]) -> float:
    return round(mixing(x, groups.tolist()).share, 3)


def draw(x: Float32, after: Float32, stain: NDArray[np.str_], path: Path) -> None:
    """Maps before and after, coloured by stain."""
    from napari_dinobloom.report.map_figure import Cells, draw_mixing

    panels = []
    for title, table in (("as embedded", x), ("re-standardised by patient", after)):
        spots = umap(AnnData(table)).coordinates
        panels.append(Cells(f"{title}: stains mix {_mixed(table, stain):.2f} (1: by chance)", spots, stain))
    draw_mixing(panels, {"one": "#0072b2", "other": "#d55e00"}, path)
