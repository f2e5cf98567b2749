"""One command for each step of a run, and ``run`` for the whole way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_dinobloom.cli.options import (
    AcceptLicence,
    AdaptTo,
    AtlasName,
    Bind,
    CellsFlag,
    ClusterConfig,
    ClusterKind,
    Counted,
    Device,
    Embeddings,
    EncoderName,
    Fov,
    FovDiameters,
    GpuCount,
    Inputs,
    Interpolation,
    Labels,
    MaskNeighbours,
    MaxMemory,
    MinDist,
    MoreInputs,
    Neighbours,
    Out,
    PatientFrom,
    PixelSize,
    Pooling,
    Precision,
    Retry,
    SchedulerAddress,
    SchemeName,
    Search,
    Seed,
    SegmenterName,
    SlideFrom,
    Specimen,
    StainName,
    StudyFolder,
    TlsCa,
    TlsCert,
    TlsKey,
    UnderPseudonyms,
    VoteMetric,
    VotesOf,
    VoteWeights,
    WorkerCount,
)
from napari_dinobloom.console import (
    DONE,
    SOME_FAILED,
    accepting,
    hear,
    mendable,
    problem_table,
    summarise,
    tell,
    tell_stored,
    watch,
)
from napari_dinobloom.errors import InputError

if TYPE_CHECKING:
    from napari_dinobloom.pipeline.driver import Outcome


def _do(inputs: list[str], out: Path, **asked: Any) -> None:
    """Run the steps, print the summary, exit with 0 (all done), 1 (some inputs failed) or 2 (nothing done)."""
    with mendable():
        code = summarise(_outcome(inputs, out, **asked))
    raise typer.Exit(code)


def _outcome(inputs: list[str], out: Path, **asked: Any) -> Outcome:
    """Run the steps."""
    from napari_dinobloom.pipeline.driver import iter_outcome

    def attempt(accepted: bool) -> Outcome:  # segmenter and encoder may both have terms
        return watch(iter_outcome(inputs, out, **asked | {"accept_licence": accepted or None}))

    return accepting(attempt, bool(asked.get("accept_licence")))


def _segmenter(name: str | None, labels: Path | None) -> str | None:
    """The setting `segmenter` from the two options that give it."""
    if name and labels:
        raise InputError(f"--segmenter {name} and --labels {labels} exclude each other: give one of them.")
    return str(labels.expanduser().resolve()) if labels else name


def _off(value: str | None) -> str | None:
    """A setting that is empty where it is switched off, from an option whose word for this is "none"."""
    return "" if value == "none" else value


def run(
    inputs: Inputs,
    out: Out,
    specimen: Specimen = None,
    scheme: SchemeName = None,
    count: Counted = None,
    pixel_size_um: PixelSize = None,
    cells: CellsFlag = None,
    segmenter: SegmenterName = None,
    labels: Labels = None,
    search: Search = None,
    accept_licence: AcceptLicence = None,
    slide_from: SlideFrom = None,
    patient_from: PatientFrom = None,
    encoder: EncoderName = None,
    device: Device = None,
    precision: Precision = None,
    pooling: Pooling = None,
    embeddings: Embeddings = None,
    max_memory_gib: MaxMemory = None,
    stain: StainName = None,
    atlas: AtlasName = None,
    fov_um: Fov = None,
    fov_diameters: FovDiameters = None,
    interpolation: Interpolation = None,
    mask_neighbours: MaskNeighbours = None,
    neighbours: Neighbours = None,
    min_dist: MinDist = None,
    seed: Seed = None,
    retry: Retry = False,
    workers: WorkerCount = None,
    scheduler: SchedulerAddress = None,
    cluster: ClusterKind = None,
    gpus: GpuCount = None,
    cluster_config: ClusterConfig = None,
    bind: Bind = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Go the whole way: images in, report out. Running again does only what is missing or changed."""
    asked = dict(locals())
    del asked["inputs"], asked["out"], asked["labels"]
    with mendable():
        asked["segmenter"] = _segmenter(segmenter, labels)
    asked["stain"] = _off(stain)
    if workers or scheduler or cluster:
        hear("napari_dinobloom.pipeline.cluster")
    _do(inputs, out, **asked)


def segment(
    inputs: Inputs,
    out: Out,
    pixel_size_um: PixelSize = None,
    cells: CellsFlag = None,
    segmenter: SegmenterName = None,
    labels: Labels = None,
    search: Search = None,
    accept_licence: AcceptLicence = None,
    slide_from: SlideFrom = None,
    patient_from: PatientFrom = None,
) -> None:
    """Read images and find their white cells."""
    asked: dict[str, Any] = {"slide_from": slide_from, "patient_from": patient_from, "accept_licence": accept_licence}
    asked["search"] = search
    with mendable():
        asked["segmenter"] = _segmenter(segmenter, labels)
    _do(inputs, out, until="segment", pixel_size_um=pixel_size_um, cells=cells, **asked)


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


def embed(
    study: StudyFolder,
    inputs: MoreInputs = None,
    encoder: EncoderName = None,
    device: Device = None,
    precision: Precision = None,
    pooling: Pooling = None,
    embeddings: Embeddings = None,
    max_memory_gib: MaxMemory = None,
    stain: StainName = None,
    stored: Annotated[bool, typer.Option("--list", help="Only show the embeddings that the study holds.")] = False,
) -> None:
    """Embed every cell; what was embedded before, by this encoder or others, is kept."""
    if stored:
        with mendable():
            from napari_dinobloom.io.study import Study
            from napari_dinobloom.pipeline.embedded import stored_encoders

            with Study.open(study, read_only=True) as opened:
                tell_stored(stored_encoders(opened))
        return
    asked = {"encoder": encoder, "device": device, "precision": precision, "pooling": pooling, "stain": _off(stain)}
    _do(inputs or [], study, until="embed", embeddings=embeddings, max_memory_gib=max_memory_gib, **asked)


def _adapted(study: Path, option: str | None, asked: dict[str, Any]) -> dict[str, str]:
    """The settings that an option of `predict.adaptation` stands for; ``auto`` asks the cells of the study."""
    if option == "auto":
        from napari_dinobloom.io.study import Study
        from napari_dinobloom.pipeline.adapting import iter_choose_for

        with Study.open(study, read_only=True) as opened:
            choice = watch(iter_choose_for(opened, **asked))
        tell(f"Adaptation: {choice.option}. {choice.why}")
        option = choice.option
    if option is None:
        return {}
    moves = option == "restandardise"
    return {"stain": "" if moves or option == "none" else option, "adapt": "slide" if moves else ""}


def classify(
    study: StudyFolder,
    inputs: MoreInputs = None,
    atlas: AtlasName = None,
    k: VotesOf = None,
    metric: VoteMetric = None,
    weights: VoteWeights = None,
    adapt: AdaptTo = None,
    neighbours: Annotated[
        Path | None, typer.Option("--neighbours", help="CSV for the reference cells beside each cell.")
    ] = None,
) -> None:
    """Name every cell by its nearest reference cells, or by a probe."""
    asked: dict[str, Any] = {"atlas": atlas, "knn_k": k, "knn_metric": metric, "knn_weights": weights}
    with mendable():
        asked |= _adapted(study, adapt, asked)
        outcome = _outcome(inputs or [], study, until="classify", **asked)
        code = summarise(outcome)
        if neighbours is not None:
            from napari_dinobloom.pipeline.classify import write_neighbours

            tell(write_neighbours(outcome.study, neighbours))
    raise typer.Exit(code)


def report(
    study: StudyFolder,
    inputs: MoreInputs = None,
    specimen: Specimen = None,
    scheme: SchemeName = None,
    count: Counted = None,
    per_patient: Annotated[
        bool, typer.Option("--per-patient", help="Also a page for each patient, in the folder reports.")
    ] = False,
    cohort: Annotated[
        bool, typer.Option("--cohort", help="Also a page over all patients, in the same folder.")
    ] = False,
    pseudonyms: UnderPseudonyms = False,
) -> None:
    """Count and write the tables and the report; on request also pages of patients."""
    with mendable():
        outcome = _outcome(inputs or [], study, specimen=specimen, scheme=scheme, count=count)
        code = summarise(outcome)
        if per_patient or cohort or pseudonyms:
            code = max(code, _pages(outcome, per_patient=per_patient, cohort=cohort, pseudonyms=pseudonyms))
    raise typer.Exit(code)


def _pages(outcome: Outcome, *, pseudonyms: bool, **wanted: bool) -> int:
    """Write pages of a study that was reported; return 1 if a patient has none, else 0."""
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.pipeline.patient_reports import iter_patient_reports

    with Study.open(outcome.study.path, read_only=not pseudonyms) as study:
        made = watch(iter_patient_reports(study, pseudonyms=pseudonyms, problems=outcome.problems, **wanted))
    for path in made.paths:
        tell(path)
    problem_table([(f"page of {patient}", reason) for patient, reason in made.problems])
    return SOME_FAILED if made.problems else DONE


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    for command in (run, segment, crop, embed, classify, report):
        app.command()(command)
