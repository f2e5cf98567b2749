"""The starter encoder by both protocols of ``napari-dinobloom evaluate``, on the 9,495 pictures of PBC at hand.

    python benchmarks/evaluate_pbc.py [--orders 20] [--figure docs/images/confusion.png] [--only paper]

Pictures are read as ``acevedo`` and resized bilinearly, so that the embeddings of `pbc` can be used; ``resizing`` says
how far the bicubic resizing of the paper's Acevedo protocol moves them. The starter learned the classes of about 6,500
of these pictures: the figures show that the chain works, not how good the encoder is elsewhere. ``copies``: the limits
of near-duplicates were chosen by it, on the training pictures of ``pbc.csv`` alone: the highest correlation of the
fingerprints of two pictures, the highest of the detail of the 3,000 pairs whose fingerprints are most alike, and of 300
pictures the lowest of both with a changed copy of itself.

Writes ``benchmarks/results/evaluate.json``; with ``--only`` the other parts keep their figures. Fits are kept in the
system's folder for temporary files: a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import RESULTS, command, machine
from numpy.typing import NDArray
from pbc import CACHE, DATA, pictures
from PIL import Image

from napari_dinobloom.cells.crop import CropPolicy
from napari_dinobloom.encoders.encoder import Encoder, load_encoder
from napari_dinobloom.io.smear import read_pixels
from napari_dinobloom.predict.protocols.cohort import Cohort, iter_embed_cohort
from napari_dinobloom.predict.protocols.copies import AGREEING, ALIKE, agreement, detail, fingerprint
from napari_dinobloom.predict.protocols.layouts import LabelledFiles, read_layout
from napari_dinobloom.predict.protocols.protocol import iter_evaluate
from napari_dinobloom.predict.protocols.result import Evaluation
from napari_dinobloom.predict.protocols.seen import cautions
from napari_dinobloom.progress import drain
from napari_dinobloom.report.confusion_figure import draw_confusion

Image8 = NDArray[np.uint8]
FILE = RESULTS / "evaluate.json"
PARTS = ("copies", "resizing", "paper", "strict")


def read_cohort() -> Cohort:
    """Embeddings and fingerprints of all pictures."""
    files = read_layout(DATA / "pbc")
    rows, X = pictures("pbc.csv")
    place = {file: row for row, file in enumerate(rows["file"])}
    order = [place[f"pbc/{file}"] for file in files.table["file"]]
    prints = [fingerprint(read_pixels(path)) for path in files.paths]
    return Cohort(files, X[order], np.stack(prints), "", ())


def changes() -> dict[str, Callable[[Image8], Image8]]:
    """What makes a copy of a picture."""

    def compressed(picture: Image8, quality: int) -> Image8:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file).convert("RGB"))

    return {
        "JPEG 40": lambda p: compressed(p, 40),
        "JPEG 20": lambda p: compressed(p, 20),
        "half the size": lambda p: np.asarray(Image.fromarray(p).resize((p.shape[1] // 2, p.shape[0] // 2))),
        "a third of the size": lambda p: np.asarray(Image.fromarray(p).resize((p.shape[1] // 3, p.shape[0] // 3))),
        "15 % brighter": lambda p: np.clip(p * 1.15, 0, 255).astype(np.uint8),
        "cut 6 px further": lambda p: p[6:, 6:],
        "cut 12 px further": lambda p: p[12:, 12:],
    }


def copies() -> dict[str, Any]:
    """Correlations of different pictures, and of changed copies."""
    table = pd.read_csv(DATA / "pbc.csv", dtype=str)
    paths = [DATA / file for file in table.loc[table["split"] == "train", "file"]]
    prints = np.stack([fingerprint(read_pixels(path)) for path in paths])
    some = [read_pixels(paths[row]) for row in np.linspace(0, len(paths) - 1, 300).astype(int)]
    lowest = {
        name: {
            "fingerprint": round(min(float(fingerprint(one) @ fingerprint(change(one))) for one in some), 4),
            "detail": round(min(agreement(detail(one), detail(change(one))) for one in some), 4),
        }
        for name, change in changes().items()
    }
    pairs = most_alike(prints, 3000)
    seen = {row: detail(read_pixels(paths[row])) for row in {int(row) for pair in pairs for row in pair[:2]}}
    details = [agreement(seen[int(one)], seen[int(other)]) for one, other, _ in pairs]
    different = {
        "fingerprint": round(float(pairs[0, 2]), 4),
        "detail": {f"{q:g}": round(float(np.quantile(details, q)), 4) for q in (0.5, 0.99, 1)},
    }
    return {
        "pictures": len(paths),
        "limits": {"fingerprint": ALIKE, "detail": AGREEING},
        "different pictures, highest": different,
        "changed copy, lowest": lowest,
    }


def most_alike(prints: NDArray[np.float32], count: int) -> NDArray[np.float64]:
    """Pairs of pictures with the highest products of fingerprints, (count, 3): two rows and the product."""
    found = np.zeros((0, 3))
    for start in range(0, len(prints), 1000):
        products = np.triu(prints[start : start + 1000] @ prints.T, start + 1)
        top = np.argpartition(products, products.size - count, axis=None)[-count:]
        one, other = np.unravel_index(top, products.shape)
        found = np.vstack([found, np.column_stack([one + start, other, products[one, other]])])
    return found[np.argsort(-found[:, 2])[:count]]


def chain(cohort: Cohort, encoder: Encoder) -> dict[str, Any]:
    """The command's own embedding of 200 pictures against that of `pbc`, and resized as the paper did Acevedo."""
    rows = np.linspace(0, len(cohort.X) - 1, 200).astype(int)
    with tempfile.TemporaryDirectory() as folder:
        own, bicubic = (
            embedded(cohort.files.keep(rows), encoder, way, Path(folder)) for way in ("bilinear", "bicubic")
        )
    length = np.linalg.norm(own, axis=1) * np.linalg.norm(bicubic, axis=1)
    cosine = (own * bicubic).sum(axis=1) / length
    found = {"median": round(float(np.median(cosine)), 5), "least": round(float(cosine.min()), 5)}
    return {
        "largest difference to the embeddings used": float(np.abs(own - cohort.X[rows]).max()),
        "bicubic to bilinear, cosine": found,
    }


def embedded(files: LabelledFiles, encoder: Encoder, way: str, cache: Path) -> NDArray[np.float32]:
    """Embeddings by the command's own chain."""
    policy = CropPolicy(kind="published", interpolation=way)  # type: ignore[arg-type]
    return drain(iter_embed_cohort(files, encoder, policy, cache)).X


def described(found: Evaluation, notes: list[str]) -> dict[str, Any]:
    """Scores in plain values."""
    scores: dict[str, dict[str, Any]] = {}
    for row in found.metrics.to_dict("records"):
        numbers = {name: round(float(row[name]), 4) for name in ("value", "sd", "lowest", "highest", "low", "high")}
        scores.setdefault(row["method"], {})[row["metric"]] = {**numbers, "runs": int(row["runs"])}
    return {
        "asked": len(found.predictions),
        "copies": len(found.copies),
        "scores": scores,
        "notes": [*notes, *found.notes],
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--orders", type=int, default=20, help="draws of the folds (strict)")
    parser.add_argument("--figure", type=Path, help="write the confusion figure of the strict protocol")
    parser.add_argument("--only", action="append", choices=PARTS, help="parts to measure; others keep their figures")
    options = parser.parse_args()
    parts = options.only or PARTS
    found = read_cohort() if set(parts) != {"copies"} else None
    with load_encoder("starter", device="cpu") as encoder:
        about = {"name": encoder.name, "sha256": encoder.sha256}
        if "copies" in parts:
            write("copies", copies(), about)
        if found is not None and "resizing" in parts:
            write("resizing", chain(found, encoder), about)
    for protocol in [one for one in ("paper", "strict") if one in parts]:
        assert found is not None
        evaluation = drain(iter_evaluate(found, protocol, orders=options.orders, cache=CACHE / "evaluate"))  # type: ignore[arg-type]
        notes = cautions("starter", "acevedo", evaluation.predictions["file"].tolist())
        write(protocol, described(evaluation, notes), about)
        print(protocol, evaluation.metrics.round(4).to_string(), sep="\n", flush=True)
        if protocol == "strict" and options.figure:
            note = "The encoder learned from most of these pictures: no external validation. Not for diagnosis."
            draw_confusion(evaluation.confusion, "starter on PBC, protocol strict", note, options.figure)


def write(part: str, result: dict[str, Any], about: dict[str, str]) -> None:
    """Write what was found for a part; the other parts keep their figures."""
    old = json.loads(FILE.read_text())["results"] if FILE.is_file() else {}
    results = {**old, part: {"command": command(), **result}}
    document = {
        "machine": machine(),
        "encoder": about,
        "data": "PBC (Acevedo et al. 2020, CC BY 4.0), the 9,495 pictures at hand, 11 classes",
        "results": {name: results[name] for name in PARTS if name in results},
    }
    FILE.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
