"""The command line: one sub-command per step, all of them calling the library's own functions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_dinobloom.console import accepting, console, mendable, summarise, tell, tell_stored, watch
from napari_dinobloom.errors import InputError
from napari_dinobloom.gate_cli import gate_app
from napari_dinobloom.map_cli import MinDist, MoreInputs, Neighbours, Seed, StudyFolder, register_maps
from napari_dinobloom.weights_cli import weights_app

if TYPE_CHECKING:
    from napari_dinobloom.encoders.encoder import Encoder
    from napari_dinobloom.pipeline.driver import Outcome

app = typer.Typer(
    name="napari-dinobloom",
    help="Find, embed, map, name and count white blood cells in smear images. Research use, not for diagnosis.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
atlas_app = typer.Typer(help="Reference atlases: labelled cells that new ones are compared with.", no_args_is_help=True)
app.add_typer(atlas_app, name="atlas")
app.add_typer(weights_app, name="weights")
app.add_typer(gate_app, name="gate")

Inputs = Annotated[list[str], typer.Argument(help="Images, folders, globs (PNG, JPEG, TIFF, OME-TIFF, BMP).")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Study folder, NAME.dinobloom.")]
Specimen = Annotated[Literal["blood", "marrow"] | None, typer.Option(help="Which cells the differential counts.")]
PixelSize = Annotated[float | None, typer.Option(help="Micrometres per pixel; else from the file or the red cells.")]
CellsFlag = Annotated[bool | None, typer.Option("--cells", help="Each picture is one cell; no segmentation.")]
SegmenterName = Annotated[
    Literal["learned", "cellpose"] | None, typer.Option("--segmenter", help="What finds the cells.")
]
Labels = Annotated[
    Path | None,
    typer.Option("--labels", help="File or folder of marked cells: label images, CSV, GeoJSON, VOC, YOLO."),
]
AcceptLicence = Annotated[
    bool | None,
    typer.Option("--accept-licence", help="Accept the terms of segmenter and encoder; else you are asked once."),
]
SlideFrom = Annotated[
    str | None,
    typer.Option(help="Slide of a file: folder, folder:2, file, a regular expression with one group, a CSV."),
]
PatientFrom = Annotated[str | None, typer.Option(help="Patient of a file: slide, or as --slide-from.")]
EncoderName = Annotated[str | None, typer.Option("--encoder", help="Encoder by name, or a file of weights.")]
Device = Annotated[
    str | None, typer.Option("--device", "--devices", help="auto, cpu, mps, cuda, cuda:1; or several: 0,1,2,3.")
]
Precision = Annotated[Literal["auto", "float32", "bf16"] | None, typer.Option(help="Number format of the encoder.")]
Pooling = Annotated[
    Literal["own", "class", "class+mean"] | None,
    typer.Option(help="The encoder's own, the class token, or with it the mean patch token."),
]
MaxMemory = Annotated[
    float | None, typer.Option("--max-memory", help="GiB that the encoder may take; 0 does not limit it.")
]
AtlasName = Annotated[str | None, typer.Option("--atlas", help="auto, none, or an atlas file.")]
Fov = Annotated[float | None, typer.Option("--fov-um", help="Side of the square around a cell, micrometres.")]
FovDiameters = Annotated[
    float | None, typer.Option("--fov-diameters", help="The same in white-cell diameters, where no scale is known.")
]
Interpolation = Annotated[Literal["bilinear", "bicubic", "lanczos"] | None, typer.Option(help="How crops are resized.")]
MaskNeighbours = Annotated[
    bool | None, typer.Option("--mask-neighbours/--keep-neighbours", help="Paint other white cells in a crop over.")
]


def _do(inputs: list[str], out: Path, **asked: Any) -> None:
    """Run the steps, print the summary, exit with 0 (all done), 1 (some inputs failed) or 2 (nothing done)."""
    with mendable():
        from napari_dinobloom.pipeline.driver import iter_outcome

        def attempt(accepted: bool) -> Outcome:  # segmenter and encoder may both have terms
            return watch(iter_outcome(inputs, out, **asked | {"accept_licence": accepted or None}))

        code = summarise(accepting(attempt, bool(asked.get("accept_licence"))))
    raise typer.Exit(code)


def _load(encoder: str, device: str | None, precision: Any, accept_licence: bool | None) -> Encoder:
    """Load an encoder whose terms, where it has any, are accepted."""
    from napari_dinobloom.encoders.encoder import load_encoder

    return accepting(lambda _: load_encoder(encoder, device or "auto", precision or "auto"), bool(accept_licence))


def _segmenter(name: str | None, labels: Path | None) -> str | None:
    """The setting `segmenter` from the two options that give it."""
    if name and labels:
        raise InputError(f"--segmenter {name} and --labels {labels} exclude each other: give one of them.")
    return str(labels.expanduser().resolve()) if labels else name


@app.command()
def run(
    inputs: Inputs,
    out: Out,
    specimen: Specimen = None,
    pixel_size_um: PixelSize = None,
    cells: CellsFlag = None,
    segmenter: SegmenterName = None,
    labels: Labels = None,
    accept_licence: AcceptLicence = None,
    slide_from: SlideFrom = None,
    patient_from: PatientFrom = None,
    encoder: EncoderName = None,
    device: Device = None,
    precision: Precision = None,
    pooling: Pooling = None,
    max_memory_gib: MaxMemory = None,
    atlas: AtlasName = None,
    fov_um: Fov = None,
    fov_diameters: FovDiameters = None,
    interpolation: Interpolation = None,
    mask_neighbours: MaskNeighbours = None,
    neighbours: Neighbours = None,
    min_dist: MinDist = None,
    seed: Seed = None,
) -> None:
    """Go the whole way: images in, report out. Running again does only what is missing or changed."""
    asked = dict(locals())
    del asked["inputs"], asked["out"], asked["labels"]
    with mendable():
        asked["segmenter"] = _segmenter(segmenter, labels)
    _do(inputs, out, **asked)


@app.command()
def segment(
    inputs: Inputs,
    out: Out,
    pixel_size_um: PixelSize = None,
    cells: CellsFlag = None,
    segmenter: SegmenterName = None,
    labels: Labels = None,
    accept_licence: AcceptLicence = None,
    slide_from: SlideFrom = None,
    patient_from: PatientFrom = None,
) -> None:
    """Read images and find their white cells."""
    asked: dict[str, Any] = {"slide_from": slide_from, "patient_from": patient_from, "accept_licence": accept_licence}
    with mendable():
        asked["segmenter"] = _segmenter(segmenter, labels)
    _do(inputs, out, until="segment", pixel_size_um=pixel_size_um, cells=cells, **asked)


@app.command()
def crop(
    study: StudyFolder,
    inputs: MoreInputs = None,
    fov_um: Fov = None,
    fov_diameters: FovDiameters = None,
    interpolation: Interpolation = None,
    mask_neighbours: MaskNeighbours = None,
) -> None:
    """Cut the picture of every cell."""
    asked = {"fov_um": fov_um, "fov_diameters": fov_diameters}
    _do(inputs or [], study, until="crop", interpolation=interpolation, mask_neighbours=mask_neighbours, **asked)


@app.command()
def embed(
    study: StudyFolder,
    inputs: MoreInputs = None,
    encoder: EncoderName = None,
    device: Device = None,
    precision: Precision = None,
    pooling: Pooling = None,
    max_memory_gib: MaxMemory = None,
    stored: Annotated[bool, typer.Option("--list", help="Only show the embeddings that the study holds.")] = False,
) -> None:
    """Embed every cell; what was embedded before, by this encoder or others, is kept."""
    if stored:
        with mendable():
            from napari_dinobloom.io.study import Study
            from napari_dinobloom.pipeline.embed import stored_encoders

            with Study.open(study, read_only=True) as opened:
                tell_stored(stored_encoders(opened))
        return
    asked = {"encoder": encoder, "device": device, "precision": precision, "pooling": pooling}
    _do(inputs or [], study, until="embed", max_memory_gib=max_memory_gib, **asked)


@app.command()
def classify(study: StudyFolder, inputs: MoreInputs = None, atlas: AtlasName = None) -> None:
    """Name every cell by its nearest reference cells."""
    _do(inputs or [], study, until="classify", atlas=atlas)


@app.command()
def report(study: StudyFolder, inputs: MoreInputs = None, specimen: Specimen = None) -> None:
    """Count and write the tables and the report."""
    _do(inputs or [], study, specimen=specimen)


@app.command()
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
        tell(f"{len(paths)} images in {paths[0].parent}")


@app.command()
def export(
    study: StudyFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the tables.")],
    geojson: Annotated[
        bool, typer.Option("--geojson", help="Also the outlines of cells and nuclei, for QuPath.")
    ] = False,
) -> None:
    """Write the cell table with hand labels and the differential as CSV, as they are now."""
    with mendable():
        from napari_dinobloom.io.study import Study
        from napari_dinobloom.pipeline.results import write_outlines, write_tables
        from napari_dinobloom.pipeline.settings import resolve

        with Study.open(study, read_only=True) as opened:
            paths = write_tables(opened, resolve(opened.settings, {}), out)
            for path in [*paths, *(write_outlines(opened, out) if geojson else [])]:
                tell(path)


@app.command()
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


@app.command()
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


@app.command()
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
        with _load(encoder, device, precision, accept_licence) as model:
            train = watch(iter_embed_pictures(read_labelled(table, split="train"), model, policy))
            test = watch(iter_embed_pictures(read_labelled(table, split="test"), model, policy))
        console.print(evaluate_embeddings(train.X, train.y, test.X, test.y).round(3).to_string())


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
        with _load(encoder, device, precision, accept_licence) as model:
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


@app.command()
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


register_maps(app)


def main() -> None:
    """Entry point of the command ``napari-dinobloom``."""
    app()
