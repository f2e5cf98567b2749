"""The command ``evaluate``: how good an encoder is, by the protocol of the DinoBloom paper or a stricter one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pandas as pd
import typer

from napari_dinobloom.cli.options import AcceptLicence, Device, Precision, load
from napari_dinobloom.console import console, errors, mendable, tell, watch

if TYPE_CHECKING:
    from napari_dinobloom.cells.crop import CropPolicy
    from napari_dinobloom.encoders.encoder import Encoder
    from napari_dinobloom.predict.protocols.cohort import Cohort
    from napari_dinobloom.predict.protocols.result import Evaluation

UNREADABLE_SHOWN = 20
"""Files that could not be read and are printed; all stand in run.json."""


def evaluate(
    pictures: Annotated[
        Path,
        typer.Argument(
            help="Folder of a data set or of class folders, or a CSV with columns file, cell_type, and perhaps split "
            "(train, test) and patient."
        ),
    ],
    encoder: Annotated[str, typer.Option("--encoder", help="Encoder by name, or a file of weights.")] = "starter",
    protocol: Annotated[
        Literal["paper", "strict"],
        typer.Option(help="paper: as the reference code. strict: without near-duplicates, patients whole, many draws."),
    ] = "paper",
    layout: Annotated[
        Literal["auto", "acevedo", "bmc", "hehr", "folders", "table"],
        typer.Option(help="Layout of the data set."),
    ] = "auto",
    lists: Annotated[
        Path | None,
        typer.Option("--lists", help="BMC: folder of bm_train.csv and bm_test.csv, if elsewhere."),
    ] = None,
    crops: Annotated[Literal["context", "published"], typer.Option(help="How pictures are cropped.")] = "published",
    interpolation: Annotated[
        Literal["auto", "bilinear", "bicubic", "lanczos"],
        typer.Option(help="How pictures are resized; auto: bicubic for Acevedo, else bilinear, as the reference."),
    ] = "auto",
    table: Annotated[
        Literal["paper"] | None, typer.Option("--table", help="Print the paper's figures beside the measured ones.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for tables, figure and run.json.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for embeddings and fits, from which a stopped run goes on.")
    ] = None,
    orders: Annotated[int, typer.Option(min=1, help="Draws of the folds (strict).")] = 20,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out pictures that cannot be read, and list them.")
    ] = False,
    device: Device = None,
    precision: Precision = None,
    accept_licence: AcceptLicence = None,
) -> None:
    """Score an encoder on labelled pictures: 1-NN, 20-NN, linear probe; attention model for patients.

    Embeddings and fits are kept as they are computed: a stopped or killed run goes on with the same command.
    """
    with mendable():
        from napari_dinobloom.encoders.library import cache_folder
        from napari_dinobloom.errors import InputError
        from napari_dinobloom.predict.protocols.cohort import iter_embed_cohort
        from napari_dinobloom.predict.protocols.layouts import read_layout
        from napari_dinobloom.predict.protocols.protocol import iter_evaluate
        from napari_dinobloom.predict.protocols.published import published_figures

        if out is not None and out.exists() and not out.is_dir():
            raise InputError(f"{out}: is a file. Name a folder.")
        files = read_layout(pictures, layout, lists=lists)
        if table and files.layout not in set(published_figures()["dataset"]):
            raise InputError(f"{pictures}: the paper has no figures for layout {files.layout!r}. Leave --table out.")
        classes = files.table["label"].nunique()
        console.print(f"{len(files.table)} pictures of {classes} classes, read as {files.layout}")
        # the reference computed in float32; bf16 is for those who ask for it
        with load(encoder, device, precision or "float32", accept_licence) as model:
            policy = _policy(crops, interpolation, files.layout, model)
            place = cache or cache_folder() / "evaluate"
            cohort = watch(iter_embed_cohort(files, model, policy, place, skip_unreadable=skip_unreadable))
            found = watch(iter_evaluate(cohort, protocol, orders=orders, cache=place))
            found, about = _described(found, cohort, model, policy, orders)
    _show(found, cohort, table, about["encoder"]["name"])
    if out is not None:
        with mendable():
            _write(found, out, about)


def _policy(crops: Any, interpolation: Any, layout: str, model: Encoder) -> CropPolicy:
    """How pictures are resized, once, to what the encoder takes."""
    from napari_dinobloom.cells.crop import CropPolicy

    if interpolation == "auto":
        interpolation = "bicubic" if layout == "acevedo" else "bilinear"
    return CropPolicy(kind=crops, interpolation=interpolation, size=model.spec.input_size)


def _described(
    found: Evaluation, cohort: Cohort, model: Encoder, policy: CropPolicy, orders: int
) -> tuple[Evaluation, dict[str, Any]]:
    """Add what has to be known about encoder and crops, and say how the figures came about."""
    from dataclasses import replace

    from napari_dinobloom.predict.protocols.seen import cautions

    notes = cautions(model.name, cohort.files.layout, found.predictions["file"].tolist())
    if policy.kind == "context" and found.protocol == "paper":
        notes.append("Crops are cut around the cell; the paper resized whole pictures.")
    about = {
        "data": {"name": cohort.files.root.name, "layout": cohort.files.layout, "hash": cohort.hash,
                 "pictures": len(cohort.X), "unreadable": list(cohort.unreadable)},
        "encoder": {"name": model.name, "sha256": model.sha256, "dim": int(cohort.X.shape[1]), "key": model.key,
                    "precision": model.precision, "device": model.device, "pooling": model.pooling},
        "crops": policy.to_dict(),
        "orders": orders if found.protocol == "strict" else None,
    }  # fmt: skip
    return replace(found, notes=(*notes, *found.notes)), about


def _show(found: Evaluation, cohort: Cohort, table: str | None, encoder: str) -> None:
    """Print scores, the paper's if they are asked for, and what to know about them."""
    from rich.markup import escape

    from napari_dinobloom.predict.protocols.published import CITATION, NOT_CLAIMED, compare

    spread = f" ± standard deviation over {'folds' if found.protocol == 'paper' else 'draws'}"
    several = bool((found.metrics["runs"] > 1).any())
    console.print(f"Percent: score{spread if several else ''} [95 % interval]", markup=False)
    console.print(_wide(found).to_string(), markup=False)
    if table:
        console.print(f"\n{CITATION}", markup=False)
        shown = compare(found, cohort.files.layout, encoder)
        console.print(shown.round(1).to_string(index=False, na_rep=""), markup=False)
        if cohort.files.layout == "hehr":
            console.print(NOT_CLAIMED)
    for text in cohort.unreadable[:UNREADABLE_SHOWN]:
        errors.print(f"[yellow]Left out:[/] {escape(text)}")
    if len(cohort.unreadable) > UNREADABLE_SHOWN:
        errors.print(f"{len(cohort.unreadable) - UNREADABLE_SHOWN} more are left out; -o lists all in run.json.")
    for note in found.notes:
        console.print(f"- {note}", markup=False)


def _wide(found: Evaluation) -> pd.DataFrame:
    """One row a method, one column a metric."""
    rows = found.metrics
    percent = 100 * rows[["value", "sd", "low", "high"]].to_numpy(float)
    text = []
    for (value, sd, low, high), runs in zip(percent, rows["runs"], strict=True):
        spread = f" ± {sd:.1f}" if runs > 1 else ""
        text.append(f"{value:.1f}{spread} [{low:.1f}, {high:.1f}]" if np.isfinite(value) else "")
    wide = rows.assign(text=text).pivot(index="method", columns="metric", values="text")
    wide = wide.loc[list(found.confusion), list(dict.fromkeys(rows["metric"]))]
    return wide.rename_axis(index=None, columns=None)


def _write(found: Evaluation, folder: Path, about: dict[str, Any]) -> None:
    """Write tables and figures."""
    from napari_dinobloom.predict.protocols.result import write_evaluation
    from napari_dinobloom.report.confusion_figure import draw_confusion

    for path in write_evaluation(found, folder, about):
        tell(path)
    title = f"{about['encoder']['name']} on {about['data']['name']}, protocol {found.protocol}"
    note = f"{len(found.predictions):,} asked about, data {about['data']['hash']}. Research use, not for diagnosis."
    for ending in ("png", "svg"):
        tell(draw_confusion(found.confusion, title, note, folder / f"confusion.{ending}"))


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    for command in (evaluate,):
        app.command()(command)
