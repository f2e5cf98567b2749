"""What a run shared by processes costs and gains, and whether lost workers change its tables.

Run it with ``python benchmarks/scale.py [--only NAME ...] [--data ../shared/data]``; each part writes its own entry of
``benchmarks/results/scale.json``. The parts:

speedup
    Segmenting and embedding by 2 workers of one thread, by 1, and by a plain pool of 2 processes; all warm.
overhead
    1,000 tasks of 50 ms by 2 workers: what is lost between them.
memory
    Of a worker that goes from 10^4 to 10^6 cells: it has loaded the bundled encoder and embedded 16 crops with it,
    reads crops, writes blocks of embeddings and answers as always, but a stand-in gives the vectors, so that it ends.
merging
    Memory per cell of the process that puts embeddings into the table.
kills
    Five kills of random workers at random moments of a run over real fields; exit code 1 if a table differs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine import RESULTS, command, machine
from PIL import Image

from napari_dinobloom.io.crops import CropFiles
from napari_dinobloom.io.embeddings import EmbeddingSet, write_block
from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import embed, run, segment
from napari_dinobloom.pipeline.cluster import units
from napari_dinobloom.pipeline.cluster.options import ClusterOptions
from napari_dinobloom.pipeline.cluster.spread import Spread
from napari_dinobloom.pipeline.cluster.start import local_cluster
from napari_dinobloom.pipeline.crops import FILE, stored_keys
from napari_dinobloom.pipeline.driver import iter_outcome
from napari_dinobloom.pipeline.field_cells import FieldJob, leave_cells
from napari_dinobloom.pipeline.settings import resolve

ROUNDS = 3
DIM = 384


@contextmanager
def workers(count: int, study: Path) -> Iterator[Spread]:
    """Processes of this machine that know where to work."""
    with Spread(ClusterOptions(workers=count)) as spread:
        spread.begin(study)
        yield spread


def drawn(folder: Path, count: int) -> Path:
    """Folder of generated fields."""
    folder.mkdir(parents=True)
    for i in range(count):
        smear = generate_smear(i, height=600, width=720, n_white=8, pixel_size_um=0.12)
        Image.fromarray(np.asarray(smear.image)).save(folder / f"{i:03d}.png")
    return folder


# speedup


def field_jobs(study: Study, scratch: Path) -> list[FieldJob]:
    """Jobs of all fields."""
    settings = resolve(study.settings, {})
    fields = segment.usable(study)
    chosen = segment._segmenters(study, fields, settings)
    jobs = []
    for record in fields:
        finder = chosen[record.id]
        key = segment.field_key(record, settings, finder)
        jobs.append(FieldJob(record, study.locate(record), settings, finder, key, scratch / record.id))
    return jobs


def unit_jobs(study: Study, folder: Path, rows: int) -> list[units.UnitJob]:
    """Jobs of all crops, units of `rows`."""
    settings = replace(resolve(study.settings, {}), device="cpu", precision="float32")
    keys = stored_keys(study)
    facts, _ = units.describe(settings)
    parts = np.split(np.arange(len(keys)), range(rows, len(keys), rows))
    return [
        units.UnitJob(
            study.path / FILE, part, keys[part], None, folder, {"key": "bench"}, facts["encoder_key"], settings
        )
        for part in parts
    ]


def job(item: FieldJob | units.UnitJob) -> None:
    """Do either."""
    if isinstance(item, FieldJob):
        leave_cells(item)
    else:
        units.embed_unit(item)


def timed(act: Callable[[Sequence[Any]], Any], jobs: Callable[[], list[Any]]) -> float:
    """Seconds that fresh jobs take."""
    fresh = jobs()
    started = time.perf_counter()
    act(fresh)
    return time.perf_counter() - started


def speedup(_: argparse.Namespace) -> dict[str, Any]:
    """Rates of 1 and 2 workers and of a plain pool of 2, interleaved."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        study = run(drawn(place / "images", 40), place / "s.dinobloom", until="crop")
        number = iter(range(10**6))

        def fields() -> list[Any]:
            return field_jobs(study, place / f"scratch{next(number)}")

        def cells() -> list[Any]:
            return unit_jobs(study, place / f"blocks{next(number)}", 16)

        seconds: dict[str, dict[str, list[float]]] = {}
        with (
            workers(1, study.path) as one,
            workers(2, study.path) as two,
            ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool,
        ):
            ways: dict[str, Callable[[Sequence[Any]], Any]] = {
                "one worker": lambda jobs: list(one.map(job, jobs)),
                "two workers": lambda jobs: list(two.map(job, jobs)),
                "pool of two": lambda jobs: list(pool.map(job, jobs)),
            }
            for rounds in range(ROUNDS + 1):
                for name, act in ways.items():
                    for part, jobs in (("segment", fields), ("embed", cells)):
                        took = timed(act, jobs)
                        if rounds:  # the first loads networks
                            seconds.setdefault(name, {}).setdefault(part, []).append(took)
    middle = {name: sum(statistics.median(times) for times in parts.values()) for name, parts in seconds.items()}
    return {
        "fields": 40,
        "cells": int(study.cells.n_obs),
        "seconds": {n: {p: [round(t, 2) for t in ts] for p, ts in parts.items()} for n, parts in seconds.items()},
        "two_workers_over_one": round(middle["one worker"] / middle["two workers"], 2),
        "two_workers_over_pool_of_two": round(middle["pool of two"] / middle["two workers"], 3),
    }


# overhead


def nap(_: int) -> None:
    """Take 50 ms."""
    time.sleep(0.05)


def overhead(_: argparse.Namespace) -> dict[str, Any]:
    """What 1,000 tasks of 50 ms take beyond their own time."""
    found = []
    with tempfile.TemporaryDirectory() as folder, workers(2, Path(folder)) as two:
        list(two.map(nap, range(8)))
        for _ in range(ROUNDS):
            started = time.perf_counter()
            list(two.map(nap, range(1000)))
            found.append((time.perf_counter() - started) * 2 / (1000 * 0.05) - 1)
    return {"tasks": 1000, "of_s": 0.05, "workers": 2, "share": [round(f, 4) for f in found]}


# memory


class StandIn:
    """In the place of an encoder: reads all crops as one does, in blocks of 16, and gives a vector of each."""

    key, dim = "stand-in", DIM

    def embed(self, crops: Any) -> np.ndarray:
        """Mean colour of each crop, repeated."""
        out = np.empty((len(crops), DIM), np.float32)
        for start in range(0, len(crops), 16):
            out[start : start + 16] = crops[start : start + 16].mean(axis=(1, 2, 3))[:, None]
        return out


def embed_stand_in(item: units.UnitJob) -> None:
    """`units.embed_unit` with a network that is there but computes nothing after its first 16 crops."""
    if not hasattr(units, "real"):
        units.real = units._encoder(item.settings)
        units.real.embed(np.zeros((16, 224, 224, 3), np.uint8))
        units._encoder = lambda settings: StandIn()
    units.embed_unit(item)


def resident() -> int:
    """Bytes of this process that lie in memory."""
    return int(psutil.Process().memory_info().rss)


def peak() -> float:
    """Most memory in MiB that this process has had since it began (of Linux; `getrusage` counts its parent's too)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Memory of a worker by the cells it has done."""
    most = options.cells
    counts = [n for n in (10_000, 100_000, 1_000_000) if n <= most]
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        place = Path(folder)
        CropFiles.create(place / FILE, most)  # no file of it is there, so that it reads as black and takes no room
        keys = np.arange(1, most + 1, dtype=np.uint64)
        settings = resolve({}, {})
        seen: dict[str, float] = {}
        with workers(1, place) as one:
            done = 0
            for count in counts:
                rows = np.arange(done, count)
                parts = np.split(rows, range(units.UNIT, len(rows), units.UNIT))
                store, blocks = place / FILE, place / "blocks"
                jobs = [
                    units.UnitJob(store, part, keys[part], None, blocks, {"key": "k"}, "stand-in", settings)
                    for part in parts
                ]
                for _, answer in one.map(embed_stand_in, jobs):
                    assert answer is None, answer
                [now] = one.client.run(resident).values()
                seen[str(count)] = round(now / 2**20, 1)
                done = count
    least, largest = seen[str(counts[0])], seen[str(counts[-1])]
    return {
        "stand_in_for_the_network": True,
        "worker_MiB_after_cells": seen,
        "worker_growth": round(largest / least - 1, 4),
    }


def merging(options: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of the merging process by the cells of the table."""
    chance = np.random.default_rng(0)
    counts = [n for n in (10_000, 100_000, 1_000_000) if n <= options.cells]
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        place = Path(folder)
        for start in range(0, counts[-1], units.UNIT):
            keys = np.arange(start + 1, min(start + units.UNIT, counts[-1]) + 1, dtype=np.uint64)
            values = chance.standard_normal((len(keys), DIM), np.float32)
            write_block(place / "blocks", {"key": "k"}, f"{start:09d}", keys, values)
        merged = {str(count): round(_merge(place, count), 1) for count in counts}
    rise = (merged[str(counts[-1])] - merged[str(counts[0])]) * 2**20
    return {
        "peak_MiB_of_cells": merged,
        "bytes_per_cell": round(rise / (counts[-1] - counts[0])),
        "of_them_embedding_bytes": 4 * DIM,
    }


def _merge(place: Path, count: int) -> float:
    """Peak memory in MiB of a process that puts embeddings into the table."""
    call = [sys.executable, __file__, "--merge", str(place), "--cells", str(count)]
    return float(subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()[-1])


def merge(place: Path, count: int) -> None:
    """What `iter_embed_study` does once the workers are done."""
    import pandas as pd
    from anndata import AnnData

    with tempfile.TemporaryDirectory(dir=place) as folder:
        study = Study.create(Path(folder) / "s.dinobloom")
        ids = [f"field{i // 1000:05d}:{i % 1000 + 1:05d}" for i in range(count)]
        obs = pd.DataFrame({"cell_id": ids, "field": [i[:10] for i in ids], "slide": "a", "patient": "a"}, index=ids)
        table = AnnData(obs=obs)
        table.obsm["spatial"] = np.zeros((count, 2), np.float32)
        study.save_cells(table)
        values = EmbeddingSet(place / "blocks", {"key": "k"}, DIM).read(np.arange(1, count + 1, dtype=np.uint64))
        study.save_cells(embed._table(study.cells, values, {"encoder": "stand-in"}))
        study.close()
    print(peak())


# kills


def differences(one: Path, two: Path) -> list[str]:
    """Columns and arrays in which two tables differ, their rows sorted."""
    with Study.open(one, read_only=True) as first, Study.open(two, read_only=True) as second:
        a, b = (s.cells[np.argsort(s.cells.obs_names)] for s in (first, second))
        found = [] if a.obs_names.equals(b.obs_names) else ["cells"]
        found += [name for name in a.obs if not a.obs[name].equals(b.obs[name])]
        return found + ([] if np.array_equal(a.X, b.X) else ["X"])


def kills(options: argparse.Namespace) -> dict[str, Any]:
    """Kill a random worker five times during a run; compare its tables with those of one process."""
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        images = place / "images"
        images.mkdir()
        for path in sorted((options.data / "bccd" / "images").glob("*.jpg"))[: options.fields]:
            shutil.copy(path, images)
        run(images, place / "calm.dinobloom", until="embed")
        units.UNIT = 2  # so that there are many
        with local_cluster(ClusterOptions(workers=2)) as cluster:
            steps = iter_outcome(images, place / "torn.dinobloom", until="embed", scheduler=cluster.scheduler_address)
            moments = sorted(chance.sample(range(1, options.fields), 3))
            later = sorted(chance.sample(range(1, 6), 2))
            at, embedded = [], 0
            for report in steps:
                embedded += report.step == "embed" and report.done > 0
                due = report.step == "segment" and moments and report.done >= moments[0]
                if due or (report.step == "embed" and later and embedded >= later[0]):
                    (moments if due else later).pop(0)
                    worker = chance.choice(list(cluster.workers.values()))
                    at.append(f"{report.step} {report.done} of {report.total}")
                    if worker.pid:
                        psutil.Process(worker.pid).kill()
        differ = differences(place / "calm.dinobloom", place / "torn.dinobloom")
        with Study.open(place / "calm.dinobloom", read_only=True) as study:
            cells = study.cells.n_obs
    return {"fields": options.fields, "cells": cells, "killed_at": at, "differ": differ}


PARTS = {"speedup": speedup, "overhead": overhead, "memory": memory, "merging": merging, "kills": kills}


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=PARTS, default=[])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--scratch", type=Path, help="Folder with room for 2 GB of embeddings.")
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--fields", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--merge", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.merge:
        merge(options.merge, options.cells)
        return
    path = RESULTS / "scale.json"
    for name in options.only or PARTS:
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        result = PARTS[name](options)
        about = {"machine": machine(), "load_average_before": load, "command": command()}
        results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps(results | {name: about | result}, indent=1) + "\n", encoding="utf-8")
        print(json.dumps({name: result}, indent=1))
        if result.get("differ"):
            sys.exit(1)


if __name__ == "__main__":
    main()
