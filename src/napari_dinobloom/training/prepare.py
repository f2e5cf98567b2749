"""From source pictures of any size to a store: decoded, resized to 224 x 224, written shard by shard.

A shard holds a fixed range of the manifest and is renamed into place when it is whole, then its record ``.json``: a
run that was killed goes on with the next shard and ends with the same bytes. ``python -m
napari_dinobloom.training.prepare`` is the command.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import pandas as pd

from napari_dinobloom.encoders.splits import held_out
from napari_dinobloom.errors import DinoBloomError, InputError
from napari_dinobloom.io import lock
from napari_dinobloom.io.atomic import disk_errors, sweep, write_text
from napari_dinobloom.io.datasets import DATASETS
from napari_dinobloom.io.tables import write_csv
from napari_dinobloom.io.tensors import write_tensors
from napari_dinobloom.progress import Progress, Steps, drain
from napari_dinobloom.training.datasets import read_dataset
from napari_dinobloom.training.manifest import Row, read_manifest
from napari_dinobloom.training.shards import PrepareConfig, in_order, ranges, write_shard
from napari_dinobloom.training.store import ARRAYS, INDEX, KIND, SIDE, Store, verify

VERSION = 1

_LOOKED_AT = 200


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `prepare` did.

    Attributes
    ----------
    store : Store
        The finished store.
    left_out : list of (Row, str)
        Pictures that are not in it, and why; also in ``unreadable.csv``.
    """

    store: Store
    left_out: list[tuple[Row, str]]


def prepare(
    rows: Sequence[Row],
    folder: Path,
    config: PrepareConfig | None = None,
    *,
    apart: Sequence[Row] = (),
    workers: int = 0,
) -> Prepared:
    """Make a store; see `iter_prepare`."""
    return drain(iter_prepare(rows, folder, config, apart=apart, workers=workers))


def iter_prepare(
    rows: Sequence[Row],
    folder: Path,
    config: PrepareConfig | None = None,
    *,
    apart: Sequence[Row] = (),
    workers: int = 0,
) -> Steps[Prepared]:
    """Make a store, or go on with one; yields the progress.

    Parameters
    ----------
    rows : sequence of Row
        Pictures. A file that is missing or cannot be used, or has the same bytes as one before, is left out and listed.
    folder : Path
        For the store; made if it does not exist.
    config : PrepareConfig, optional
        How.
    apart : sequence of Row, optional
        Pictures that must not be trained on: a file of `rows` with the same bytes as one of them is left out, and
        listed.
    workers : int, default: 0
        Threads that decode and resize; 0 takes one per processor. The result does not depend on it.

    Returns
    -------
    Prepared
        The store and what is not in it. Beside the index lie ``pictures.csv``, a manifest with a line for each stored
        picture, and ``unreadable.csv``.

    Raises
    ------
    InputError
        If no picture is given or none can be used, the folder holds another store, or a field has more cells than its
        shard has room for.
    StudyHeldError
        If the folder is being written.
    StudyError
        If the disk is full or may not be written; finished shards stay.
    """
    config = config or PrepareConfig()
    places = {name: number for number, name in reversed(list(enumerate(row.dataset for row in rows)))}
    rows = sorted(rows, key=lambda row: places[row.dataset])  # a data set's rows lie together, in their order
    _check_there(rows)
    key = _key(rows, config, apart)
    held = lock.hold(folder, "is being written by {holder}. Wait for it, or choose another folder.")
    try:
        with disk_errors(folder):
            sweep(folder)
            _check_ours(folder, key)
            records = yield from _shards(rows, folder, config, key, workers or os.cpu_count() or 1)
            return _finish(rows, folder, config, key, records, apart)
    finally:
        held.release()


def _check_there(rows: Sequence[Row]) -> None:
    """Look at some of the files before any work, as a wrong root makes all of them missing."""
    if not rows:
        raise InputError("No picture is given. Name a manifest or a data set, and check the split.")
    some = [rows[number] for number in np.linspace(0, len(rows) - 1, min(len(rows), _LOOKED_AT)).astype(int)]
    if not any(row.path.is_file() for row in some):
        raise InputError(f"{some[0].path}: there is no such file, nor are {len(some) - 1} others of the {len(rows)} "
                         "that were looked at. Relative paths count from the manifest's folder.")  # fmt: skip


def _key(rows: Sequence[Row], config: PrepareConfig, apart: Sequence[Row]) -> str:
    """Hash of all that a store depends on but the content of the files."""
    given = [VERSION, asdict(config), [[str(r.path), r.dataset, r.label, r.patient, r.split] for r in rows]]
    if apart:
        given.append([str(row.path) for row in apart])
    return hashlib.sha256(json.dumps(given).encode()).hexdigest()


def _check_ours(folder: Path, key: str) -> None:
    """Refuse a folder that holds another store, finished or not."""
    first = folder / "shard-00000.json"
    try:
        same = not first.exists() or json.loads(first.read_text(encoding="utf-8"))["key"] == key
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{first}: is damaged ({error}). Delete the folder or choose another one.") from error
    if not same:
        raise InputError(f"{folder}: holds a store of other pictures or settings. Delete it or choose another folder.")


def _shards(
    rows: Sequence[Row], folder: Path, config: PrepareConfig, key: str, workers: int
) -> Generator[Progress, None, list[dict[str, Any]]]:
    """Write the shards that are not there yet; return the records of all."""
    pool, records = ThreadPoolExecutor(workers), []
    try:
        for number, (start, stop) in enumerate(ranges(rows, config)):
            record = folder / f"shard-{number:05}.json"
            if not record.exists():
                path = record.with_suffix("." + config.format)
                made = in_order(pool, rows[start:stop], config, 8 * workers)
                content = yield from write_shard(path, made, config, start, len(rows))
                write_text(record, json.dumps({"key": key, "name": path.name, **content}) + "\n")
            records.append(json.loads(record.read_text(encoding="utf-8")))
            yield Progress(stop, len(rows), record.stem, "prepare")
    finally:
        pool.shutdown(cancel_futures=True)
    return records


def _finish(
    rows: Sequence[Row],
    folder: Path,
    config: PrepareConfig,
    key: str,
    records: Sequence[dict[str, Any]],
    apart: Sequence[Row],
) -> Prepared:
    """Write the tables and, last, the index. Of files with the same bytes the first counts."""
    kept = _digests(apart)
    first: dict[str, int] = {}
    left_out = [(rows[number], why) for record in records for number, why in record["problems"]]
    live: list[tuple[int, int, int, int, str]] = []
    for shard, record in enumerate(records):
        for number, digest, start, length in record["pictures"]:
            if first.setdefault(digest, number) == number and digest not in kept:
                live.append((shard, number, start, length, digest))
    twins = {number: first[digest] for record in records for number, digest, *_ in record["pictures"]}
    left_out += [(rows[i], f"has the same bytes as {rows[j].path}") for i, j in sorted(twins.items()) if i != j]
    asked = {number: kept[digest] for digest, number in first.items() if digest in kept}
    left_out += [(rows[i], f"has the same bytes as {p}, which is kept apart") for i, p in sorted(asked.items())]
    lines = [(str(row.path), row.dataset, why) for row, why in left_out]
    write_csv(folder / "unreadable.csv", pd.DataFrame(lines, columns=["file", "dataset", "reason"]), note=False)
    if not live:
        raise InputError(f"{folder / 'unreadable.csv'}: none of {len(rows)} pictures can be used; it says why.")
    about = {
        "key": key,
        "format": config.format,
        "kernel": config.kernel,
        "side": SIDE,
        "cut_fields": list(config.cut_fields),
        "shards": [{name: record[name] for name in ("name", "bytes", "sha256")} for record in records],
    }
    _write_index(folder, [rows[number] for _, number, *_ in live], live, about)
    return Prepared(Store.open(folder), left_out)


def _digests(rows: Sequence[Row]) -> dict[str, Path]:
    """Files by the SHA-256 of their bytes; those that cannot be read are nobody's twin."""
    found = {}
    for row in rows:
        with suppress(OSError):
            found[hashlib.sha256(row.path.read_bytes()).hexdigest()] = row.path
    return found


def _write_index(
    folder: Path, used: Sequence[Row], live: Sequence[tuple[int, int, int, int, str]], about: dict[str, Any]
) -> None:
    """Write ``pictures.csv`` and the index; `live` holds shard, row of the manifest, start, length, SHA-256."""
    shard, _, start, length, digests = zip(*live, strict=True)
    files = {"file": [str(row.path) for row in used], "dataset": [row.dataset for row in used]}
    said = {"class": [r.label for r in used], "patient": [r.patient for r in used], "split": [r.split for r in used]}
    write_csv(folder / "pictures.csv", pd.DataFrame(files | said | {"sha256": digests}), note=False)
    names = {name: number for number, name in enumerate(dict.fromkeys(files["dataset"]))}
    classes = {name: number for number, name in enumerate(sorted({*said["class"]} - {""}))}
    columns = {
        "shard": shard,
        "start": start,
        "length": length,
        "dataset": [names[name] for name in files["dataset"]],
        "label": [classes.get(name, -1) for name in said["class"]],
        "sha256": np.frombuffer(bytes.fromhex("".join(digests)), np.uint8).reshape(-1, 32),
    }
    arrays = {name: np.asarray(columns[name], ARRAYS[name]) for name in ARRAYS}
    write_tensors(folder / INDEX, arrays, KIND, {**about, "names": list(names), "classes": list(classes)})


def main(arguments: list[str] | None = None) -> int:
    """Make or check a store from the command line; return 0, or 1 if pictures were left out, or 2 for an error."""
    from rich.console import Console

    options = _parser().parse_args(arguments)
    console = Console(stderr=True, soft_wrap=True)
    try:
        if options.verify:
            problems = verify(options.store)
            console.print(
                "\n".join(problems) or f"{options.store}: {len(Store.open(options.store)):,} pictures, sound."
            )
            return 2 if problems else 0
        cut = options.cut_fields
        if cut == []:
            cut = [name for name, data in DATASETS.items() if data.fields]
        config = PrepareConfig(
            format=options.format, kernel=options.kernel, quality=options.quality, cut_fields=tuple(cut or ())
        )
        rows, apart = _asked(options)
        steps = iter_prepare(rows, options.store, config, apart=apart, workers=options.workers)
        result = _watched(steps, console)
    except DinoBloomError as error:
        console.print(f"Error: {error}", markup=False)
        return 2
    for name, size in zip(result.store.names, result.store.sizes, strict=True):
        console.print(f"{name}: {size:,} pictures", markup=False)
    reasons = (shorten(why.split(" as ")[0], 90, placeholder=" ...") for _, why in result.left_out)
    for reason, count in Counter(reasons).most_common(8):
        console.print(f"left out, {count:,}: {reason}", markup=False)
    if options.keep_apart:
        count = sum(options.split in (row.split, "all") for row in apart)
        console.print(f"kept apart, {count:,}: not in the store, so that a training can be measured on them")
    if result.left_out:
        console.print(f"All that were left out: {options.store / 'unreadable.csv'}", markup=False)
    return 1 if result.left_out else 0


def _parser() -> argparse.ArgumentParser:
    """Options of the command."""
    parser = argparse.ArgumentParser(prog="python -m napari_dinobloom.training.prepare", description=__doc__)
    parser.add_argument("store", type=Path, help="folder for the store")
    parser.add_argument("--manifest", type=Path, action="append", default=[], help="CSV, .txt list or folder of lists")
    parser.add_argument("--dataset", action="append", default=[], metavar="NAME=FOLDER", help=", ".join(DATASETS))
    parser.add_argument("--split", default="train", help="which rows (default: train); 'all' takes every one")
    parser.add_argument(
        "--keep-apart", action="store_true", help="leave out the 15 in 100 that evaluation.labelled=MANIFEST asks about"
    )
    parser.add_argument("--cut-fields", nargs="*", metavar="NAME", help="cut the fields of these data sets into cells")
    parser.add_argument("--format", choices=("raw", "jpeg"), default="raw")
    parser.add_argument("--quality", type=int, default=85, help="of JPEGs")
    parser.add_argument("--kernel", choices=("lanczos", "bicubic", "bilinear"), default="lanczos")
    parser.add_argument("--workers", type=int, default=0, help="threads (default: one per processor)")
    parser.add_argument("--verify", action="store_true", help="check a finished store and make none")
    return parser


def _asked(options: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    """Rows of the manifests and data sets that were named, of one split; and of any split those that are kept apart."""
    rows = [row for path in options.manifest for row in read_manifest(path)]
    for text in options.dataset:
        name, equals, folder = text.partition("=")
        if not equals:
            raise InputError(f"--dataset {text}: write NAME=FOLDER, for example bmc=/data/BM_cytomorphology_data.")
        rows += read_dataset(name, folder)
    kept = [row for row in rows if options.split in (row.split, "all")]
    if rows and not kept:
        raise InputError(f"--split {options.split}: no picture has it; there are {', '.join({r.split for r in rows})}.")
    unknown = set(options.cut_fields or ()) - {row.dataset for row in rows}
    if unknown:
        raise InputError(f"--cut-fields {sorted(unknown)[0]}: no picture is of this data set.")
    if not options.keep_apart:
        return kept, []
    return [row for row in kept if not held_out(row.name)], [row for row in rows if held_out(row.name)]


def _watched(steps: Steps[Prepared], console: Any) -> Prepared:
    """Run to the end with a progress bar."""
    from rich.progress import Progress as Bars

    with Bars(console=console) as bars:
        task = bars.add_task("prepare", total=None)
        while True:
            try:
                report = next(steps)
            except StopIteration as end:
                result: Prepared = end.value
                return result
            bars.update(task, completed=report.done, total=report.total, description=report.message)


if __name__ == "__main__":
    sys.exit(main())
