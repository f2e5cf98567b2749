"""Speed of the crops, memory of a huge field, and how little the way of cropping changes an embedding.

    python benchmarks/crops.py                            # all; about 10 minutes
    python benchmarks/crops.py --only speed --only memory # of: speed, memory, reading, pbc, interpolation
    python benchmarks/crops.py --only pbc --pictures 500 --encoder starter

``speed``: crops per second of `nd.crop` from memory and of the pipeline's step with writing ``crops.zarr`` (flushed to
the disk by the step's end), one process on one core (use ``OMP_NUM_THREADS=1 taskset -c 0``), for windows of 250 and
500 pixels, beside a loop over Pillow. ``memory``: highest resident memory of the step over a tiled 20,000 x 20,000
TIFF, beyond what the imports take. ``pbc``: cosine between embeddings of the whole PBC picture (``published``) and of
the cell that `nd.segment` finds in it, cut by ``context``. ``reading``: processor time to read one crop at random, and
256 side by side through Zarr, from shards and from the store of before, by turns; and what it takes to cut one cell
anew. ``interpolation``: cosine between the same crops resized in
other ways. Writes ``benchmarks/results/crops.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import RESULTS, command, machine
from PIL import Image

from napari_dinobloom.cells.crop import CropPolicy, crop
from napari_dinobloom.cells.scale import estimate_scale, pool_scale
from napari_dinobloom.cells.segment import segment
from napari_dinobloom.encoders.encoder import Encoder, load_encoder
from napari_dinobloom.io.crops import ROWS
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.io.smear import read_smear
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline.crops import FILE, iter_crop_study, open_crops, read_crop, stored_keys
from napari_dinobloom.pipeline.settings import RunSettings
from napari_dinobloom.predict.pictures import central_cell
from napari_dinobloom.progress import drain

DATA = Path(os.environ.get("NAPARI_DINOBLOOM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
CELLS = 2048
RUNS = 3
PARTS = ["speed", "memory", "reading", "pbc", "interpolation"]


def spots(side: int, count: int, pixel_size_um: float, seed: int = 0) -> pd.DataFrame:
    """Boxes of 12 um at random places of a square field, in the order in which `segment` would number them."""
    rng = np.random.default_rng(seed)
    half = 6.0 / pixel_size_um
    y, x = rng.uniform(half, side - half, (2, count))
    boxes = {"y0": y - half, "x0": x - half, "y1": y + half, "x1": x + half}
    table = pd.DataFrame(boxes).round().astype("int32").sort_values(["y0", "x0"], ignore_index=True)
    return table.assign(pixel_size_um=pixel_size_um)


def study_of(folder: Path, picture: Path, table: pd.DataFrame, side: int) -> Study:
    """A study of one field whose cells are given."""
    from anndata import AnnData

    study = Study.create(folder / "crops.dinobloom")
    record = FieldRecord(id="field", file=picture.name, root=study.add_root(picture.parent), sha256="0" * 64,
                         height=side, width=side, slide="slide", patient="patient")  # fmt: skip
    study.update(fields=[record])
    ids = [f"field:{n:05d}" for n in range(1, len(table) + 1)]
    table = table.assign(cell_id=ids, field="field", slide="slide", patient="patient", quality="ok")
    table = table.assign(y=(table.y0 + table.y1) / 2, x=(table.x0 + table.x1) / 2).set_index("cell_id", drop=False)
    adata = AnnData(obs=table)
    adata.obsm["spatial"] = table[["x", "y"]].to_numpy(np.float32)
    study.save_cells(adata)
    return study


def rates(act: Callable[[], object], count: int, *, before: Callable[[], object] = bool) -> dict[str, Any]:
    """Crops per second of several runs after one that warms up; by the clock, and of this process' own time."""
    clock, own = [], []
    for _ in range(RUNS + 1):
        before()
        started, used = time.perf_counter(), time.process_time()
        act()
        clock.append(round(count / (time.perf_counter() - started)))
        own.append(round(count / (time.process_time() - used)))
    return {
        "median": statistics.median(clock[1:]),
        "best": max(clock[1:]),
        "runs": clock[1:],
        "first": clock[0],
        "median_of_processor_time": statistics.median(own[1:]),
    }


def crop_step(study: Study) -> None:
    """The pipeline's step."""
    drain(iter_crop_study(study, RunSettings()))


def pillow_loop(picture: np.ndarray, table: pd.DataFrame) -> None:
    """What the crops cost as a plain loop over Pillow, from windows that lie within the picture."""
    out = np.empty((len(table), 224, 224, 3), np.uint8)
    half = 12.5 / float(table["pixel_size_um"].iloc[0])
    for row, (y, x) in enumerate(np.column_stack([table.y0 + table.y1, table.x0 + table.x1]) / 2):
        top, left = (int(min(max(v - half, 0), 4096 - 2 * half)) for v in (y, x))
        window = Image.fromarray(np.ascontiguousarray(picture[top : top + int(2 * half), left : left + int(2 * half)]))
        out[row] = np.asarray(window.resize((224, 224), Image.Resampling.BILINEAR))


def speed() -> dict[str, Any]:
    """Crops per second on one core, by pixel size."""
    result: dict[str, Any] = {"cells": CELLS}
    picture = np.random.default_rng(0).integers(0, 256, (4096, 4096, 3), dtype=np.uint8)
    for pixel in (0.1, 0.05):
        table = spots(4096, CELLS, pixel)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "in").mkdir()
            Image.fromarray(picture).save(folder / "in" / "field.tif")
            study = study_of(folder, folder / "in" / "field.tif", table, 4096)

            forget = partial(shutil.rmtree, study.path / "crops.zarr", ignore_errors=True)
            result[f"{pixel} um per pixel"] = {
                "window_px": 25.0 / pixel,
                "pillow_loop": rates(partial(pillow_loop, picture, table), CELLS),
                "nd.crop": rates(partial(crop, picture, table), CELLS),
                "step_with_writing": rates(partial(crop_step, study), CELLS, before=forget),
            }
            study.close()
    return result


def spent(act: Callable[[], object]) -> float:
    """Seconds of processor time."""
    started = time.process_time()
    act()
    return time.process_time() - started


def as_before(study: Study) -> Study:
    """A study beside another with its crops as earlier versions wrote them: a file for each chunk of 64."""
    import zarr

    other = Study.create(study.path.with_name("before.dinobloom"))
    stored = open_crops(study)
    array = zarr.create_array(
        other.path / FILE, shape=stored.shape, chunks=stored.chunks, dtype="uint8", compressors=None
    )
    array.attrs["rows"] = [f"{key:016x}" for key in stored_keys(study).tolist()]
    for start in range(0, stored.shape[0], ROWS):
        array[start : start + ROWS] = stored[start : start + ROWS]
    return other


def reading(cells: int = 4096, asked: int = 3000) -> dict[str, Any]:
    """Time to read crops of both layouts, and their files."""
    picture = np.random.default_rng(0).integers(0, 256, (4096, 4096, 3), dtype=np.uint8)
    rows = np.random.default_rng(0).integers(0, cells, asked).tolist()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        Image.fromarray(picture).save(folder / "in" / "field.tif")
        study = study_of(folder, folder / "in" / "field.tif", spots(4096, cells, 0.1), 4096)
        crop_step(study)
        studies = {"shards": study, "before": as_before(study)}
        random: dict[str, list[float]] = {layout: [] for layout in studies}
        blocks: dict[str, list[float]] = {layout: [] for layout in studies}
        for _ in range(RUNS + 2):  # the first warms up
            for layout, one in studies.items():
                random[layout].append(1e6 * spent(lambda one=one: [read_crop(one, row) for row in rows]) / asked)
                stored = open_crops(one)
                took = spent(lambda stored=stored: [stored[i : i + 256] for i in range(0, cells, 256)])
                blocks[layout].append(1e3 * took / (cells / 256))
        result: dict[str, Any] = {
            layout: {
                "microseconds_of_one_crop_at_random": [round(value, 1) for value in random[layout][1:]],
                "milliseconds_of_256_side_by_side": [round(value, 1) for value in blocks[layout][1:]],
                "files": sum(path.is_file() for path in (one.path / FILE).rglob("*")),
                "folders": sum(path.is_dir() for path in (one.path / FILE).rglob("*")),
            }
            for layout, one in studies.items()
        }
        middle = {layout: statistics.median(values[1:]) for layout, values in random.items()}
        result["random_against_before"] = round(middle["shards"] / middle["before"], 3)
        table = study.cells
        table.obs.loc[table.obs.index[700], "y0"] += 1
        study.save_cells(table)
        result["seconds_to_cut_one_of_them_anew"] = round(spent(partial(crop_step, study)), 2)
        for one in studies.values():
            one.close()
    return {"cells": cells, **result}


def huge_picture(path: Path, side: int) -> None:
    """Write a tiled TIFF of generated smears, one beside the other, without holding it in memory."""
    import tifffile

    tile, piece = 512, np.asarray(generate_smear(1, height=2048, width=2048, n_white=20, pixel_size_um=0.1).image)
    count = -(-side // tile)

    def tiles() -> Iterator[np.ndarray]:
        for row in range(count):
            for column in range(count):
                y, x = tile * row % 2048, tile * column % 2048
                yield np.ascontiguousarray(piece[y : y + tile, x : x + tile])

    tifffile.imwrite(path, tiles(), shape=(side, side, 3), dtype="uint8", tile=(tile, tile), photometric="rgb",
                     compression="zlib", compressionargs={"level": 1})  # fmt: skip


def measure_memory(folder: Path, side: int, cells: int) -> None:
    """Cut the crops of a study in this process and print the highest memory before and at the end, and the seconds."""
    table = spots(side, cells, 0.1)
    crop(np.zeros((512, 512, 3), np.uint8), spots(512, 300, 0.1))  # loads all that is loaded once
    study = study_of(folder, folder / "in" / "field.tif", table, side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    drain(iter_crop_study(study, RunSettings()))
    seconds = time.perf_counter() - started
    print(json.dumps([before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, seconds]))
    study.close()


def memory(side: int = 20_000, cells: int = 5_000) -> dict[str, Any]:
    """Highest resident memory of the crop step over a huge tiled picture, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "in").mkdir()
        huge_picture(Path(name) / "in" / "field.tif", side)
        again = [sys.executable, __file__, "--measure-memory", name, str(side), str(cells)]
        output = subprocess.run(again, check=True, capture_output=True, text=True).stdout
    before, after, seconds = json.loads(output)
    return {
        "side_px": side,
        "cells": cells,
        "picture_gib": round(3 * side**2 / 2**30, 2),
        "peak_gib": round(after / 2**20, 2),
        "peak_beyond_start_gib": round((after - before) / 2**20, 2),
        "seconds": round(seconds, 1),
    }


@dataclass
class CentralCells:
    """PBC pictures with the cell that was found in the middle of each."""

    pictures: list[np.ndarray]
    labels: np.ndarray
    boxes: pd.DataFrame
    pixel_size_um: float
    missing: int


def central_cells(data: Path, count: int) -> CentralCells:
    """Segment every n-th PBC test picture at the set's pooled scale."""
    rows = pd.read_csv(data / "pbc.csv").query("split == 'test'").sort_values("file", ignore_index=True)
    rows = rows.iloc[np.unique(np.linspace(0, len(rows) - 1, count).astype(int))]
    pictures = {file: read_smear(data / file).load() for file in rows["file"]}
    scale = pool_scale([estimate_scale(p) for p in pictures.values()]).pixel_size_um
    kept, boxes = [], []
    for file, picture in pictures.items():
        found = segment(picture, scale).table
        place = central_cell(found, *picture.shape[:2])
        if place is not None:
            kept.append(file)
            boxes.append(found.iloc[place][["y0", "x0", "y1", "x1"]].astype(float))
    labels = rows.set_index("file").loc[kept, "cell_type"].to_numpy()
    table = pd.DataFrame(boxes).reset_index(drop=True)
    return CentralCells([pictures[f] for f in kept], labels, table, scale, len(rows) - len(kept))


def cut(cells: CentralCells, policy: CropPolicy, *, centred: bool = False) -> np.ndarray:
    """Crops of the found cells; `centred`: of the pictures' middles instead."""
    crops = []
    for row, picture in enumerate(cells.pictures):
        box = cells.boxes.iloc[[row]]
        if centred or policy.kind == "published":
            box = pd.DataFrame({"y0": [0], "x0": [0], "y1": [picture.shape[0]], "x1": [picture.shape[1]]})
        crops.append(crop(picture, box, policy=policy, pixel_size_um=cells.pixel_size_um)[0])
    return np.stack(crops)


def cosines(one: np.ndarray, two: np.ndarray) -> dict[str, float]:
    """Median, 5 % quantile and least cosine of matching rows."""
    values = (one * two).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    low, middle = np.quantile(values, (0.05, 0.5))
    return {"median": round(float(middle), 4), "q05": round(float(low), 4), "least": round(float(values.min()), 4)}


def pbc(cells: CentralCells, encoder: Encoder) -> dict[str, Any]:
    """Whole picture against the cell found in it; and, as a measure, against other pictures."""
    wide = cells.pixel_size_um * cells.pictures[0].shape[1]
    whole = encoder.embed(cut(cells, CropPolicy(kind="published")))
    found = encoder.embed(cut(cells, CropPolicy()))
    order = np.random.default_rng(0).permutation(len(whole))
    same = cells.labels == cells.labels[order]
    same &= order != np.arange(len(order))
    other = cells.labels != cells.labels[order]
    return {
        "pictures": len(cells.pictures),
        "no_cell_in_the_middle": cells.missing,
        "pixel_size_um": round(cells.pixel_size_um, 4),
        "published_against_context_as_wide": cosines(whole, encoder.embed(cut(cells, CropPolicy(fov_um=wide)))),
        "fov_as_wide_um": round(wide, 2),
        "published_against_context_25um": cosines(whole, found),
        "context_25um_on_the_middle_against_on_the_found_cell": cosines(
            encoder.embed(cut(cells, CropPolicy(), centred=True)), found
        ),
        "two_pictures_of_a_class_published": cosines(whole[same], whole[order][same]),
        "two_pictures_of_two_classes_published": cosines(whole[other], whole[order][other]),
    }


def interpolation(cells: CentralCells, encoder: Encoder) -> dict[str, Any]:
    """Cosine between embeddings of the same crops resized in three ways."""
    result: dict[str, Any] = {}
    for policy in (CropPolicy(), CropPolicy(kind="published")):
        ways = ("bilinear", "bicubic", "lanczos")
        vectors = {way: encoder.embed(cut(cells, replace(policy, interpolation=way))) for way in ways}
        for one, two in combinations(ways, 2):
            result[f"{policy.kind}: {one} against {two}"] = cosines(vectors[one], vectors[two])
    return result


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--pictures", type=int, default=500, help="PBC test pictures")
    parser.add_argument("--encoder", default="starter", help="registry name or file of weights")
    parser.add_argument("--measure-memory", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure_memory:
        folder, side, count = options.measure_memory
        return measure_memory(Path(folder), int(side), int(count))
    wanted = options.only or PARTS
    out = RESULTS / "crops.json"
    results = json.loads(out.read_text(encoding="utf-8")) if options.only and out.is_file() else {}
    acts: dict[str, Callable[[], dict[str, Any]]] = {"speed": speed, "memory": memory, "reading": reading}
    if {"pbc", "interpolation"} & set(wanted):
        cells = central_cells(options.data, options.pictures)
        encoder = load_encoder(options.encoder, device="cpu")
        acts |= {"pbc": partial(pbc, cells, encoder), "interpolation": partial(interpolation, cells, encoder)}
    for name in wanted:
        results[name] = {"command": command(), **acts[name](), "machine": machine()}
        print(name, json.dumps(results[name], indent=1), flush=True)
    out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
