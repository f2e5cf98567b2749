"""Commands beside the steps: sample images, tables, agreement of readers, patch figures, a check of the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from napari_dinobloom.cli.options import AcceptLicence, Device, Precision, StudyFolder, UnderPseudonyms
from napari_dinobloom.console import accepting, console, mendable, tell, watch
from napari_dinobloom.errors import InputError
from napari_dinobloom.words import number_of


def sample(
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the images; else ./sample.")] = None,
    fields: Annotated[int, typer.Option("-n", "--fields", min=1, max=1000, help="Generated fields.")] = 12,
    seed: Annotated[int, typer.Option(help="Seed of the generated fields.")] = 0,
    real: Annotated[bool, typer.Option("--real", help="Fetch ten real fields (BCCD, MIT licence) instead.")] = False,
    source: Annotated[Path | None, typer.Option("--from", help="Take the real fields from this folder.")] = None,
) -> None:
    """Write sample smears: generated ones with their exact truth, or ten real fields.

    Without a folder the real fields go where napari's sample menu finds them.
    """
    with mendable():
        if real or source:
            from napari_dinobloom.io.sample import iter_fetch_real

            paths = watch(iter_fetch_real(out, source=source))
        else:
            from napari_dinobloom.io.generate import iter_write_smears

            paths = watch(iter_write_smears(out or Path("sample"), fields, seed))
        tell(f"{number_of(len(paths), 'image')} in {paths[0].parent}")


def export(
    study: StudyFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the tables.")],
    geojson: Annotated[
        bool, typer.Option("--geojson", help="Also the outlines of cells and nuclei, for QuPath.")
    ] = False,
    labels: Annotated[bool, typer.Option("--labels", help="Also a label image of each field, TIFF.")] = False,
    pseudonyms: UnderPseudonyms = False,
) -> None:
    """Write the cell table with hand labels and the differential as CSV, as they are now."""
    with mendable():
        from napari_dinobloom.io.pseudonyms import PseudonymousStudy
        from napari_dinobloom.io.study import Study
        from napari_dinobloom.pipeline.exports import KINDS, iter_export
        from napari_dinobloom.pipeline.settings import resolve

        wanted = {"tables": True, "outlines": geojson, "labels": labels}
        with Study.open(study, read_only=not pseudonyms) as opened:
            told = PseudonymousStudy(opened) if pseudonyms else opened
            kinds = [kind for kind in KINDS if wanted[kind]]
            for path in watch(iter_export(told, resolve(opened.settings, {}), out, kinds)):
                tell(path)


def label(
    study: StudyFolder,
    table: Annotated[Path, typer.Argument(help="CSV with the columns cell_id and label, such as an own cells.csv.")],
    reader: Annotated[str, typer.Option(help="Who says so; else the user of this machine.")] = "",
) -> None:
    """Give cells the classes of a table that was filled in elsewhere; one act, which undo takes back.

    Cells without a label there stay as they are.
    """
    with mendable():
        from napari_dinobloom.io.study import Study
        from napari_dinobloom.pipeline.hand_labels import take_labels

        with Study.open(study) as opened:
            changed = take_labels(opened, table, who=reader or None)
            tell(f"{number_of(changed, 'cell has', 'cells have')} another class")


def agreement(
    study: StudyFolder,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for agreement.csv and readers.csv.")] = None,
) -> None:
    """Compare what readers said of the same cells: Cohen's kappa of every two, and of each with the classifier."""
    with mendable():
        from napari_dinobloom.io.study import Study
        from napari_dinobloom.report.agreement import agreements, labels_by_reader, write_agreement

        with Study.open(study, read_only=True) as opened:
            labels = labels_by_reader(opened, prediction=True)
        if labels.empty:
            raise InputError(f"{study}: nobody has named a cell by hand yet. Name some in the Gallery window.")
        console.print(agreements(labels).round(3).to_string(index=False), markup=False, highlight=False)
        for path in write_agreement(labels, out) if out else ():
            tell(path)


def patches(
    inputs: Annotated[list[str], typer.Argument(help="CSV or folder of labelled pictures, a study, or images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Figure: .png, .pdf, .svg or .jpg.")],
    encoder: Annotated[str, typer.Option("--encoder", help="Encoder by name, or a file of weights.")] = "starter",
    device: Device = None,
    precision: Precision = None,
    accept_licence: AcceptLicence = None,
    per_class: Annotated[int, typer.Option(min=1, max=24, help="Pictures in a row.")] = 4,
    rows: Annotated[Literal["class", "dataset"], typer.Option(help="What makes a row.")] = "class",
    crops: Annotated[Literal["published", "context"], typer.Option(help="How pictures are cropped.")] = "published",
    foreground: Annotated[
        Literal["otsu", "centre"] | None, typer.Option(help="Leave the background black, by this rule.")
    ] = None,
    basis: Annotated[Path | None, typer.Option(help="Colours of an earlier figure.")] = None,
    save_basis: Annotated[Path | None, typer.Option(help="Keep the colours: NAME.safetensors.")] = None,
    tiles: Annotated[Path | None, typer.Option(help="Folder for one PNG a picture.")] = None,
) -> None:
    """Show what the encoder sees inside cells: the PCA of their patch tokens as colours, beside each picture."""
    asked: dict[str, Any] = dict(locals())
    del asked["accept_licence"]
    with mendable():
        from napari_dinobloom.pipeline.patches import PatchFigure, iter_patch_figure

        figure = PatchFigure(**asked | {"device": device or "auto", "precision": precision or "auto"})
        for path in accepting(lambda _: watch(iter_patch_figure(figure)), bool(accept_licence)):
            tell(path)


def doctor(
    speed: Annotated[bool, typer.Option(help="Embed generated cells for ten seconds.")] = True,
) -> None:
    """Check this machine: Python, torch, devices, memory, weights, Qt, system libraries, folders, speed."""
    from napari_dinobloom.doctor import examine, measure

    findings = examine()
    findings += measure() if speed else []
    for finding in findings:
        console.print(f"{finding.status:<8}{finding.topic}: {finding.value}", markup=False)
        if finding.remedy:
            console.print(f"        {finding.remedy}", markup=False)
    raise typer.Exit(1 if any(finding.status == "problem" for finding in findings) else 0)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    for command in (sample, export, label, agreement, patches, doctor):
        app.command()(command)
