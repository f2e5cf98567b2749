"""Scores of the starter encoder and of two baselines on the PBC pictures, for the model card.

Fits on the rows of the table with split ``train``, scores on those with split ``test``: weighted F1, balanced accuracy
and accuracy of 1-NN, 20-NN and a linear probe. The split is by picture, not by patient (the set has no patient
numbers), so every score is optimistic in the same way.

    python benchmarks/starter_card.py                       # all
    python benchmarks/starter_card.py --only published      # one of: published, context, pixels, histogram

Writes ``benchmarks/results/starter_card.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import RESULTS, machine
from numpy.typing import NDArray
from PIL import Image

from napari_dinobloom.cells.crop import CropPolicy
from napari_dinobloom.encoders.encoder import load_encoder
from napari_dinobloom.predict.evaluation import evaluate_embeddings
from napari_dinobloom.predict.pictures import LabelledPicture, iter_embed_pictures, read_labelled
from napari_dinobloom.progress import drain

DATA = Path(os.environ.get("NAPARI_DINOBLOOM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))

Features = tuple[NDArray[np.float32], NDArray[np.str_]]


def pixels(path: Path) -> NDArray[np.float32]:
    """The whole picture at 16 x 16 pixels, 768 numbers 0 to 1."""
    with Image.open(path) as picture:
        small = picture.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.float32).ravel() / 255


def histogram(path: Path) -> NDArray[np.float32]:
    """Shares of 8 x 8 x 8 colours in the central half of the picture, 512 numbers; square roots (Hellinger)."""
    with Image.open(path) as picture:
        image = np.asarray(picture.convert("RGB"))
    height, width = image.shape[:2]
    part = image[height // 4 : height - height // 4, width // 4 : width - width // 4].astype(np.int64) // 32
    code = (part[..., 0] * 8 + part[..., 1]) * 8 + part[..., 2]
    return np.sqrt(np.bincount(code.ravel(), minlength=512) / code.size).astype(np.float32)


def of_pictures(describe: Callable[[Path], NDArray[np.float32]], pictures: list[LabelledPicture]) -> Features:
    """Features of all pictures by a function of one."""
    return np.stack([describe(p.path) for p in pictures]), np.array([p.label for p in pictures])


def of_encoder(name: str, kind: str, pictures: list[LabelledPicture]) -> Features:
    """Embeddings of all pictures; they count as one slide."""
    found = drain(iter_embed_pictures(pictures, load_encoder(name, device="cpu"), CropPolicy(kind=kind)))
    return found.X, found.y


def measure(features: Callable[[list[LabelledPicture]], Features], train: list, test: list) -> dict[str, Any]:
    """The table of one kind of features, with the time it took."""
    start = time.perf_counter()
    (X, y), (X_test, y_test) = features(train), features(test)
    took = time.perf_counter() - start
    table: pd.DataFrame = evaluate_embeddings(X, y, X_test, y_test)
    return {
        "train": len(y),
        "test": len(y_test),
        "numbers": X.shape[1],
        "seconds_features": round(took, 1),
        "scores": table.round(4).to_dict("index"),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", type=Path, default=DATA / "pbc.csv", help="table with columns file, cell_type, split")
    parser.add_argument("--encoder", default="starter", help="registry name or file of weights")
    parser.add_argument("--only", action="append", choices=["published", "context", "pixels", "histogram"])
    parser.add_argument("--out", type=Path, default=RESULTS / "starter_card.json")
    options = parser.parse_args()
    kinds: dict[str, Callable[[list[LabelledPicture]], Features]] = {
        "pixels": lambda p: of_pictures(pixels, p),
        "histogram": lambda p: of_pictures(histogram, p),
        "published": lambda p: of_encoder(options.encoder, "published", p),
        "context": lambda p: of_encoder(options.encoder, "context", p),
    }
    train, test = read_labelled(options.csv, split="train"), read_labelled(options.csv, split="test")
    results = json.loads(options.out.read_text())["results"] if options.only and options.out.is_file() else {}
    for kind in options.only or kinds:
        results[kind] = measure(kinds[kind], train, test)
        print(kind, pd.DataFrame(results[kind]["scores"]).T.to_string(), sep="\n", flush=True)
    document = {
        "command": " ".join(["python", "benchmarks/starter_card.py", *sys.argv[1:]]),
        "machine": machine(),
        "encoder": {"name": options.encoder, "sha256": load_encoder(options.encoder, device="cpu").sha256},
        "data": "PBC (Acevedo et al. 2020, CC BY 4.0), split by picture",
        "results": results,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
