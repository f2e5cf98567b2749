"""Generated cohorts on which settings of attention MIL are chosen, and bags that a few key cells decide.

Cells are embeddings of the pictures of ``pbc.csv`` that do *not* stand in ``bags.csv``, each with noise of 0.3 of the
spread of its numbers, or Gaussian clusters without any picture. New patients to judge by are drawn from the same rule.

    OMP_NUM_THREADS=1 python benchmarks/predict_mil_cohorts.py [--set "{'hidden': 64}"] [--only key,few] [--seeds 2]

prints one line a cohort for a setting: weighted F1, AUC and log-loss on new patients of attention alone, of mean
pooling and of both as mixed.
"""

from __future__ import annotations

import argparse
import ast
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pbc import pictures

from napari_dinobloom.predict.mil.model import AttentionMIL

Float32 = NDArray[np.float32]
NOISE = 0.3


@dataclass(frozen=True, slots=True)
class Cohort:
    """Patients to learn from and new ones to judge by; `keys` marks key cells of the new ones, where there are any."""

    bags: list[Float32]
    y: NDArray[np.str_]
    new: list[Float32]
    truth: NDArray[np.str_]
    keys: list[NDArray[np.bool_]]


class Cells:
    """Pictures of ``pbc.csv`` outside ``bags.csv``, by class."""

    def __init__(self) -> None:
        rows, vectors = pictures("pbc.csv")
        used = set(pictures("bags.csv")[0]["file"])
        free = ~rows["file"].isin(used).to_numpy()
        self.X, kinds = vectors[free], rows["cell_type"].to_numpy()[free]
        self.spread = self.X.std(axis=0)
        self.names = sorted(set(kinds))
        self.at = [np.flatnonzero(kinds == name) for name in self.names]

    def draw(self, random: np.random.Generator, shares: NDArray[np.float64], n: int) -> Float32:
        """Draw n cells of a composition."""
        kinds = random.choice(len(self.names), n, p=shares)
        rows = np.array([random.choice(self.at[kind]) for kind in kinds])
        noise = random.normal(size=(n, self.X.shape[1])).astype(np.float32) * self.spread * NOISE
        found: Float32 = self.X[rows] + noise
        return found


def compositions(
    cells: Cells,
    seed: int,
    patients: int,
    classes: int,
    sizes: tuple[int, int],
    prior: tuple[float, ...] | None = None,
    new: int = 120,
) -> Cohort:
    """Diagnoses that differ in composition; compositions of patients vary around the diagnosis' own (Dirichlet)."""
    random = np.random.default_rng(seed)
    base = random.dirichlet(np.full(len(cells.names), 2.0))
    profiles = [0.4 * base + 0.6 * random.dirichlet(np.full(len(cells.names), 2.0)) for _ in range(classes)]

    def patients_of(count: int) -> tuple[list[Float32], NDArray[np.str_]]:
        kinds = np.arange(count) % classes
        if prior is not None:
            kinds = random.choice(classes, count, p=prior)
            kinds[: 3 * classes] = np.arange(3 * classes) % classes
        bags = []
        for kind in kinds:
            n = int(np.exp(random.uniform(*np.log(sizes))))
            bags.append(cells.draw(random, random.dirichlet(profiles[kind] * 30 + 1e-3), n))
        return bags, np.array([f"d{kind}" for kind in kinds])

    bags, y = patients_of(patients)
    fresh, truth = patients_of(new)
    return Cohort(bags, y, fresh, truth, [])


def key_cells(
    seed: int, patients: int, cells: Cells | None = None, kind: str = "promyelocyte", new: int = 100
) -> Cohort:
    """Half of the patients have 1 to 2 % key cells; all else is drawn alike. Without `cells`: 9 Gaussian clusters."""
    random = np.random.default_rng(seed)
    if cells is None:
        centres = random.normal(size=(9, 192))
        usual = list(range(8))
    else:
        usual = [number for number, name in enumerate(cells.names) if name != kind]
    rare = 8 if cells is None else cells.names.index(kind)

    def some(shares: NDArray[np.float64], n: int) -> Float32:
        if cells is not None:
            return cells.draw(random, shares, n)
        found: Float32 = (centres[random.choice(9, n, p=shares)] + random.normal(size=(n, 192))).astype(np.float32)
        return found

    def patients_of(count: int) -> tuple[list[Float32], NDArray[np.str_], list[NDArray[np.bool_]]]:
        bags, keys = [], []
        for number in range(count):
            n = int(np.exp(random.uniform(*np.log((80, 400)))))
            shares = np.zeros(len(usual) + 1)
            shares[usual] = random.dirichlet(np.ones(len(usual)))
            bag, key = some(shares, n), np.zeros(n, bool)
            if number % 2:
                key[random.choice(n, max(1, round(n * random.uniform(0.01, 0.02))), replace=False)] = True
                bag[key] = some(np.eye(len(usual) + 1)[rare], int(key.sum()))
            bags.append(bag)
            keys.append(key)
        return bags, np.array(["without", "with"])[np.arange(count) % 2], keys

    bags, y, _ = patients_of(patients)
    fresh, truth, keys = patients_of(new)
    return Cohort(bags, y, fresh, truth, keys)


COHORTS: dict[str, Callable[[Cells, int], Cohort]] = {
    "key": lambda cells, seed: key_cells(seed, 140, cells),
    "gauss": lambda _, seed: key_cells(seed, 140),
    "usual": lambda cells, seed: compositions(cells, seed, 100, 4, (40, 160)),
    "few": lambda cells, seed: compositions(cells, seed, 24, 3, (10, 1500), new=90),
    "uneven": lambda cells, seed: compositions(cells, seed, 100, 3, (10, 1500), (0.75, 0.17, 0.08)),
}


def scores(shares: Float32, truth: NDArray[np.str_], classes: NDArray[np.str_]) -> str:
    """Weighted F1, AUC (one against the rest) and log-loss."""
    from sklearn.metrics import f1_score, log_loss, roc_auc_score

    f1 = f1_score(truth, classes[shares.argmax(axis=1)], average="weighted")
    one = shares[:, 1] if len(classes) == 2 else shares / shares.sum(axis=1, keepdims=True)
    auc = roc_auc_score(truth == classes[1] if len(classes) == 2 else truth, one, multi_class="ovr")
    loss = log_loss(truth, np.clip(shares.astype(float), 1e-4, 1), labels=classes)
    return f"{f1:.3f} {auc:.3f} {loss:.3f}"


def hits(model: AttentionMIL, cohort: Cohort) -> float:
    """Share of the key cells that lie in the top 5 % of attention of the patients who have them."""
    column, found = int(np.flatnonzero(model.classes_ == "with")[0]), []
    for attention, key in zip(model.attention(cohort.new), cohort.keys, strict=True):
        found += list(attention.rank[key, column] <= np.ceil(0.05 * len(key)))
    return float(np.mean(found))


def main() -> None:
    """Print how a setting does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", default="{}")
    parser.add_argument("--only", default=",".join(COHORTS))
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    cells = Cells()
    for name in options.only.split(","):
        for seed in range(options.seeds):
            cohort = COHORTS[name](cells, seed)
            begun = time.process_time()
            model = AttentionMIL(seed=seed, device="cpu", **ast.literal_eval(options.set)).fit(cohort.bags, cohort.y)
            spent = time.process_time() - begun
            proba = model.proba(cohort.new)
            found = {
                "attention": proba["attention alone"],
                "mean": proba["mean pooling"],
                "both": proba["gated"],
            }
            text = " | ".join(f"{key} {scores(value, cohort.truth, model.classes_)}" for key, value in found.items())
            more = f" hits {hits(model, cohort):.2f}" if cohort.keys else ""
            print(f"{name} {seed} {text} | share {model.share_} epochs {model.epochs_} {spent:.1f} s{more}", flush=True)


if __name__ == "__main__":
    main()
