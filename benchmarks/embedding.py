"""Speed, memory and exactness of embedding, beside a plain timm + torchvision + DataLoader loop.

    python benchmarks/embedding.py                        # all that this machine can do; on two cores 20 minutes
    python benchmarks/embedding.py --only cpu --only load # of: cpu, demand, load, stream, exact, gpu
    python benchmarks/embedding.py --only gpu --sizes S,B,L,G

``cpu``: 512 PBC JPEGs from the disk to embeddings, S and B, against the loop at the best of its batch sizes 1, 16, 64
and of 0 or 2 DataLoader workers (chosen on 96 pictures), in float32 and in bf16 autocast, in turns; and the share of
the machine's float32 and bf16 matrix-product rate. ``demand``: one new cell. ``load``: from a file of B to the first
embeddings, against reading the file and computing one batch. ``stream``: memory for a million generated crops beside
the model (a toy network, so that it ends). ``exact``: bf16 and several devices against float32, on PBC ``test``.
``gpu``: pictures per second from a ``crops.zarr``, against the same loop with 8 workers, and the share of the card's
8192^3 bf16 rate. Weights are random but for the bundled encoder: they decide no speed. Writes
``benchmarks/results/embedding.json`` after each part.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import RESULTS, command, machine

import napari_dinobloom as nd
from napari_dinobloom.encoders.architecture import ARCHITECTURES, Architecture
from napari_dinobloom.encoders.device import bf16_gains

DATA = Path(os.environ.get("NAPARI_DINOBLOOM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
TIMM = {"S": "vit_small", "B": "vit_base", "L": "vit_large", "G": "vit_giant"}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PICTURES, CHOOSE = 512, 96


def random_state(arch: Architecture) -> dict[str, torch.Tensor]:
    """Weights of the size that trained ones have."""
    random = torch.Generator().manual_seed(0)

    def draw(key: str, shape: Sequence[int]) -> torch.Tensor:
        values = torch.randn(*shape, generator=random)
        if "norm" in key and key.endswith("weight"):
            return 1 + 0.1 * values
        if "gamma" in key:
            return 0.1 + 0.02 * values
        if key in ("pos_embed", "cls_token"):
            return 0.2 * values
        return values * (float(np.prod(shape[1:])) ** -0.5 if len(shape) > 1 else 0.02)

    return {key: draw(key, shape) for key, shape in arch.shapes().items()}


def weights(size: str, folder: Path) -> Path:
    """A file of random weights."""
    from safetensors.torch import save_file

    path = folder / f"random-{size}.safetensors"
    if not path.exists():
        save_file(random_state(ARCHITECTURES[size]), path)
    return path


def products(size: str) -> float:
    """Floating point operations of one forward pass of a picture, all of its last block included."""
    arch, tokens = ARCHITECTURES[size], 257
    first = arch.hidden * (2 if arch.swiglu else 1)
    block = 2 * tokens * (4 * arch.dim**2 + arch.dim * (first + arch.hidden)) + 4 * tokens**2 * arch.dim
    return arch.depth * block + 2 * 256 * 588 * arch.dim


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rate(side: int, dtype: torch.dtype, device: str = "cpu") -> float:
    """Floating point operations per second of a square matrix product, the best of five."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))

    def once() -> None:
        a @ b
        if device != "cpu":
            torch.cuda.synchronize()

    once()
    return 2 * side**3 / min(seconds(once) for _ in range(5))


class Files(torch.utils.data.Dataset):
    """What a user of timm writes."""

    def __init__(self, paths: Sequence[Path]) -> None:
        from torchvision.transforms import v2

        self.paths = paths
        steps = [v2.ToImage(), v2.Resize((224, 224)), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
        self.transform = v2.Compose(steps)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> torch.Tensor:
        from PIL import Image

        return self.transform(Image.open(self.paths[row]).convert("RGB"))


def timm_model(size: str, path: Path) -> torch.nn.Module:
    """The same weights in timm."""
    import timm
    from safetensors.torch import load_file

    model = timm.create_model(f"{TIMM[size]}_patch14_dinov2", pretrained=False, img_size=224, num_classes=0)
    model.load_state_dict(load_file(path))
    return model.eval()


def plain_loop(model: torch.nn.Module, paths: Sequence[Path], batch: int, workers: int, bf16: bool) -> torch.Tensor:
    """The loop that is compared with."""
    loader = torch.utils.data.DataLoader(Files(paths), batch_size=batch, num_workers=workers)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return torch.cat([model(x).float() for x in loader])


def best_loop(model: torch.nn.Module, paths: Sequence[Path], bf16: bool) -> tuple[int, int]:
    """Batch size and workers that are fastest on a few pictures."""
    some = paths[:CHOOSE]
    choices = [(batch, workers) for batch in (1, 16, 64) for workers in (0, 2)]
    return min(choices, key=lambda choice: seconds(lambda: plain_loop(model, some, *choice, bf16)))


def pictures(count: int) -> list[Path]:
    """Pictures of PBC, classes mixed."""
    import pandas as pd

    table = pd.read_csv(DATA / "pbc.csv").sample(frac=1, random_state=0)
    return [DATA / file for file in table["file"][:count]]


def cpu(size: str, folder: Path) -> dict[str, Any]:
    """From JPEGs on the disk to embeddings: both ways, in both number formats, in turns."""
    paths = pictures(PICTURES)
    for path in paths:
        path.read_bytes()  # both find the files in memory
    file = weights(size, folder)
    model, files = timm_model(size, file), nd.PictureFiles(paths)
    row: dict[str, Any] = {"pictures": len(paths), "bf16_instructions": bf16_gains(torch.device("cpu"))}
    best: dict[str, float] = {}
    for precision in ("float32", "bf16"):
        chosen = best_loop(model, paths, precision == "bf16")
        row[f"loop_{precision}_batch_workers"] = chosen
        encoder = nd.load_encoder(file, device="cpu", precision=precision)
        encoder.embed(files[:4])
        theirs, ours = [], []
        for _ in range(2):
            started = time.perf_counter()
            plain_loop(model, paths, *chosen, precision == "bf16")
            middle = time.perf_counter()
            encoder.embed(files)
            theirs.append(middle - started)
            ours.append(time.perf_counter() - middle)
        best[f"loop_{precision}"], best[f"ours_{precision}"] = len(paths) / min(theirs), len(paths) / min(ours)
    row |= {f"{name}_per_s": round(value, 2) for name, value in best.items()}
    row["bf16_over_loop_float32"] = round(best["ours_bf16"] / best["loop_float32"], 2)
    row["bf16_over_loop_bf16"] = round(best["ours_bf16"] / best["loop_bf16"], 2)
    row["float32_over_loop_float32"] = round(best["ours_float32"] / best["loop_float32"], 2)
    for precision, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        # What is left out of the last block is not counted as done.
        done = products(size) * (1 - 1 / ARCHITECTURES[size].depth)
        row[f"{precision}_share_of_matmul_rate"] = round(best[f"ours_{precision}"] * done / rate(2048, dtype), 3)
    return row


def demand(folder: Path) -> dict[str, Any]:
    """One new cell, the encoder being loaded."""
    picture = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    out = {}
    card = torch.cuda.is_available()
    for size, device in (("S", "cpu"), *((("B", "cuda"),) if card else ())):
        for precision in ("float32", "bf16"):
            encoder = nd.load_encoder(weights(size, folder), device=device, precision=precision)
            for _ in range(3):
                encoder.embed(picture)
            times = sorted(seconds(lambda e=encoder: e.embed(picture)) for _ in range(15))
            out[f"{size}_{device}_{precision}_ms"] = round(1e3 * times[7], 1)
            encoder.close()
    return out


LOAD = """
import sys, time
import numpy as np
import torch, safetensors, timm
import napari_dinobloom as nd
from napari_dinobloom.encoders.encoder import load_encoder
crops = np.random.default_rng(0).integers(0, 256, (16, 224, 224, 3), np.uint8)
nd.load_encoder("starter").embed(crops[:2])
started = time.perf_counter()
encoder = load_encoder(sys.argv[1], device="cpu", precision=sys.argv[2])
encoder.embed(crops)
whole = time.perf_counter() - started
times = []
for _ in range(3):
    started = time.perf_counter(); encoder.embed(crops); times.append(time.perf_counter() - started)
started = time.perf_counter()
with open(sys.argv[1], "rb") as file:
    while file.read(1 << 24): pass
print(whole, time.perf_counter() - started, min(times))
"""


def load(folder: Path) -> dict[str, Any]:
    """From the file of B to the first 16 embeddings, in a fresh process that has imported torch."""
    out = {}
    for precision in ("float32", "bf16"):
        file = weights("B", folder)
        runs = []
        for _ in range(3):
            command = [sys.executable, "-c", LOAD, str(file), precision]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs.append([float(value) for value in done.stdout.split()])
        whole, read, batch = min(runs)
        out[precision] = {
            "load_and_embed_16_s": round(whole, 2),
            "read_file_s": round(read, 2),
            "embed_16_s": round(batch, 2),
            "ratio": round(whole / (read + batch), 2),
        }
    return out


class Generated:
    """A million crops that lie nowhere."""

    dtype = np.dtype(np.uint8)

    def __init__(self, count: int) -> None:
        self.shape = (count, 224, 224, 3)
        self._some = np.random.default_rng(0).integers(0, 256, (64, 224, 224, 3), np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self._some[np.arange(*rows.indices(len(self))) % 64]


def stream(folder: Path, count: int) -> dict[str, Any]:
    """Highest resident memory beyond that of the loaded model."""
    import resource

    import zarr
    from safetensors.torch import save_file

    ARCHITECTURES["toy"] = Architecture("toy", 32, 1, 1, 32)
    save_file(random_state(ARCHITECTURES["toy"]), folder / "toy.safetensors")
    encoder = nd.load_encoder(folder / "toy.safetensors", device="cpu")
    encoder.embed(Generated(64))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    store = zarr.create_array(folder / "x.zarr", shape=(count, 32), chunks=(16384, 32), dtype="float32")
    took = seconds(lambda: encoder.embed_to(Generated(count), store))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"crops": count, "peak_beside_model_GiB": round((after - before) / 2**20, 3), "seconds": round(took)}


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Row by row."""
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def exact(folder: Path) -> dict[str, Any]:
    """What bf16 and two processes change: cosines, and 1-NN labels of PBC ``test`` by the bundled encoder."""
    import pandas as pd

    from napari_dinobloom.predict.knn import KnnClassifier

    table = pd.read_csv(DATA / "pbc.csv")
    train, test = table[table["split"] == "train"], table[table["split"] == "test"]
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for precision in ("float32", "bf16"):
        encoder = nd.load_encoder("starter", device="cpu", precision=precision)
        both = [encoder.embed(nd.PictureFiles([DATA / file for file in part["file"]])) for part in (train, test)]
        found[precision] = (both[0], both[1])
    labels = {
        name: KnnClassifier(k=1).fit(x, train["cell_type"].to_numpy()).predict(y) for name, (x, y) in found.items()
    }
    out: dict[str, Any] = {
        "starter_bf16_cosine_least": round(float(cosine(found["float32"][1], found["bf16"][1]).min()), 5),
        "starter_bf16_same_1nn_label": round(float((labels["float32"] == labels["bf16"]).mean()), 4),
        "test_cells": len(test),
    }
    some = nd.PictureFiles([DATA / file for file in test["file"][:24]])
    for size in ("S", "B"):
        file = weights(size, folder)
        plain, half = (nd.load_encoder(file, device="cpu", precision=p).embed(some) for p in ("float32", "bf16"))
        out[f"{size}_random_bf16_cosine_least"] = round(float(cosine(plain, half).min()), 5)
    with nd.load_encoder("starter", device="cpu,cpu") as two:
        same = np.array_equal(two.embed(some), found["float32"][1][:24])
    out["two_processes_equal_one"] = bool(same)
    return out


class Stored(torch.utils.data.Dataset):
    """Batches of a zarr store, as uint8: whole chunks, because single rows would starve the loop."""

    def __init__(self, path: Path, batch: int) -> None:
        self.path, self.batch, self.array = path, batch, None

    def __len__(self) -> int:
        import zarr

        return zarr.open_array(self.path, mode="r").shape[0] // self.batch

    def __getitem__(self, number: int) -> torch.Tensor:
        import zarr

        self.array = self.array if self.array is not None else zarr.open_array(self.path, mode="r")
        return torch.from_numpy(np.asarray(self.array[number * self.batch : (number + 1) * self.batch]))


def gpu_loop(model: torch.nn.Module, path: Path, batch: int) -> float:
    """Pictures per second of the loop that is compared with, once warm."""
    mean, std = (torch.tensor(v, device="cuda").view(1, 3, 1, 1) for v in (MEAN, STD))
    loader = torch.utils.data.DataLoader(Stored(path, batch), batch_size=None, num_workers=8, pin_memory=True)
    out = []
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
        started, done = 0.0, 0
        for number, x in enumerate(loader):
            if number == 2:
                torch.cuda.synchronize()
                started = time.perf_counter()
            x = x.to("cuda", non_blocking=True).permute(0, 3, 1, 2).float().div(255).sub(mean).div(std)
            out.append(model(x).float().cpu())
            done += len(x) if number >= 2 else 0
    return done / (time.perf_counter() - started)


def gpu(sizes: Sequence[str], folder: Path) -> dict[str, Any]:
    """From a ``crops.zarr`` to embeddings on one card."""
    import zarr

    out: dict[str, Any] = {
        "card": torch.cuda.get_device_name(0),
        "matmul_8192_bf16": rate(8192, torch.bfloat16, "cuda"),
    }
    path = folder / "crops.zarr"
    counts = {"S": 40_000, "B": 20_000, "L": 10_000, "G": 4_000}
    largest = max(counts[size] for size in sizes)
    array = zarr.create_array(
        path, shape=(largest, 224, 224, 3), chunks=(64, 224, 224, 3), dtype="uint8", compressors=None
    )
    random = np.random.default_rng(0)
    for start in range(0, largest, 1000):
        array[start : start + 1000] = random.integers(0, 256, (1000, 224, 224, 3), np.uint8)
    for size in sizes:
        file = weights(size, folder)
        model = timm_model(size, file).cuda()
        loop = max(gpu_loop(model, path, batch) for batch in (16, 64, 256))
        del model
        torch.cuda.empty_cache()
        with nd.load_encoder(file, device="cuda") as encoder:
            encoder.embed(_Head(array, 1024))
            ours = counts[size] / seconds(lambda e=encoder, c=array, n=counts[size]: e.embed(_Head(c, n)))
        done = products(size) * (1 - 1 / ARCHITECTURES[size].depth)
        share = ours * done / out["matmul_8192_bf16"]
        out[size] = {"loop_per_s": round(loop), "ours_per_s": round(ours), "ratio": round(ours / loop, 2),
                     "share_of_matmul_rate": round(share, 3)}  # fmt: skip
    return out


class _Head:
    """The first rows of a store, read where they are sliced."""

    def __init__(self, array: Any, count: int) -> None:
        self.array, self.shape, self.dtype = array, (count, *array.shape[1:]), array.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return np.asarray(self.array[rows.start : min(rows.stop, len(self))])


def parts(asked: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """What was asked for, or all that this machine can do."""
    for size in asked.sizes.split(","):
        if size in ("S", "B"):
            yield f"cpu {size}", partial(cpu, size, folder)
    yield "demand", lambda: demand(folder)
    yield "load", lambda: load(folder)
    yield "stream", lambda: stream(folder, asked.crops)
    yield "exact", lambda: exact(folder)
    if torch.cuda.is_available():
        yield "gpu", lambda: gpu(asked.sizes.split(","), folder)


def main() -> None:
    """Run the parts and write each one's figures when it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="parts to run")
    parser.add_argument("--sizes", default="S,B,L,G")
    parser.add_argument("--crops", type=int, default=1_000_000, help="for stream")
    asked = parser.parse_args()
    path = RESULTS / "embedding.json"
    with tempfile.TemporaryDirectory() as name:
        for part, work in parts(asked, Path(name)):
            if asked.only and part.split()[0] not in asked.only:
                continue
            figures = work()
            results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            results[part] = {"machine": machine(), "command": command(), **figures}
            path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            print(part, json.dumps(figures, indent=1), flush=True)


if __name__ == "__main__":
    main()
