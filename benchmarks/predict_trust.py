"""How far predictions can be trusted: calibration, novelty, and cells of other laboratories.

    python benchmarks/predict_trust.py [--only calibration | novelty | laboratories] [--figure reliability.png]

``calibration``: the reference is PBC ``train`` (starter encoder, whole pictures); temperatures are fitted on its
held-out cells, expected calibration errors are those of PBC ``test``. The probe is fitted on the cells that the
encoder saw. ``novelty``: one class at a time is left out of the reference; AUROC of the distance on ``test``, cells of
that class against all others. The encoder itself has learned from pictures of these classes, so the figures are better
than they would be for a kind of cell that it never saw. ``laboratories``: the reference is PBC ``train`` of four
classes, asked are SSLSeg d2 and BCCD (`laboratories`), each as one slide, with every option of `predict.adaptation` and
what its rule picks. Intervals are 95 %, of 2,000 bootstrap samples of the cells. Writes
``benchmarks/results/predict_trust.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from laboratories import FOUR, bccd, sslseg
from machine import RESULTS, command, machine
from numpy.typing import NDArray
from pbc import CACHE, DATA, pictures
from sklearn.metrics import roc_auc_score

from napari_dinobloom.cells import stain_transfer
from napari_dinobloom.cells.crop import CropPolicy, resize_picture
from napari_dinobloom.cells.stain_transfer import METHODS, Method, estimate, transfer
from napari_dinobloom.encoders.encoder import load_encoder
from napari_dinobloom.encoders.splits import held_out
from napari_dinobloom.io.smear import read_smear
from napari_dinobloom.pipeline.settings import digest
from napari_dinobloom.predict.adaptation import OPTIONS, evidence, moved, pick
from napari_dinobloom.predict.atlas import Atlas
from napari_dinobloom.predict.calibration import Temperature, expected_calibration_error, reliability
from napari_dinobloom.predict.linear import LinearProbe
from napari_dinobloom.predict.pictures import LabelledPicture
from napari_dinobloom.report.reliability import draw_reliability

FILE = RESULTS / "predict_trust.json"
SAMPLES = 2000
NEW = ("promyelocyte", "erythroblast", "eosinophil")

Float32 = NDArray[np.float32]


class Reference:
    """PBC: cells of ``train`` with what the encoder saw of them, and cells of ``test``."""

    def __init__(self) -> None:
        rows, X = pictures("pbc.csv")
        train = (rows["split"] == "train").to_numpy()
        y = rows["cell_type"].to_numpy(str)
        self.X, self.y, self.X_test, self.y_test = X[train], y[train], X[~train], y[~train]
        self.held = np.array([held_out(file) for file in rows["file"][train]])

    def atlas(self, keep: NDArray[np.bool_], names: NDArray[np.str_] | None = None) -> Atlas:
        """An atlas of some of the cells, under other names where they are given."""
        y = self.y if names is None else names
        source = [f"{row:016x}" for row in np.flatnonzero(keep)]
        about: dict[str, Any] = {"encoder": "starter", "encoder_sha256": "0" * 64, "policy": {}, "policy_hash": "p"}
        return Atlas.from_embeddings(self.X[keep], y[keep].tolist(), source, self.held[keep], name="benchmark", **about)

    def probe(self, keep: NDArray[np.bool_], names: NDArray[np.str_] | None = None) -> tuple[LinearProbe, Temperature]:
        """A probe of the cells that the encoder saw, and the temperature of the others."""
        y = self.y if names is None else names
        seen, asked = keep & ~self.held, keep & self.held
        model = LinearProbe().fit(self.X[seen], y[seen])
        code = np.searchsorted(model.classes_, y[asked])
        return model, Temperature.fit(model.predict_proba(self.X[asked]), code, floor=0)


def interval(score: Callable[[NDArray[np.intp]], float], n: int) -> dict[str, float]:
    """A score of all cells, and its 95 % bootstrap interval."""
    random = np.random.default_rng(0)
    drawn = [score(random.integers(0, n, n)) for _ in range(SAMPLES)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return {"value": round(score(np.arange(n)), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def errors(p: Float32, scaled: Float32, code: NDArray[np.int64]) -> dict[str, Any]:
    """Expected calibration errors before and after scaling; without intervals: resampling makes the error larger."""
    return {
        name: round(expected_calibration_error(q, code), 4) for name, q in (("ece_before", p), ("ece_after", scaled))
    }


def calibration(figure: Path | None = None) -> dict[str, Any]:
    """Expected calibration errors on PBC ``test``."""
    pbc = Reference()
    everything = np.ones(len(pbc.y), bool)
    atlas = pbc.atlas(everything)
    shares = atlas.classifier().predict_proba(pbc.X_test)
    code = np.searchsorted(np.array(atlas.classes), pbc.y_test)
    probe, temperature = pbc.probe(everything)
    p = probe.predict_proba(pbc.X_test)
    both = {
        "20-NN": (float(atlas.info["temperature"]), shares, atlas.predict_proba(pbc.X_test)),
        "linear probe": (temperature.value, p, temperature.apply(p)),
    }
    if figure is not None:
        tables = {f"{name}, {when}": reliability(q, code) for name, (_, *qs) in both.items()
                  for when, q in zip(("raw", "scaled"), qs, strict=True)}  # fmt: skip
        draw_reliability(tables, figure, note="PBC test (Acevedo et al. 2020), starter encoder")
    return {
        "cells": len(code),
        **{name: {"temperature": t, **errors(raw, scaled, code)} for name, (t, raw, scaled) in both.items()},
    }


def novelty() -> dict[str, Any]:
    """AUROC of the distance where a class is left out of the reference, on PBC ``test``."""
    pbc = Reference()
    found = {}
    for name in NEW:
        atlas = pbc.atlas(pbc.y != name)
        named = atlas.classify(pbc.X_test)
        nearest = atlas.classifier().kneighbors(pbc.X_test)[1][:, 0]
        new = pbc.y_test == name
        silent = (named["abstained"] | named["unlike"]).to_numpy(bool)
        far = named["distance"].to_numpy()
        found[name] = {
            "cells": int(new.sum()),
            "auroc": interval(lambda rows, new=new, far=far: float(roc_auc_score(new[rows], far[rows])), len(new)),
            "auroc_nearest": round(float(roc_auc_score(new, nearest)), 4),
            "abstained": round(float(silent[new].mean()), 4),
            "unlike": round(float(named["unlike"][new].mean()), 4),
            "abstained_others": round(float(silent[~new].mean()), 4),
            "unlike_others": round(float(named["unlike"][~new].mean()), 4),
        }
    return found


def crops_of(some: list[LabelledPicture]) -> NDArray[np.uint8]:
    """Whole pictures as crops."""
    policy = CropPolicy(kind="published")
    return np.stack([resize_picture(read_smear(picture.path).load(), policy) for picture in some])


def embedded(name: str, some: list[LabelledPicture]) -> dict[str, Float32]:
    """Embeddings of a laboratory's cells, as they are and after each normalisation; kept as `pbc` keeps its own.

    What was kept is used for the same files, encoder, and stain normalisation with its reference alone.
    """
    files = [f"{picture.path.name} {picture.path.stat().st_size}" for picture in some]
    with load_encoder("starter") as encoder:
        made_of = digest(encoder.sha256, stain_transfer.VERSION, stain_transfer.reference().to_dict(), files)
        path = CACHE / f"laboratory-{name}-{made_of}.npz"
        if path.exists():
            return dict(np.load(path))
        crops = crops_of(some)
        stain = estimate(crops)
        found = {"none": encoder.embed(crops)}
        found |= {method: encoder.embed(transfer(crops, cast("Method", method), stain)) for method in METHODS}
    CACHE.mkdir(exist_ok=True)
    np.savez(path, **found)
    return found


def laboratories() -> dict[str, Any]:
    """Macro-F1 of the four classes elsewhere, by option, and what the rule picks without labels."""
    pbc = Reference()
    four = np.array([FOUR.get(name, "") for name in pbc.y])
    atlas = pbc.atlas(four != "", four)
    probe, temperature = pbc.probe(four != "", four)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        places = {"sslseg_d2": sslseg(DATA), "bccd": bccd(DATA, Path(folder))}
        for place, some in places.items():
            X = embedded(place, some)
            X["restandardise"] = moved(X["none"], ["slide"] * len(some), atlas)
            chosen = pick({name: evidence(X[name], atlas) for name in OPTIONS})
            truth = np.array([picture.label for picture in some])
            found[place] = {
                "cells": len(some),
                "picked": chosen.option,
                "why": chosen.why,
                "options": {name: judged(X[name], X["none"], truth, atlas, probe, temperature) for name in OPTIONS},
            }
    gains = [100 * one["options"][one["picked"]]["20-NN"]["gain"]["value"] for one in found.values()]
    return {**found, "gain_of_pick_mean": round(float(np.mean(gains)), 2), "gain_of_pick_least": round(min(gains), 2)}


def macro_f1(truth: NDArray[np.int64], given: NDArray[np.int64], classes: int) -> float:
    """Mean F1 of the classes; 0 for one that is neither there nor named."""
    table = np.bincount(truth * classes + given, minlength=classes**2).reshape(classes, classes)
    whole = table.sum(0) + table.sum(1)
    return float(np.mean(2 * np.diag(table) / np.maximum(whole, 1)))


def judged(
    X: Float32, plain: Float32, truth: NDArray[np.str_], atlas: Atlas, probe: LinearProbe, temperature: Temperature
) -> dict[str, Any]:
    """Scores of one option by k-NN and probe, with the difference to no adaptation (paired)."""
    names = np.array(atlas.classes)
    code = np.searchsorted(names, truth)
    said = {
        "20-NN": (atlas.classifier().predict_proba(X), atlas.predict_proba(X), atlas.classify(X)["predicted"],
                  atlas.classify(plain)["predicted"]),
        "linear probe": (probe.predict_proba(X), temperature.apply(probe.predict_proba(X)), probe.predict(X),
                         probe.predict(plain)),
    }  # fmt: skip
    result: dict[str, Any] = {}
    for name, (raw, scaled, given, before) in said.items():
        now, then = (np.searchsorted(names, np.asarray(said, str)) for said in (given, before))

        def macro(rows: NDArray[np.intp], said: NDArray[np.int64] = now) -> float:
            return macro_f1(code[rows], said[rows], len(names))

        def gain(rows: NDArray[np.intp], now: NDArray[np.int64] = now, then: NDArray[np.int64] = then) -> float:
            return macro(rows, now) - macro(rows, then)

        result[name] = {
            "macro_f1": interval(macro, len(truth)),
            "gain": interval(gain, len(truth)),
            **errors(raw, scaled, code),
        }
    return result


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "calibration": calibration,
    "novelty": novelty,
    "laboratories": laboratories,
}


def main() -> None:
    """Measure and write; sections that are not asked for keep their figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=list(SECTIONS))
    parser.add_argument("--figure", type=Path, help="where to draw the reliability of the section calibration")
    options = parser.parse_args()
    results = json.loads(FILE.read_text())["results"] if FILE.is_file() else {}
    for name in options.only or SECTIONS:
        results[name] = calibration(options.figure) if name == "calibration" else SECTIONS[name]()
        print(name, json.dumps(results[name], indent=1), flush=True)
    document = {"command": command(), "machine": machine(), "results": results}
    FILE.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
