"""Small cohorts: patients whose cells come from clusters, told apart by composition or by a few key cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from napari_dinobloom.io.celltable import complete
from napari_dinobloom.io.study import Study

CENTRES = np.random.default_rng(42).normal(size=(6, 8)) * 2
GROUPS = {f"p{row:02d}": ["=well", "ill"][row % 2] for row in range(20)}


def cells(random: np.random.Generator, kinds: np.ndarray) -> np.ndarray:
    return (CENTRES[kinds] + random.normal(size=(len(kinds), 8))).astype("f4")


def by_composition(patients: int = 24, seed: int = 0, classes: int = 2) -> tuple[list[np.ndarray], np.ndarray]:
    """Half of the cells of a patient are of their group's own kind."""
    random, bags = np.random.default_rng(seed), []
    for number in range(patients):
        n = int(random.integers(5, 40))
        kinds = random.integers(3, 6, n)
        kinds[: n // 2 + 1] = number % classes
        bags.append(cells(random, kinds))
    return bags, np.array([f"g{number % classes}" for number in range(patients)])


def by_key_cells(patients: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]:
    """Two of 100 cells of every second patient are key cells; compositions of the others vary freely."""
    random, bags, keys = np.random.default_rng(seed), [], []
    for number in range(patients):
        kinds = random.choice(5, 100, p=random.dirichlet(np.ones(5)))
        key = np.zeros(100, bool)
        if number % 2:
            key[random.choice(100, 2, replace=False)] = True
        kinds[key] = 5
        bags.append(cells(random, kinds))
        keys.append(key)
    return bags, np.array(["without", "with"])[np.arange(patients) % 2], keys


def make_study(path: Path, *, first: int = 0, count: int = 22, encoder: str = "ab" * 32) -> Study:
    """A study of patients with 12 cells each, half of them of their group's own kind; without images."""
    random = np.random.default_rng(first)
    number = np.repeat(np.arange(first, first + count), 12)
    kinds = np.where(np.arange(len(number)) % 2, number % 2, random.integers(3, 6, len(number)))
    obs = {"cell_id": [f"f:{row + 1:05d}" for row in range(len(number))], "field": "f"}
    obs["patient"] = [f"p{one:02d}" for one in number]
    adata = AnnData(
        (CENTRES[kinds] + random.normal(size=(len(number), 8))).astype("f4"), obs=complete(pd.DataFrame(obs))
    )
    adata.uns["dinobloom"] = {"encoder": "toy", "encoder_sha256": encoder, "pooling": "class"}
    study = Study.create(path)
    study.save_cells(adata)
    return study
