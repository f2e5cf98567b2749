"""From `napari` to a gated map of the BCCD fields, and other tasks beside it, here and in other programs.

Run it with ``xvfb-run -a -s "-screen 0 1700x1100x24" python benchmarks/workspace.py [--data ../shared/data] [--peers
FOLDER] [--fields N] [--only SCENE ...]``; writes ``benchmarks/results/workspace.json`` (with ``--only``: those scenes
of it) and the table of ``docs/comparison.md``. Each scene is a process of its own, driven by real clicks (`hand.py`
says what counts as one), so that imports and just-in-time compilation count; the first is killed with ``kill -9``, and
the second opens what it left. FOLDER holds the other programs, which are no part of the environment::

    pip install --no-deps --target FOLDER napari-clusters-plotter biaplotter nap-plot-tools napari-matplotlib
        imagecodecs deprecated wrapt cmap tinycss2 webencodings cellpose fastremap fill-voids pyqtgraph
        opencv-python-headless segment-anything roifile micro-sam bioimage-cpp bioimageio.core python-elf
        segment-anything-py torch-em trackastra kornia kornia-rs xxhash
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import workspace_table
from machine import RESULTS, command, machine

HERE = Path(__file__).parent
KINDS = ("normal", "left_shift", "eosinophilia")
PATIENTS, CELLS = 6, 40
"""Patients of each kind, and cells of each patient, of the study whose groups are predicted."""
OURS = ("gated_map", "after_a_crash", "headless", "one_field", "groups")
PEERS = {
    "clusters_plotter": ("napari-clusters-plotter", "biaplotter"),
    "cellpose_gui": ("cellpose",),
    "micro_sam": ("micro-sam", "segment-anything"),
}


def scene(program: str, name: str, folder: Path, *, path: Path | None = None) -> dict[str, Any]:
    """Run one scene in a process of its own; what it says, and the load that the machine had already."""
    load = os.getloadavg()[0]
    begun = time.time()
    given = [sys.executable, str(HERE / program), name, str(begun), str(folder)]
    ways = [str(path) if path is not None else "", os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(way for way in ways if way),
        "NAPARI_DINOBLOOM_HOME": str(folder / "home"),
        "NAPARI_CONFIG": str(folder / "napari" / "settings.yaml"),
        "HOME": str(folder / "user"),
    }
    (folder / "user" / ".cellpose").mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(given, stdout=subprocess.PIPE, env=environment, cwd=HERE, text=True)
    assert process.stdout is not None
    found: dict[str, Any] = {}
    for line in process.stdout:
        if line.startswith('{"'):  # other programs print, too
            found = json.loads(line)
            break
    if name == "gated_map":
        process.kill()  # what `kill -9` does
    elif process.wait(120):
        raise SystemExit(f"{name} ended with {process.returncode}")
    process.wait()
    if not found:
        raise SystemExit(f"{name} said nothing")
    return {**found, "load before": round(load, 1)}


def headless(folder: Path) -> dict[str, Any]:
    """Run the command line on the same fields, and compare its table with that of the window."""
    given = [sys.executable, "-m", "napari_dinobloom", "run", "images", "-o", "headless.dinobloom"]
    begun = time.perf_counter()
    subprocess.run(given, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    seconds = round(time.perf_counter() - begun, 1)
    ours, theirs = (anndata.read_h5ad(folder / f"{name}.dinobloom" / "cells.h5ad") for name in ("bccd", "headless"))
    touched = set(ours.obs_names[ours.obs["deleted"].to_numpy(bool)]) | (set(ours.obs_names) - set(theirs.obs_names))
    same = [name for name in theirs.obs_names if name not in touched]
    ours, theirs = ours[same], theirs[same]
    measured = theirs.obs.select_dtypes("number").columns
    return {
        "seconds": seconds,
        "cells": theirs.n_obs,
        "touched by hand": len(touched),
        "embeddings that differ": int((np.asarray(ours.X) != np.asarray(theirs.X)).any(axis=1).sum()),
        "spots on the map that differ": int((ours.obsm["X_umap"] != theirs.obsm["X_umap"]).any(axis=1).sum()),
        "classes that differ": int((ours.obs["predicted"].astype(str) != theirs.obs["predicted"].astype(str)).sum()),
        "measurements that differ": int(
            sum(not ours.obs[name].equals(theirs.obs[name]) for name in measured if name in ours.obs)
        ),
    }


def patients(data: Path, folder: Path) -> None:
    """A study of made-up patients, by the command line, and their groups; this is not timed."""
    bags = pd.read_csv(data / "bags.csv")
    rows, taken = [], set()
    for kind in KINDS:
        of_kind = bags[bags["diagnosis"] == kind]
        for patient in of_kind["patient"].unique()[:PATIENTS]:
            place = folder / "pictures" / str(patient)
            place.mkdir(parents=True)
            files = [file for file in of_kind.loc[of_kind["patient"] == patient, "file"] if file not in taken][:CELLS]
            taken |= set(files)  # a picture of two patients would be counted once
            for file in files:
                shutil.copy(data / file, place)
            rows.append({"patient": patient, "group": kind})
    pd.DataFrame(rows).to_csv(folder / "groups.csv", index=False)
    given = [sys.executable, "-m", "napari_dinobloom", "run", "pictures", "-o", "patients.dinobloom", "--cells"]
    given += ["--slide-from", "folder", "--patient-from", "folder"]
    subprocess.run(given, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def for_peers(folder: Path) -> None:
    """Embeddings and places of the cells, as the other programs need them."""
    cells = anndata.read_h5ad(folder / "headless.dinobloom" / "cells.h5ad")
    np.save(folder / "embeddings.npy", np.asarray(cells.X, np.float32))
    np.save(folder / "places.npy", np.asarray(cells.obsm["spatial"], float)[:, ::-1])


def versions(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Versions of packages in a folder."""
    known = {
        str(one.metadata["Name"]).lower().replace("_", "-"): one.version
        for one in metadata.distributions(path=[str(path)])
    }
    return {name: known.get(name, "not there") for name in names}


def keep(name: str, found: dict[str, Any]) -> None:
    """Write what a scene found beside that of the others, and the table of the page."""
    path = RESULTS / "workspace.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    about = {"napari": metadata.version("napari"), "machine": machine(), "command": command()}
    path.write_text(json.dumps({**known, **about, name: found}, indent=1) + "\n", encoding="utf-8")
    workspace_table.main()
    json.dump({name: found}, sys.stdout, indent=1)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--fields", type=int, default=0, help="take so many of the fields; all by default")
    parser.add_argument("--only", nargs="+", default=[*OURS, *PEERS], choices=[*OURS, *PEERS])
    options = parser.parse_args()
    data, wanted = options.data.resolve(), options.only
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place)
        (folder / "images").mkdir()
        fields = sorted((data / "bccd" / "images").iterdir())
        for field in fields[: options.fields or None]:
            shutil.copy(field, folder / "images")
        shutil.copy(fields[1], folder / "field.jpg")
        if {"gated_map", "after_a_crash", "headless", "clusters_plotter"} & set(wanted):
            keep("gated_map", scene("workspace_ours.py", "gated_map", folder))
            keep("after_a_crash", scene("workspace_ours.py", "after_a_crash", folder))
            keep("headless", headless(folder))
            for_peers(folder)
        if "one_field" in wanted:
            keep("one_field", scene("workspace_ours.py", "one_field", folder))
        if "groups" in wanted:
            patients(data, folder)
            keep("groups", scene("workspace_ours.py", "groups", folder))
        for name, packages in PEERS.items():
            if name in wanted and options.peers is not None:
                peers = options.peers.resolve()
                found = scene("workspace_peers.py", name, folder, path=peers)
                keep(name, found | {"versions": versions(peers, packages)})


if __name__ == "__main__":
    main()
