"""The commands ``mil``: the predicted group of a patient, with the cells that it rests on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from napari_dinobloom.cli.options import AcceptLicence, StudyFolder
from napari_dinobloom.console import accepting, console, errors, mendable, tell, watch
from napari_dinobloom.errors import InputError, StudyError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_dinobloom.io.study import Study
    from napari_dinobloom.pipeline.patients import PatientResult

mil_app = typer.Typer(
    help="Groups of patients, predicted from their cells: attention MIL beside mean pooling. Not a diagnosis.",
    no_args_is_help=True,
)


@mil_app.command("train")
def train(
    source: Annotated[Path, typer.Argument(help="Study folder; or a CSV: file, patient, diagnosis[, pool].")],
    groups: Annotated[
        Path | None, typer.Option(help="CSV with patient, group; else the groups given in the study.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Model file, for a CSV: NAME.safetensors.")] = None,
    preset: Annotated[Literal["gated", "paper"], typer.Option(help="paper: as the DinoBloom evaluation.")] = "gated",
    folds: Annotated[int, typer.Option(min=2, help="Folds of the cross-validation.")] = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Repeats of the cross-validation.")] = 5,
    permutations: Annotated[int, typer.Option(min=0, help="Repeats with shuffled groups, as a control.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of folds and training.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda.")] = "auto",
    few: Annotated[bool, typer.Option("--few", help="Train with fewer than 10 patients in a group, too.")] = False,
    encoder: Annotated[str | None, typer.Option("--encoder", help="Of a CSV's pictures; else the starter.")] = None,
    accept_licence: AcceptLicence = None,
) -> None:
    """Train on patients with a known group, judged by cross-validation, and predict all patients of the study."""
    options: dict[str, Any] = {"preset": preset, "folds": folds, "repeats": repeats, "permutations": permutations}
    options |= {"seed": seed, "device": device}
    with mendable():
        if source.suffix.lower() == ".csv":
            if out is None or groups is not None:
                raise InputError("A CSV of pictures holds its groups and needs a model file: give --out, not --groups.")
            result = _train_pictures(source, out, few, encoder or "starter", bool(accept_licence), options)
        else:
            if out is not None or encoder is not None:
                raise InputError("A study keeps its model and has its encoder: leave --out and --encoder out.")
            result = _train_study(source, groups, few, options)
        _show(result)


@mil_app.command("predict")
def predict(study: StudyFolder, model: Annotated[Path, typer.Option(help="Model file.")]) -> None:
    """Predict the patients of a study by a trained model."""
    with mendable():
        from napari_dinobloom.io.study import Study
        from napari_dinobloom.pipeline.patients import iter_apply_patients

        with Study.open(study) as opened:
            _show(watch(iter_apply_patients(opened, model)))


@mil_app.command("show")
def show(
    study: StudyFolder,
    patient: Annotated[str | None, typer.Option(help="Also the cells of this patient.")] = None,
    cells: Annotated[int, typer.Option(min=1, help="How many cells of most and of least attention.")] = 10,
) -> None:
    """Show what is predicted of the patients of a study, and the cells that it rests on."""
    with mendable():
        from napari_dinobloom.io.study import Study
        from napari_dinobloom.pipeline.patients import OUTDATED, fits, patient_result

        with Study.open(study, read_only=True) as opened:
            result = patient_result(opened)
            if result is None:
                raise StudyError(f"{study}: nothing is predicted yet. Train with `napari-dinobloom mil train {study}`.")
            _show(result)
            if not fits(opened, result):
                errors.print(OUTDATED)
            if patient is not None:
                _show_cells(opened, result, patient, cells)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    app.add_typer(mil_app, name="mil")


def _train_study(path: Path, groups: Path | None, few: bool, options: dict[str, Any]) -> PatientResult:
    """Train on a study."""
    from napari_dinobloom.io.groups import read_groups
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.pipeline.patient_bags import collect
    from napari_dinobloom.pipeline.patient_groups import groups_of, keep_groups
    from napari_dinobloom.pipeline.patients import iter_train_patients, with_cells

    with Study.open(path) as study:
        known = read_groups(groups) if groups is not None else groups_of(study)
        if not known:
            raise InputError(f"{groups or path}: no patient has a group. Give --groups CSV with patient, group.")
        used, _ = with_cells(study, collect(study).names, known)
        _check_few(used.values(), few)
        if groups is not None:
            keep_groups(study, groups_of(study) | known)  # those of other patients stay, as in the window
        return watch(iter_train_patients(study, known, **options))


def _train_pictures(
    table: Path, out: Path, few: bool, encoder: str, accepted: bool, options: dict[str, Any]
) -> PatientResult:
    """Train on a table of pictures."""
    from napari_dinobloom.pipeline.cohort import read_table
    from napari_dinobloom.pipeline.patient_pictures import iter_train_pictures

    _check_few(read_table(table).drop_duplicates("patient")["diagnosis"], few)
    return accepting(lambda _: watch(iter_train_pictures(table, out, encoder=encoder, **options)), accepted)


def _check_few(groups: Iterable[str], accepted: bool) -> None:
    """Refuse to train on few patients unless it was asked for."""
    from napari_dinobloom.predict.mil.bags import few_patients

    if (why := few_patients(groups)) and not accepted:
        raise InputError(f"{why} Add patients, or train all the same with --few.")


def _show(result: PatientResult) -> None:
    """Print patients, scores and notes."""
    table = Table(box=None, pad_edge=False)
    for name in ("Patient", "Cells", "Group", "Predicted group", "Probability", "Mean pooling", ""):
        table.add_column(name)
    for row in result.table.to_dict("records"):
        said = row["predicted_group"]
        pooled = max(result.classes, key=lambda name: row[f"mean:{name}"])
        shown = (row["patient"], str(row["cells"]), row["group"], said, f"{row[f'p:{said}']:.2f}", pooled)
        table.add_row(*map(escape, shown), "out of fold" if row["out_of_fold"] else "")
    console.print(table)
    scores = Table(box=None, pad_edge=False)
    for name in ("Model", "Weighted F1", "Balanced accuracy", "AUC"):
        scores.add_column(name)
    for row in result.scores.to_dict("records"):
        parts = [f"{row[n]:.3f} ({row[f'{n}_low']:.3f} to {row[f'{n}_high']:.3f})"
                 for n in ("weighted_f1", "balanced_accuracy", "auc")]  # fmt: skip
        scores.add_row(escape(str(row["model"])), *parts)
    console.print(scores)
    for note in result.notes:
        errors.print(escape(note))
    tell(result.model)
    console.print("Predicted group. Research use, not for diagnosis")


def _show_cells(study: Study, result: PatientResult, patient: str, count: int) -> None:
    """Print the cells of a patient with most and least attention for the predicted group."""
    from napari_dinobloom.explore.cell_attention import attention_of

    rows = result.table[result.table["patient"] == patient]
    if rows.empty:
        raise InputError(
            f"There is no prediction of patient {patient!r}. Patients: {', '.join(result.table['patient'])}."
        )
    group, obs = str(rows["predicted_group"].iloc[0]), study.cells.obs
    attention = attention_of(study.cells, result.model.name)
    if attention is None or group not in attention:
        raise StudyError(
            f"{study.path}: the cells changed since. Predict again with `mil predict --model {result.model}`."
        )
    found = attention.loc[(obs["patient"] == patient).to_numpy(bool), group].dropna().sort_values(ascending=False)
    if not len(found):
        console.print(f"No attention to show for {escape(group)}: the model rests on mean pooling alone.")
        return
    for title, some in (("most", found.head(count)), ("least", found.tail(count)[::-1])):
        console.print(f"Cells of {title} attention for {escape(group)}, 0 to 1 within the patient:")
        for cell, value in some.items():
            named = obs.at[cell, "label"] or obs.at[cell, "predicted"]
            console.print(f"  {value:.3f}  {escape(str(cell))}  {escape(str(named))}", highlight=False)
