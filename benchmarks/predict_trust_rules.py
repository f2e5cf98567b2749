"""What the rules of trust were set on: held-out cells of PBC ``train`` only, never a picture that is reported on.

    python benchmarks/predict_trust_rules.py [--only novelty | shifts] [--seed 1]

``novelty``: one of eight classes (not those of `predict_trust`) is left out of the reference at a time; AUROC and
share found at 1 % false alarms, by the distance to the nearest and to the k-th reference cell. ``shifts``: 160 cells of
a mix of classes that is drawn anew for each, under made-up changes of colour, stain, focus and scale; accuracy and
macro-F1 under each option of `predict.adaptation`, what each shortens the distance by, and what the rule picks. The
rule was set on the draws of seed 0; others tell whether it holds. Writes
``benchmarks/results/predict_trust_rules.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from machine import RESULTS, command, machine
from numpy.typing import NDArray
from pbc import DATA, pictures
from PIL import Image
from predict_trust import Reference, crops_of, macro_f1
from scipy import ndimage as ndi
from sklearn.metrics import roc_auc_score

from napari_dinobloom.cells.stain_transfer import METHODS, Method, estimate, transfer
from napari_dinobloom.encoders.encoder import load_encoder
from napari_dinobloom.predict.adaptation import OPTIONS, evidence, moved, pick
from napari_dinobloom.predict.pictures import LabelledPicture

FILE = RESULTS / "predict_trust_rules.json"
OTHERS = (
    "basophil", "monocyte", "lymphocyte", "metamyelocyte", "myelocyte", "neutrophil_band", "neutrophil_segmented",
    "platelet",
)  # fmt: skip
CELLS = 160

Crops = NDArray[np.uint8]


def novelty() -> dict[str, Any]:
    """How well two distances tell a class that the reference lacks."""
    pbc = Reference()
    asked, half = np.flatnonzero(pbc.held), np.random.default_rng(0).random(int(pbc.held.sum())) < 0.5
    found = {}
    for name in OTHERS:
        near = pbc.atlas(~pbc.held & (pbc.y != name)).classifier().kneighbors(pbc.X[asked])[1]
        new = pbc.y[asked] == name
        found[name] = {}
        for title, far in (("nearest", near[:, 0]), ("kth", near[:, -1])):
            limit = np.quantile(far[~new & half], 0.99)
            found[name][title] = {
                "auroc": round(float(roc_auc_score(new, far)), 3),
                "found": round(float((far[new] > limit).mean()), 3),
                "false_alarms": round(float((far[~new & ~half] > limit).mean()), 3),
            }
    return found


def dyed(crops: Crops, stain: Any = 1.0, mix: Any = None, gamma: float = 1.0, white: Any = 1.0) -> Crops:
    """Other absorbances (Beer and Lambert), then another camera."""
    density = -np.log((crops.astype(np.float32) + 1) / 256) * np.asarray(stain, np.float32)
    density = density if mix is None else np.maximum(density @ np.asarray(mix, np.float32), 0)
    light = np.clip((np.exp(-density) * 256 - 1) / 255, 0, 1) ** gamma * np.asarray(white, np.float32)
    return np.clip(np.rint(light * 255), 0, 255).astype(np.uint8)


def blurred(crops: Crops, sigma: float) -> Crops:
    """Out of focus."""
    return np.asarray(ndi.gaussian_filter(crops, (0, sigma, sigma, 0)))


def scaled(crops: Crops, factor: float) -> Crops:
    """Another magnification: cropped in the middle, or reflected at the border."""
    size, out = crops.shape[1], []
    for crop in crops:
        side = round(size * factor)
        new = np.asarray(Image.fromarray(crop).resize((side, side), Image.Resampling.BILINEAR))
        low, start = max(size - side, 0) // 2, max(side - size, 0) // 2
        high = max(size - side, 0) - low
        new = np.pad(new, ((low, high), (low, high), (0, 0)), mode="reflect")
        out.append(new[start : start + size, start : start + size])
    return np.stack(out)


SHIFTS: dict[str, Callable[[Crops], Crops]] = {
    "none": lambda c: c,
    "gamma 0.75": lambda c: dyed(c, gamma=0.75),
    "gamma 1.35": lambda c: dyed(c, gamma=1.35),
    "white balance": lambda c: dyed(c, white=(0.82, 0.95, 1.1)),
    "stain A": lambda c: dyed(c, (1.25, 1.1, 0.85)),
    "stain B": lambda c: dyed(c, (0.7, 0.85, 1.2)),
    "mixed dyes": lambda c: dyed(c, mix=((0.85, 0.15, 0), (0.1, 0.8, 0.1), (0, 0.2, 0.8))),
    "blur": lambda c: blurred(c, 2.5),
    "scale 0.75": lambda c: scaled(c, 0.75),
    "scale 1.35": lambda c: scaled(c, 1.35),
    "laboratory A": lambda c: scaled(dyed(c, (0.75, 0.9, 1.15), white=(0.9, 1, 1)), 0.8),
    "laboratory B": lambda c: blurred(scaled(dyed(c, (1.3, 1, 0.8), gamma=0.85), 1.25), 1.5),
}


def shifts(seed: int) -> dict[str, Any]:
    """What each option does under each shift, and what the rule picks."""
    pbc = Reference()
    rows = pictures("pbc.csv")[0].query("split == 'train'")
    files = [DATA / file for file in rows["file"]]
    names, code = np.unique(pbc.y, return_inverse=True)
    asked = np.flatnonzero(pbc.held)
    found: dict[str, Any] = {}
    with load_encoder("starter") as encoder:
        for number, (shift, change) in enumerate(SHIFTS.items()):
            random = np.random.default_rng(number + 100 * seed)
            weight = random.dirichlet(np.full(len(names), 0.8))[code[asked]] / np.bincount(code[asked])[code[asked]]
            chosen = random.choice(asked, CELLS, replace=False, p=weight / weight.sum())
            crops = change(crops_of([LabelledPicture(files[row], "") for row in chosen]))
            stain = estimate(crops)
            X = {"none": encoder.embed(crops)}
            X |= {method: encoder.embed(transfer(crops, cast("Method", method), stain)) for method in METHODS}
            keep = np.ones(len(pbc.y), bool)
            keep[chosen] = False
            atlas = pbc.atlas(keep)
            X["restandardise"] = moved(X["none"], ["slide"] * CELLS, atlas)
            choice = pick({name: evidence(X[name], atlas) for name in OPTIONS})
            given = {o: np.searchsorted(names, atlas.classify(X[o])["predicted"].to_numpy(str)) for o in OPTIONS}
            found[shift] = {"picked": choice.option, **{
                option: {
                    "accuracy": round(float((said == code[chosen]).mean()), 3),
                    "macro_f1": round(macro_f1(code[chosen], said, len(names)), 3),
                    "shorter": [round(value, 3) for value in choice.shorter.get(option, (0.0, 0.0))],
                }
                for option, said in given.items()
            }}  # fmt: skip
            print(shift, found[shift], flush=True)
    gains = [one[one["picked"]]["accuracy"] - one["none"]["accuracy"] for one in found.values()]
    return {**found, "gain_of_pick_mean": round(float(np.mean(gains)), 3), "gain_of_pick_least": round(min(gains), 3)}


def main() -> None:
    """Measure and write; sections that are not asked for keep their figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("novelty", "shifts"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    results = json.loads(FILE.read_text())["results"] if FILE.is_file() else {}
    if options.only != "shifts":
        results["novelty"] = novelty()
        print(json.dumps(results["novelty"], indent=1), flush=True)
    if options.only != "novelty":
        results[f"shifts, seed {options.seed}"] = shifts(options.seed)
    document = {"command": command(), "machine": machine(), "results": results}
    FILE.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
