"""Classes of PBC test pictures run as if they were smears, against the same pictures given as single cells; BCCD types.

Run it with ``python benchmarks/pbc_as_smears.py [--data ../shared/data]``; writes
``benchmarks/results/pbc_as_smears.json``. Target: the weighted F1 of both ways within 3 points.

As smears, the pictures are fields of one slide: the cell nearest to a picture's middle is scored, and a picture where
none is found there is counted. Classes are those with most votes, abstained cells included, unless said otherwise.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path

import pandas as pd
from machine import RESULTS, machine
from sklearn.metrics import f1_score

from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import run
from napari_dinobloom.predict.pictures import central_cell

FIVE = {
    "neutrophil_segmented": "neutrophil",
    "neutrophil_band": "neutrophil",
    "metamyelocyte": "neutrophil",
    "eosinophil": "eosinophil",
    "basophil": "basophil",
    "lymphocyte": "lymphocyte",
    "monocyte": "monocyte",
}
"""BCCD names five types; band forms and metamyelocytes count as neutrophils there, other names as wrong."""


def centre_cells(study: Study) -> pd.DataFrame:
    """For every field the cell nearest to its middle, indexed by file."""
    obs = study.cells.obs
    rows = {}
    for record in study.fields:
        cells = obs[(obs["field"] == record.id) & ~obs["deleted"]]
        place = central_cell(cells, record.height, record.width)
        if place is not None:
            rows[Path(record.file).name] = cells.iloc[place]
    return pd.DataFrame(rows).T


def weighted_f1(truth: pd.Series, named: pd.Series) -> float:
    """Weighted F1 in percent."""
    return round(100 * float(f1_score(truth, named, average="weighted", zero_division=0)), 2)


def pbc(data: Path, folder: Path) -> dict[str, object]:
    """Both ways over the PBC test pictures."""
    with (data / "pbc.csv").open(newline="", encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if row["split"] == "test"]
    truth = pd.Series({Path(row["file"]).name: row["cell_type"] for row in rows})
    files = [data / row["file"] for row in rows]
    by_cell = centre_cells(run(files, folder / "cells.dinobloom", cells=True, until="classify"))
    by_smear = centre_cells(run(files, folder / "smears.dinobloom", slide_from="folder:2", until="classify"))
    truth = truth.loc[by_cell.index]
    found = truth.index.intersection(by_smear.index)
    white = truth[truth != "platelet"]
    named = by_smear["predicted"].reindex(white.index).fillna("not found")
    return {
        "pictures": len(truth),
        "found_as_smear": len(found),
        "white_cells": len(white),
        "white_cells_found": int(white.index.isin(found).sum()),
        "f1_as_cells_on_found": weighted_f1(truth[found], by_cell.loc[found, "predicted"]),
        "f1_as_smears_on_found": weighted_f1(truth[found], by_smear.loc[found, "predicted"]),
        "f1_as_cells_white": weighted_f1(white, by_cell.loc[white.index, "predicted"]),
        "f1_as_smears_white_lost_are_wrong": weighted_f1(white, named),
        "f1_as_cells_all": weighted_f1(truth, by_cell["predicted"]),
        "abstained_as_cells": round(float(by_cell["abstained"].astype(bool).mean()), 4),
        "abstained_as_smears": round(float(by_smear["abstained"].astype(bool).mean()), 4),
    }


def bccd(data: Path, folder: Path) -> dict[str, object]:
    """Largest cell of every BCCD field with one stated type against that type; odd and even fields apart."""
    with (data / "bccd" / "types.csv").open(newline="", encoding="utf-8") as handle:
        stated = {Path(r["file"]).name: r["cell_types"] for r in csv.DictReader(handle)}
    study = run(data / "bccd" / "images", folder / "bccd.dinobloom", until="classify")
    obs = study.cells.obs.assign(file=[study.field(f).file for f in study.cells.obs["field"]])
    largest = obs.sort_values("area_px", ascending=False).drop_duplicates("file").set_index("file")
    result: dict[str, object] = {}
    for parity, name in ((1, "odd"), (0, "even")):
        files = [f for f, t in stated.items() if t in FIVE.values() and int(Path(f).stem[-5:]) % 2 == parity]
        truth = pd.Series({f: stated[f] for f in files})
        seen = largest.reindex(files)
        named = seen["predicted"].map(FIVE).fillna("other")
        sure = ~seen["abstained"].astype("boolean").fillna(True).to_numpy(bool)
        result[name] = {
            "fields": len(files),
            "accuracy": round(float((truth == named).mean()), 4),
            "f1_weighted": weighted_f1(truth, named),
            "abstained": round(float(1 - sure.mean()), 4),
            "accuracy_of_the_named": round(float((truth == named)[sure].mean()), 4) if sure.any() else None,
            "confusion": pd.crosstab(truth, named).to_dict("index"),
        }
    return result


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "pbc": pbc(options.data, Path(folder)),
            "bccd": bccd(options.data, Path(folder)),
            "machine": machine(),
        }
    print(json.dumps(result, indent=1))
    (RESULTS / "pbc_as_smears.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
