"""What a report says before any picture: its key numbers, its cautions, and the differential by patient and slide."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pandas as pd

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED, describe, unnamed_by
from napari_dinobloom.predict.novelty import FAR_SHARE, by_slide
from napari_dinobloom.report.counting import flag, text
from napari_dinobloom.report.differential import FEW
from napari_dinobloom.report.figures import BarFigure, bar_figure
from napari_dinobloom.report.legend import Entry, Legend
from napari_dinobloom.words import number_of

if TYPE_CHECKING:
    from napari_dinobloom.io.study import FieldRecord

UNSURE_SHARE = 0.20
NAMES_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Caution:
    """One thing to know before the numbers are read.

    Attributes
    ----------
    level : str
        ``warning`` needs an answer, ``note`` is to be known.
    title, text : str
        For readers.
    items : tuple of (str, str)
        What it concerns and why, for lists.
    short : str
        The same in a few words, for a table of patients; empty for what is no matter of one patient.
    """

    level: Literal["warning", "note"]
    title: str
    text: str
    items: tuple[tuple[str, str], ...] = ()
    short: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """One class in the table of a slide or patient; percent and intervals in percent, None where unknown.

    `simultaneous_low` and `simultaneous_high` hold for all classes of the table at once.
    """

    entry: Entry
    n: int
    percent: float | None
    low: float | None
    high: float | None
    simultaneous_low: float | None
    simultaneous_high: float | None
    corrected: float | None
    corrected_low: float | None
    corrected_high: float | None
    per_100: float | None
    per_100_low: float | None
    per_100_high: float | None


@dataclass(frozen=True, slots=True)
class Group:
    """The differential of one patient or slide (slide "" for the patient).

    `counts` share the denominator `total`, `aside` stand outside of it; `ratio` is myeloid to erythroid with its
    interval, None in blood.
    """

    level: str
    patient: str
    slide: str
    total: int
    counts: tuple[Count, ...]
    aside: tuple[Count, ...]
    figure: BarFigure
    ratio: tuple[float | None, float | None, float | None]

    @property
    def no_erythroid(self) -> bool:
        """Whether the ratio is infinite, as no erythroid cell was counted."""
        return self.ratio[0] is not None and math.isinf(self.ratio[0])


def groups(differential: pd.DataFrame, summary: pd.DataFrame, legend: Legend) -> list[Group]:
    """The differential as the report prints it, one entry for each patient and each slide.

    Parameters
    ----------
    differential, summary : DataFrame
        As the functions of these names in `report.differential` return them.
    legend : Legend
        Titles and colours.
    """
    keys = ["level", "patient", "slide"]
    ratios = {
        (str(r.level), str(r.patient), str(r.slide)): (_known(r.me_ratio), _known(r.me_low), _known(r.me_high))
        for r in summary.itertuples()
    }
    return [
        _group((str(level), str(patient), str(slide)), rows, ratios, legend)
        for (level, patient, slide), rows in differential.groupby(keys, sort=False)
    ]


def _group(
    key: tuple[str, str, str],
    rows: pd.DataFrame,
    ratios: Mapping[tuple[str, str, str], tuple[float | None, float | None, float | None]],
    legend: Legend,
) -> Group:
    """One patient or slide."""
    within = rows["in_denominator"].astype(bool)
    inside, beside = rows[within], rows[~within]
    return Group(
        level=key[0],
        patient=key[1],
        slide=key[2],
        total=int(inside["n"].sum()),
        counts=tuple(_counts(inside, legend)),
        aside=tuple(_counts(beside, legend)),
        figure=bar_figure(inside, legend),
        ratio=ratios.get(key, (None, None, None)),
    )


def _counts(rows: pd.DataFrame, legend: Legend) -> list[Count]:
    """Rows of the differential in its own order: that of the scheme, the unclassified last."""
    ordered = rows.to_dict("records")
    shares = ("percent", "low", "high", "simultaneous_low", "simultaneous_high")
    names = (*shares, "corrected", "corrected_low", "corrected_high", "per_100_wbc", "per_100_low", "per_100_high")
    return [
        Count(legend[str(row["class"])], int(str(row["n"])), *(_known(row[name]) for name in names))
        for row in (_shared_out(row) if row["class"] == UNCLASSIFIED else row for row in ordered)
    ]


def _shared_out(row: dict[Hashable, object]) -> dict[Hashable, object]:
    """The line of the unclassified without a corrected share: the correction has shared them out among the classes."""
    return {**row, "corrected": float("nan"), "corrected_low": float("nan"), "corrected_high": float("nan")}


def _known(value: object) -> float | None:
    """`value` as a number, None for NaN."""
    number = float(str(value))
    return None if math.isnan(number) else number


def cautions(
    cells: pd.DataFrame,
    found: Sequence[Group],
    fields: Sequence[FieldRecord],
    problems: Sequence[tuple[str, str]],
    atlas: Mapping[str, object],
    obs: pd.DataFrame,
) -> list[Caution]:
    """Everything a reader must know before the numbers, the gravest first.

    Parameters
    ----------
    cells : DataFrame
        The cells as `sightings` gives them.
    found : sequence of Group
        The differential.
    fields : sequence of FieldRecord
        All fields of the study.
    problems : sequence of (str, str)
        Inputs that never became a field, and why.
    atlas : mapping
        ``classes`` and ``distance_limit`` of the reference atlas.
    obs : DataFrame
        The whole cell table, deleted cells included.
    """
    all_of_them = [
        _unnamed(atlas),
        _failed(fields, problems),
        _noted(fields),
        _lost(obs),
        _far(cells, atlas),
        _few(found),
        _scale(cells),
        _unsure(cells) if atlas else _unnamed_all(cells),
        _unchecked(cells),
    ]
    return [caution for caution in all_of_them if caution is not None]


def _unnamed(atlas: Mapping[str, object]) -> Caution | None:
    """Which critical classes the atlas has never seen."""
    classes = atlas.get("classes")
    if not isinstance(classes, Sequence) or isinstance(classes, str):
        return None
    names = [describe(name).title.lower() for name in unnamed_by(str(c) for c in classes)]
    if not names:
        return None
    return Caution(
        "warning",
        f"Cannot be named by this atlas: {', '.join(names)}",
        "A leukaemic cell would be given the nearest class the atlas does know or left unclassified. A count without "
        "such cells in this report does not mean that there are none: look at the galleries and at the smear.",
    )


def _failed(fields: Sequence[FieldRecord], problems: Sequence[tuple[str, str]]) -> Caution | None:
    """Inputs that could not be used."""
    items = tuple((f.file, f.problem or "no reason was kept") for f in fields if f.status == "failed") + tuple(problems)
    if not items:
        return None
    text = "They are missing from every number below."
    title = f"{number_of(len(items), 'input')} could not be used"
    return Caution("warning", title, text, items, f"{number_of(len(items), 'input')} not used")


def _lost(obs: pd.DataFrame) -> Caution | None:
    """Cells that a person has named and the segmentation no longer finds."""
    lost = obs[flag(obs, "gone") & (text(obs, "label") != "")]
    if not len(lost):
        return None
    items = tuple(zip(lost.index.astype(str)[:NAMES_SHOWN], text(lost, "label")[:NAMES_SHOWN], strict=True))
    more = f" {len(lost) - len(items)} more are not listed." if len(lost) > len(items) else ""
    return Caution(
        "warning",
        f"{number_of(len(lost), 'cell')} named by a person and not found again",
        "The field was segmented anew. They are not counted; their names are kept. Add them by hand if they are cells."
        + more,
        items,
        f"{number_of(len(lost), 'named cell')} not found again",
    )


def _noted(fields: Sequence[FieldRecord]) -> Caution | None:
    """What was odd about fields that are used, entries of brought cells that were left out among it."""
    noted = [field for field in fields if field.status == "ok" and field.problem]
    if not noted:
        return None
    items = tuple((field.file, field.problem) for field in noted[:NAMES_SHOWN])
    more = f" {len(noted) - len(items)} more are not listed." if len(noted) > len(items) else ""
    return Caution("note", f"{number_of(len(noted), 'field')} with a note", f"They are used as they are.{more}", items)


def _far(cells: pd.DataFrame, atlas: Mapping[str, object]) -> Caution | None:
    """How many cells lie further from the atlas than its own kind do."""
    limit = _known(atlas.get("distance_limit", "nan"))
    measured = cells.loc[cells["reason"] == "", "distance"].dropna()
    if limit is None or not len(measured):
        return None
    far = int((measured > limit).sum())
    share = far / len(measured)
    if not far:
        return None
    of = number_of(len(measured), "counted cell")
    title = f"{far:,} of {of} ({share:.1%}) beyond the distance limit of the atlas"
    slides = [one for one in by_slide(measured, cells.loc[measured.index, "slide"].to_numpy(str), limit) if one.unlike]
    if share < FAR_SHARE and not slides:
        return Caution("note", title, "They look like no reference cell. A few such cells are expected in any smear.")
    return Caution(
        "warning",
        title,
        "So many point to a stain, scanner or magnification that the atlas does not know. Treat all classes with "
        "reserve. The command classify with --adapt auto tries what brings the cells nearer; better is an atlas made "
        "from smears of your own laboratory."
        + (" Slides whose stain is unlike the reference beyond doubt:" if slides else ""),
        tuple((one.slide, f"{one.far:,} of {number_of(one.cells, 'cell')}") for one in slides[:NAMES_SHOWN]),
        short=f"{share:.0%} unlike the atlas",
    )


def _scale(cells: pd.DataFrame) -> Caution | None:
    """Fields whose magnification nobody and nothing told."""
    fields = cells.loc[cells["scale_from"] == "assumed", "field"].nunique()
    if not fields:
        return None
    return Caution(
        "warning",
        f"The pixel size of {number_of(fields, 'field')} was assumed",
        "Neither the file nor the red cells told it. If it is wrong, cells are missed or cut out at another size than "
        "those of the atlas: give the pixel size and run again.",
        short="pixel size assumed",
    )


def _few(found: Sequence[Group]) -> Caution | None:
    """Patients with a short count: a warning under 100 cells, else a note under 200."""
    patients = [g for g in found if g.level == "patient"]
    few = next((few for few in FEW if any(g.total < few for g in patients)), 0)
    short = [g for g in patients if g.total < few]
    if not short:
        return None
    items = tuple((g.patient, number_of(g.total, "cell")) for g in short[:NAMES_SHOWN])
    more = f" {len(short) - len(items)} more are not listed." if len(short) > len(items) else ""
    return Caution(
        "warning" if few == FEW[0] else "note",
        f"Fewer than {few} cells counted for {number_of(len(short), 'patient')}",
        "The intervals are wide; a rare class can be missed altogether." + more,
        items,
        f"fewer than {few} cells",
    )


def _unsure(cells: pd.DataFrame) -> Caution | None:
    """How many cells the classifier abstained on."""
    counted = cells[cells["reason"] == ""]
    unsure = int((counted["shown"] == UNCLASSIFIED).sum())
    if not unsure:
        return None
    share = unsure / len(counted)
    return Caution(
        "warning" if share >= UNSURE_SHARE else "note",
        f"{number_of(unsure, 'counted cell')} ({share:.1%}) left unclassified",
        "Too few of their nearest reference cells agreed, or all are too far away. They stay in the denominator; see "
        "their gallery.",
        short=f"{share:.0%} unclassified",
    )


def _unnamed_all(cells: pd.DataFrame) -> Caution | None:
    """Say that nothing was classified, where there was no atlas to do it with."""
    if not len(cells):
        return None
    text = "Only cells that a person has named have a class; all others are listed as unclassified."
    return Caution("warning", "No reference atlas was used", text)


def _unchecked(cells: pd.DataFrame) -> Caution | None:
    """How much of this a person has looked at."""
    if not len(cells):
        return None
    seen = int((cells["by_hand"] | cells["reviewed"]).sum())
    return Caution(
        "note",
        f"{seen:,} of {number_of(len(cells), 'cell')} checked by a person",
        "Classes not given by a person come from the classifier, where there is one.",
    )
