"""The command that trains an encoder: what `python -m napari_dinobloom.training` does, beside the other commands."""

from __future__ import annotations

from typing import Annotated

import typer


def train(
    settings: Annotated[
        list[str] | None, typer.Argument(help="Any key of the configuration, as in batch.total=512 run.out=FOLDER.")
    ] = None,
    config: Annotated[str, typer.Option(help="Name of a preset, or a YAML file.")] = "dinobloom-paper",
    dry_run: Annotated[
        int | None, typer.Option(min=1, metavar="PROCESSES", help="Only print what it takes on so many cards.")
    ] = None,
) -> None:
    """Fine-tune an encoder as DinoBloom was: DINOv2 on pictures of white cells.

    On several cards: torchrun --nproc-per-node 8 -m napari_dinobloom.training --config ...
    """
    from napari_dinobloom.training.__main__ import main

    cards = [] if dry_run is None else ["--dry-run", str(dry_run)]
    raise typer.Exit(main(["--config", config, *cards, *(settings or [])]))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(train)
