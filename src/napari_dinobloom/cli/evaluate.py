"""The command ``evaluate``: how good an encoder is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from napari_dinobloom.cli.options import AcceptLicence, Device, Precision, load
from napari_dinobloom.console import console, mendable, watch


def evaluate(
    table: Annotated[Path, typer.Argument(help="CSV with columns file, cell_type, split (train, test).")],
    encoder: Annotated[str, typer.Option("--encoder", help="Encoder by name, or a file of weights.")] = "starter",
    crops: Annotated[Literal["context", "published"], typer.Option(help="How pictures are cropped.")] = "published",
    device: Device = None,
    precision: Precision = None,
    accept_licence: AcceptLicence = None,
) -> None:
    """Score an encoder on labelled pictures: 1-NN, 20-NN and linear probe, train against test."""
    with mendable():
        from napari_dinobloom.cells.crop import CropPolicy
        from napari_dinobloom.predict.evaluation import evaluate_embeddings
        from napari_dinobloom.predict.pictures import iter_embed_pictures, read_labelled

        policy = CropPolicy(kind=crops)
        with load(encoder, device, precision, accept_licence) as model:
            train = watch(iter_embed_pictures(read_labelled(table, split="train"), model, policy))
            test = watch(iter_embed_pictures(read_labelled(table, split="test"), model, policy))
        console.print(evaluate_embeddings(train.X, train.y, test.X, test.y).round(3).to_string())


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    for command in (evaluate,):
        app.command()(command)
