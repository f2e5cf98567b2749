"""The commands ``atlas``: reference cells and probes, made, put together and looked into."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_dinobloom.cli.options import AcceptLicence, Device, Precision, load
from napari_dinobloom.console import console, errors, mendable, tell, watch
from napari_dinobloom.errors import InputError

if TYPE_CHECKING:
    from napari_dinobloom.predict.atlas import Atlas
    from napari_dinobloom.predict.classifier import CellClassifier
    from napari_dinobloom.predict.probe import Probe

atlas_app = typer.Typer(help="Reference atlases: labelled cells that new ones are compared with.", no_args_is_help=True)

Labelled = Annotated[
    list[Path], typer.Argument(help="CSV (file, cell_type[, split]), folder of class folders, or studies.")
]
OutFile = Annotated[Path, typer.Option("--out", "-o", help="File, NAME.safetensors.")]
Split = Annotated[str | None, typer.Option(help="Take only rows of this split.")]
Encoder = Annotated[
    str, typer.Option("--encoder", help="Of pictures: encoder by name, or a file of weights. Studies have theirs.")
]
Crops = Annotated[Literal["context", "published"], typer.Option(help="How pictures are cropped; studies have theirs.")]
Fov = Annotated[float, typer.Option(help="Side of the square around a cell of a picture, micrometres.")]
Name = Annotated[str | None, typer.Option(help="Name for people; else the file's.")]
Origin = Annotated[str, typer.Option(help="Data set, citation and licence, kept in the file. No names of patients.")]
Pictures = Annotated[bool, typer.Option("--thumbnails", help="Keep a picture of 96 pixels of each cell.")]
K = Annotated[int, typer.Option("--k", min=1, help="Reference cells that vote on a cell.")]
Metric = Annotated[Literal["euclidean", "cosine"], typer.Option(help="Distance between cells.")]
Weights = Annotated[Literal["uniform", "distance"], typer.Option(help="Weight of a vote.")]
OnShelf = Annotated[str, typer.Argument(help="Name of `atlas list`, or a file.")]


@atlas_app.command("build")
def atlas_build(
    labelled: Labelled,
    out: OutFile,
    split: Split = None,
    encoder: Encoder = "starter",
    crops: Crops = "context",
    fov_um: Fov = 25.0,
    name: Name = None,
    origin: Origin = "",
    thumbnails: Pictures = False,
    k: K = 20,
    metric: Metric = "euclidean",
    weights: Weights = "uniform",
    device: Device = None,
    precision: Precision = None,
    accept_licence: AcceptLicence = None,
) -> None:
    """Make an atlas of labelled pictures, which go through segmentation and crop as a smear, or of studies."""
    pictures: dict[str, Any] = {"split": split, "encoder": encoder, "crops": crops, "fov_um": fov_um}
    pictures |= {"device": device, "precision": precision, "accept_licence": accept_licence}
    more: dict[str, Any] = {"thumbnails": thumbnails, "k": k, "metric": metric, "weights": weights}
    with mendable():
        _check_out(out)
        atlas = _read(labelled, pictures, name=name or out.stem, origin=origin, **more)
        _save(atlas, out)
        _describe(atlas)


@atlas_app.command("probe")
def atlas_probe(
    labelled: Annotated[
        list[str], typer.Argument(help="An atlas (name or file), a CSV, a folder of class folders, or studies.")
    ],
    out: OutFile,
    split: Split = None,
    encoder: Encoder = "starter",
    crops: Crops = "context",
    fov_um: Fov = 25.0,
    name: Name = None,
    origin: Origin = "",
    strength: Annotated[
        float | None, typer.Option("--C", help="Inverse regularisation; else numbers x classes / 100.")
    ] = None,
    device: Device = None,
    precision: Precision = None,
    accept_licence: AcceptLicence = None,
) -> None:
    """Train a linear probe, which `classify --atlas FILE` takes; NAME.json beside it is for people to read."""
    pictures: dict[str, Any] = {"split": split, "encoder": encoder, "crops": crops, "fov_um": fov_um}
    pictures |= {"device": device, "precision": precision, "accept_licence": accept_licence}
    with mendable():
        from napari_dinobloom.predict.atlas import Atlas
        from napari_dinobloom.predict.probe_training import iter_train_probe
        from napari_dinobloom.predict.shelf import ENDING, find

        _check_out(out)
        if strength is not None and not strength > 0:
            raise InputError(f"--C {strength}: the inverse strength of regularisation must be positive.")
        paths = [Path(one) for one in labelled]
        is_atlas = len(paths) == 1 and (paths[0].suffix == ENDING or not paths[0].exists())
        if is_atlas:
            reference = Atlas.load(find(labelled[0]))
        else:
            reference = _read(paths, pictures, name=name or out.stem, origin=origin)
        probe = watch(iter_train_probe(reference, name=name or out.stem, C=strength))
        _save(probe, out)
        _describe(probe)


@atlas_app.command("merge")
def atlas_merge(
    atlases: Annotated[list[str], typer.Argument(help="Two atlases or more: names of `atlas list`, or files.")],
    out: OutFile,
    name: Name = None,
    origin: Origin = "",
) -> None:
    """Put atlases of one encoder and one kind of crops together; a cell that is in several is kept once."""
    with mendable():
        from napari_dinobloom.predict.atlas import Atlas
        from napari_dinobloom.predict.atlas_merge import merge
        from napari_dinobloom.predict.shelf import find

        if len(atlases) < 2:
            raise InputError(f"{atlases[0]}: one atlas is nothing to merge; give two or more.")
        _check_out(out)
        atlas = merge([Atlas.load(find(one)) for one in atlases], name=name or out.stem, origin=origin)
        _save(atlas, out)
        _describe(atlas)


@atlas_app.command("extend")
def atlas_extend(
    name: Annotated[str, typer.Argument(help="Your atlas on the shelf; made if it is not there.")],
    study: Annotated[Path, typer.Argument(help="Study whose hand-named cells are added.")],
    base: Annotated[
        str | None,
        typer.Option("--from", help="What a new one begins with: a name, a file, or none; else the study's atlas."),
    ] = None,
    thumbnails: Pictures = False,
) -> None:
    """Add the hand-named cells of a study to an atlas of your own, which `classify --atlas NAME` takes."""
    with mendable():
        from napari_dinobloom.io.study import Study
        from napari_dinobloom.pipeline.classify import find_atlas
        from napari_dinobloom.pipeline.own_reference import iter_extend
        from napari_dinobloom.pipeline.settings import resolve
        from napari_dinobloom.predict.atlas import Atlas
        from napari_dinobloom.predict.shelf import place_of

        target = place_of(name)
        with Study.open(study, read_only=True) as opened:
            start: Any = None if base == "none" else base
            if base is None:
                named_by = target if target.exists() else find_atlas(resolve(opened.settings, {}))
                if named_by is not None and not isinstance(named_by, (Path, Atlas)):
                    raise InputError(
                        f"{study}: a probe names its cells, which cannot be extended. Say what {name!r} begins with: "
                        "--from with an atlas (a name or a file), or --from none."
                    )
                start = named_by
            path = watch(iter_extend(opened, start, name, thumbnails=thumbnails))
        tell(path)
        _describe(Atlas.load(path))


@atlas_app.command("info")
def atlas_info(atlas: OnShelf) -> None:
    """Say what an atlas or a probe holds."""
    with mendable():
        from napari_dinobloom.predict.classifier import load_classifier
        from napari_dinobloom.predict.shelf import find

        _describe(load_classifier(find(atlas)))


@atlas_app.command("list")
def atlas_list() -> None:
    """List atlases and probes: those of the package, then your own."""
    with mendable():
        from napari_dinobloom.predict.shelf import own_folder, shelf

        for one in shelf():
            if one.problem:
                errors.print(f"{one.name}: {one.problem}", markup=False, highlight=False)
                continue
            what = f"{one.kind}, {one.cells} cells, {len(one.classes)} classes"
            made = f"{one.encoder} {one.encoder_sha256[:8]}, crops {one.policy_hash}"
            console.print(f"{one.name}: {what}, {made}, {one.hash[:8]}", markup=False, highlight=False)
        console.print(f"Your own lie in {own_folder()}", markup=False, highlight=False)


def _read(paths: list[Path], pictures: dict[str, Any], *, name: str, origin: str, **more: Any) -> Atlas:
    """Make an atlas of studies, or of labelled pictures."""
    from napari_dinobloom.io.manifest import NAME

    studies = [path for path in paths if (path / NAME).is_file()]
    if studies and len(studies) < len(paths):
        other = next(path for path in paths if path not in studies)
        raise InputError(f"{other}: is no study, but {studies[0]} is: give studies only, or one CSV or folder.")
    if studies:
        return _read_studies(studies, name=name, origin=origin, **more)
    if len(paths) > 1:
        raise InputError(f"{paths[1]}: give one CSV or one folder, or studies, which may be several.")
    return _read_pictures(paths[0], **pictures, name=name, origin=origin, **more)


def _read_studies(paths: list[Path], **more: Any) -> Atlas:
    """Make an atlas of the named cells of studies."""
    from contextlib import ExitStack

    from napari_dinobloom.io.study import Study
    from napari_dinobloom.pipeline.own_reference import iter_atlas_of

    with ExitStack() as stack:
        opened = [stack.enter_context(Study.open(path, read_only=True)) for path in paths]
        return watch(iter_atlas_of(opened, **more))


def _read_pictures(
    path: Path,
    *,
    split: str | None,
    encoder: str,
    crops: Literal["context", "published"],
    fov_um: float,
    device: str | None,
    precision: str | None,
    accept_licence: bool | None,
    name: str,
    origin: str,
    **more: Any,
) -> Atlas:
    """Crop and embed labelled pictures and make an atlas of them."""
    from napari_dinobloom.cells.crop import CropPolicy
    from napari_dinobloom.encoders.library import identify
    from napari_dinobloom.encoders.splits import unseen_by_starter
    from napari_dinobloom.predict.atlas_build import iter_build_atlas
    from napari_dinobloom.predict.pictures import read_labelled

    policy, info = CropPolicy(kind=crops, fov_um=fov_um), {"origin": origin} if origin else {}
    with load(encoder, device, precision, accept_licence) as model:
        rule: Any = unseen_by_starter if model.sha256 == identify("starter") else True
        found = read_labelled(path, split=split, held_out=rule)
        return watch(iter_build_atlas(found, model, policy, name=name, info=info, **more))


def _check_out(out: Path) -> None:
    """Refuse a file that could not be written, or not be found by its name, before any work is done."""
    import os

    from napari_dinobloom.predict.shelf import ENDING

    folder = out.expanduser().resolve().parent
    if out.suffix != ENDING:
        raise InputError(f"--out {out}: the file must end in {ENDING}; write {out.stem}{ENDING}.")
    if not folder.is_dir() or out.is_dir():
        wrong = f"{out}: is a folder; move it" if out.is_dir() else f"{folder}: there is no such folder; make it"
        raise InputError(f"{wrong}, or choose another file for --out.")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: may not be written to. Choose another folder for --out.")


def _save(made: Atlas | Probe, out: Path) -> None:
    """Write a file and say where it lies."""
    from napari_dinobloom.io.atomic import disk_errors

    with disk_errors(out):
        tell(made.save(out))


def _describe(made: CellClassifier) -> None:
    """Print what an atlas or a probe holds, and which of its classes nothing could be said of."""
    import json

    console.print(json.dumps(made.facts(), indent=1, default=str), markup=False, highlight=False)
    if unmeasured := made.info.get("unmeasured"):
        errors.print(
            "Not measured, as no held-out picture of them has a second one to be compared with: "
            f"{', '.join(unmeasured)}. Their cells take part, but nothing says how often they are named rightly.",
            markup=False,
            highlight=False,
        )


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    app.add_typer(atlas_app, name="atlas")
