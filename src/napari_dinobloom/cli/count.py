"""The differential as it is now, by any scheme or reader, and against a count by hand; the study is only read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_dinobloom.cli.options import Counted, SchemeName, Specimen, StudyFolder
from napari_dinobloom.console import console, mendable, tell

if TYPE_CHECKING:
    import pandas as pd

    from napari_dinobloom.pipeline.settings import RunSettings

Reader = Annotated[str, typer.Option(help="Count as this reader left the cells; others' labels are set aside.")]
TableFile = Annotated[Path | None, typer.Option("--out", "-o", help="CSV to write.")]

SHOWN = ("level", "patient", "slide", "class", "n", "counted", "percent", "low", "high", "corrected", "per_100_wbc")
"""Columns that are printed; a file holds all."""
COMPARED = ("level", "patient", "slide", "class", "percent", "manual_percent", "rumke_low", "rumke_high", "inside")


def count(
    study: StudyFolder,
    out: TableFile = None,
    scheme: SchemeName = None,
    counted: Counted = None,
    reader: Reader = "",
    specimen: Specimen = None,
) -> None:
    """Show the differential as it is now; what is not said is as the study was counted last."""
    with mendable():
        from napari_dinobloom.io.tables import write_csv
        from napari_dinobloom.pipeline.results import NOTES

        found, _ = _differential(study, reader, scheme=scheme, count=counted, specimen=specimen)
        notes = [set(note.split("; ")) - {""} for note in found["note"]]
        common = set.intersection(*notes) if notes else set()
        _print(found[list(SHOWN)].assign(note=["; ".join(sorted(own - common)) for own in notes]))
        for note in sorted(common):
            console.print(f"All lines: {note}", markup=False, highlight=False)
        if out:
            write_csv(out, found, comments=NOTES["differential.csv"])
            tell(out)


def compare_count(
    study: StudyFolder,
    manual: Annotated[Path, typer.Argument(help="CSV: patient, class, n; or percent and counted. Also slide.")],
    out: TableFile = None,
    scheme: SchemeName = None,
    counted: Counted = None,
    reader: Reader = "",
    specimen: Specimen = None,
) -> None:
    """Compare the differential with a count by hand: Rümke's limits for each class, bias, and each count as a whole."""
    with mendable():
        from napari_dinobloom.io.tables import write_csv
        from napari_dinobloom.pipeline.results import scheme_of
        from napari_dinobloom.report.count_comparison import NOTES, biases, compare, overall, unclassified_note
        from napari_dinobloom.report.manual_count import read_manual

        found, settings = _differential(study, reader, scheme=scheme, count=counted, specimen=specimen)
        lines = scheme_of(settings.scheme, study)
        by_hand = read_manual(manual, specimen=settings.specimen, scheme=lines, known=list(found["class"].unique()))
        compared = compare(found, by_hand)
        for table in (compared[list(COMPARED)], biases(compared), overall(compared)):
            _print(table)
        if note := unclassified_note(compared):
            console.print(note, markup=False, highlight=False)
        if out:
            write_csv(out, compared, comments=(*NOTES, *filter(None, [note])))
            tell(out)


def _differential(path: Path, reader: str, **asked: Any) -> tuple[pd.DataFrame, RunSettings]:
    """Differential of a study as it is now, and the settings that it was counted with."""
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.pipeline.results import count_cells
    from napari_dinobloom.pipeline.settings import resolve
    from napari_dinobloom.report.agreement import read_by

    with Study.open(path, read_only=True) as study:
        settings = resolve(study.settings, asked)
        cells = read_by(study, reader) if reader else study.cells
        return count_cells(cells, settings, study.path)[0], settings


def _print(table: pd.DataFrame) -> None:
    """Print a table without its index, columns that say nothing left out."""
    said = table.loc[:, [not (table[name].isna() | (table[name].astype(str) == "")).all() for name in table]]
    console.print(said.to_string(index=False, na_rep="", float_format="{:.3g}".format), markup=False, highlight=False)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    app.command()(count)
    app.command("compare-count")(compare_count)
