"""How well groups of patients are predicted by attention MIL; called by ``predict.py --only mil``.

``bags``: the made-up patients of ``bags.csv``, starter encoder, the five pools as folds, five seeds; attention, mean
pooling and the paired difference, with the control of shuffled groups. ``key cells``: new patients of generated cohorts
in which 1 to 2 % key cells decide (`predict_mil_cohorts.key_cells`: Gaussian clusters, and real cells), with the share
of key cells in the top 5 % of attention. ``training``: seconds for 140 patients of ``bags.csv``.

Settings were chosen on the generated cohorts, whose cells do not stand in ``bags.csv``; no fold of it was looked at
before.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import predict_mil_cohorts as cohorts
from pbc import pictures
from sklearn.metrics import roc_auc_score

from napari_dinobloom.predict.mil.model import AttentionMIL
from napari_dinobloom.predict.mil.validation import iter_validate
from napari_dinobloom.progress import drain

SEEDS = 5


def mil(repeats: int = SEEDS, permutations: int = SEEDS) -> dict[str, Any]:
    """All parts."""
    return {"training": training(), "key cells": keys(), "bags": bags(repeats, permutations)}


def patients() -> tuple[list[cohorts.Float32], list[str], list[str], list[str]]:
    """Bags, diagnoses, pools and names of the patients of ``bags.csv``."""
    rows, vectors = pictures("bags.csv")
    first = rows.drop_duplicates("patient")
    names = first["patient"].tolist()
    found = [vectors[(rows["patient"] == name).to_numpy()] for name in names]
    return found, first["diagnosis"].tolist(), first["pool"].tolist(), names


def bags(repeats: int, permutations: int) -> dict[str, Any]:
    """Cross-validation over the pools."""
    X, y, pool, names = patients()
    begun = time.perf_counter()
    found = drain(iter_validate(X, y, names=names, given=pool, repeats=repeats, permutations=permutations))
    scores = found.scores.set_index("model").round(4).to_dict("index")
    checked = {name: round(float(found.deletion[name].mean()), 4) for name in ("top", "random")}
    seconds = round(time.perf_counter() - begun, 1)
    return {"repeats": repeats, "permutations": permutations, "scores": scores, "without 5 cells": checked,
            "recommended": found.recommended, "notes": list(found.notes), "seconds": seconds}  # fmt: skip


def keys() -> dict[str, Any]:
    """AUC on new patients, and key cells in the top 5 % of attention."""
    kinds = {"Gaussian": cohorts.COHORTS["gauss"], "real cells": cohorts.COHORTS["key"]}
    done, cells = {}, cohorts.Cells()
    for name, make in kinds.items():
        rows = []
        for seed in (10, 11, 12):  # not those on which settings were chosen
            cohort = make(cells, seed)
            model = AttentionMIL(seed=seed).fit(cohort.bags, cohort.y)
            column = int(np.flatnonzero(model.classes_ == "with")[0])
            auc = {key: float(roc_auc_score(cohort.truth == "with", shares[:, column]))
                   for key, shares in model.proba(cohort.new).items()}  # fmt: skip
            rows.append({**auc, "key cells in the top 5 %": cohorts.hits(model, cohort)})
        done[name] = {key: [round(row[key], 4) for row in rows] for key in rows[0]}
    return done


def training() -> dict[str, Any]:
    """Seconds of one training on the patients of four pools."""
    X, y, pool, _ = patients()
    rows = [row for row, one in enumerate(pool) if one != "4"]
    begun, used = time.perf_counter(), time.process_time()
    model = AttentionMIL().fit([X[row] for row in rows], [y[row] for row in rows])
    clock, processor = time.perf_counter() - begun, time.process_time() - used
    return {"patients": len(rows), "clock": round(clock, 1), "processor": round(processor, 1), "share": model.share_}
