"""Exact k-NN: 1,000 queries against 80,000 x 768 on two threads, beside a plain product of torch with top-k.

Embeddings are drawn: 12 clouds of 768 numbers, and beside them near-tied queries, each as far from many rows up to what
float32 cannot tell. The two are timed in turns in one process; ``ratio`` is the median over the turns, of the
clock and of processor time, as other work on the machine lengthens the first. ``warm``: the reference was prepared
before, as an atlas keeps it; ``cold``: preparing it counts. Labels are compared with scikit-learn's
``KNeighborsClassifier(20)`` in float64 for every query.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
ROWS, NUMBERS, QUERIES, K = 80_000, 768, 1_000, 20
TURNS = 7
CLASSES = np.array([f"class {i:02d}" for i in range(12)])


def knn() -> dict[str, Any]:
    """Time and compare."""
    import torch

    from napari_dinobloom.predict.knn import KnnClassifier

    torch.set_num_threads(2)
    random = np.random.default_rng(0)
    centres = random.normal(size=(len(CLASSES), NUMBERS))
    kind = random.integers(0, len(CLASSES), ROWS + QUERIES)
    cells = (centres[kind] + 1.5 * random.normal(size=(len(kind), NUMBERS))).astype(np.float32)
    reference, queries, y = cells[:ROWS], cells[ROWS:], CLASSES[kind[:ROWS]]
    model = KnnClassifier(k=K).fit(reference, y)
    model.kneighbors(queries[:1])
    table, asked = torch.from_numpy(reference), torch.from_numpy(queries)
    tasks: dict[str, Callable[[], Any]] = {
        "plain product and top-k": lambda: (asked @ table.T).topk(K),
        "warm": lambda: model.kneighbors(queries),
        "cold": lambda: KnnClassifier(k=K).fit(reference, y).kneighbors(queries),
        "one cell": lambda: model.kneighbors(queries[:1]),
    }
    taken = {name: [] for name in tasks}
    for _ in range(TURNS):
        for name, task in tasks.items():
            taken[name].append(_timed(task))
    seconds = {name: np.array(values) for name, values in taken.items()}
    plain = seconds["plain product and top-k"]
    medians = {name: np.round(np.median(values, axis=0), 3).tolist() for name, values in seconds.items()}
    ratios = {name: np.round(np.median(seconds[name] / plain, axis=0), 3).tolist() for name in ("warm", "cold")}
    return {
        "rows": ROWS,
        "numbers": NUMBERS,
        "queries": QUERIES,
        "seconds, clock and processor, median": medians,
        "ratio to plain, clock and processor, median of turns": ratios,
        "scikit-learn": _compared(model, queries, reference, y),
        "near ties": _near_ties(random),
    }


def _timed(task: Callable[[], Any]) -> tuple[float, float]:
    clock, used = time.perf_counter(), time.process_time()
    task()
    return time.perf_counter() - clock, time.process_time() - used


def _compared(model: Any, queries: Float32, reference: Float32, y: NDArray[np.str_]) -> dict[str, Any]:
    """Labels against scikit-learn's, with votes whose two first classes are equal counted apart."""
    from sklearn.neighbors import KNeighborsClassifier

    theirs = KNeighborsClassifier(K, algorithm="brute").fit(reference.astype(np.float64), y)
    shares = theirs.predict_proba(queries.astype(np.float64))
    two = np.sort(shares, axis=1)[:, -2:]
    same = model.predict(queries) == theirs.classes_[shares.argmax(axis=1)]
    tied = two[:, 1] - two[:, 0] < 1e-9
    return {
        "queries": len(queries),
        "same label": int(same.sum()),
        "equal votes": int(tied.sum()),
        "largest difference of a share": float(np.abs(model.predict_proba(queries) - shares).max()),
    }


def _near_ties(random: np.random.Generator) -> dict[str, Any]:
    """How often the float32 expansion picks another nearest cell than float64, and whether ours does."""
    import torch

    from napari_dinobloom.explore.neighbours import exact_neighbours

    queries = random.normal(size=(500, NUMBERS)).astype(np.float32)
    steps = random.normal(size=(40, NUMBERS))
    steps /= np.linalg.norm(steps, axis=1, keepdims=True)
    lengths = 3 * (1 + 1e-7 * random.integers(0, 20, (len(queries), len(steps), 1)))
    table = (queries[:, None, :] + lengths * steps).astype(np.float32).reshape(-1, NUMBERS)
    wide = table.astype(np.float64)
    t = torch.from_numpy(table)
    expansion = (t.square().sum(1)[None] - 2 * torch.from_numpy(queries) @ t.T).argmin(1).numpy()
    truth = np.array([int(np.square(wide - one).sum(1).argmin()) for one in queries.astype(np.float64)])
    ours = exact_neighbours(queries, table, 1)[0][:, 0]
    return {
        "queries": len(queries),
        "float32 expansion picks another nearest": int((expansion != truth).sum()),
        "ours picks another nearest": int((ours != truth).sum()),
    }
