"""The commands ``atlas``: reference cells, made and looked into."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from napari_dinobloom.cli.options import AcceptLicence, Device, Precision, load
from napari_dinobloom.console import console, mendable, tell, watch

atlas_app = typer.Typer(help="Reference atlases: labelled cells that new ones are compared with.", no_args_is_help=True)


@atlas_app.command("build")
def atlas_build(
    pictures: Annotated[Path, typer.Argument(help="CSV (file, cell_type[, split]) or a folder of class folders.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Atlas file, NAME.safetensors.")],
    split: Annotated[str | None, typer.Option(help="Take only rows of this split.")] = None,
    encoder: Annotated[str, typer.Option("--encoder", help="Encoder by name, or a file of weights.")] = "starter",
    crops: Annotated[Literal["context", "published"], typer.Option(help="How pictures are cropped.")] = "context",
    fov_um: Annotated[float, typer.Option(help="Side of the square around a cell, micrometres.")] = 25.0,
    name: Annotated[str | None, typer.Option(help="Name for people; else the file's.")] = None,
    origin: Annotated[str, typer.Option(help="Data set, citation and licence, kept in the atlas.")] = "",
    device: Device = None,
    precision: Precision = None,
    accept_licence: AcceptLicence = None,
) -> None:
    """Make an atlas of labelled pictures, which go through the same segmentation and crop as a smear."""
    with mendable():
        from napari_dinobloom.cells.crop import CropPolicy
        from napari_dinobloom.encoders.library import identify
        from napari_dinobloom.encoders.splits import held_out
        from napari_dinobloom.predict.atlas_build import iter_build_atlas
        from napari_dinobloom.predict.pictures import read_labelled

        policy, info = CropPolicy(kind=crops, fov_um=fov_um), {"origin": origin} if origin else {}
        with load(encoder, device, precision, accept_licence) as model:
            rule: Any = held_out if model.sha256 == identify("starter") else True
            found = read_labelled(pictures, split=split, held_out=rule)
            atlas = watch(iter_build_atlas(found, model, policy, name=name or out.stem, info=info))
        tell(atlas.save(out))
        console.print(_about(atlas))


@atlas_app.command("info")
def atlas_info(path: Annotated[str, typer.Argument(help="Atlas file, or starter / starter-published.")]) -> None:
    """Say what an atlas holds."""
    with mendable():
        from napari_dinobloom.predict.atlas import Atlas

        bundled = {"starter": "context", "starter-context": "context", "starter-published": "published"}
        atlas = Atlas.bundled("starter", bundled[path]) if path in bundled else Atlas.load(path)
        console.print(_about(atlas))


@atlas_app.command("list")
def atlas_list() -> None:
    """List the atlases that come with the package."""
    with mendable():
        from napari_dinobloom.predict.atlas import Atlas

        for kind in ("context", "published"):
            atlas = Atlas.bundled("starter", kind)
            console.print(
                f"{atlas.name}: {len(atlas)} cells, {len(atlas.classes)} classes, {kind} crops, {atlas.hash[:8]}"
            )


def _about(atlas: Any) -> str:
    """Describe an atlas in lines of text."""
    import json

    from napari_dinobloom.pipeline.results import atlas_facts

    return json.dumps(atlas_facts(atlas), indent=1, default=str)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    app.add_typer(atlas_app, name="atlas")
