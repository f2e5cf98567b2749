"""New patients on a reference cohort's map: labelled pictures in, the map of the cohort and a figure out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.tables import unreadable
from napari_dinobloom.progress import Steps
from napari_dinobloom.report.figure_file import check_files

if TYPE_CHECKING:
    import pandas as pd

    from napari_dinobloom.explore.projection import Projection

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class CohortFigure:
    """What is drawn, and how."""

    table: Path
    """CSV with the columns ``file`` (relative to it), ``patient`` and ``diagnosis``, one picture of a cell a row."""
    out: Path
    """The figure, .png, .pdf, .svg or .jpg."""
    new: tuple[str, ...] = ()
    """New patients; by default the last one of each diagnosis."""
    colour: Literal["diagnosis", "class"] = "diagnosis"
    """What colours mean; ``class`` is the name that the encoder's bundled atlas gives."""
    encoder: str = "starter"
    """Name in the registry, or a file of weights."""
    device: str = "auto"
    """As for `load_encoder`."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """As for `load_encoder`."""
    seed: int = 42
    """Of the map."""
    save_map: Path | None = None
    """File for the cohort's map."""
    on: Path | None = None
    """The cohort's map of an earlier figure, instead of fitting one."""

    def __post_init__(self) -> None:
        check_files(self.out, self.save_map)


def iter_cohort_figure(asked: CohortFigure) -> Steps[list[Path]]:
    """Fit a map to the cells of reference patients, place new patients' cells on it and draw both.

    Patients who share a picture with a new one are left out of the cohort.

    Yields
    ------
    Progress

    Returns
    -------
    list of Path
        The figure, and the map where it was to be kept.

    Raises
    ------
    DinoBloomError
        If a column, file or patient is missing, or a map belongs to another encoder.
    """
    from napari_dinobloom.cells.crop import CropPolicy
    from napari_dinobloom.encoders.encoder import load_encoder
    from napari_dinobloom.explore.projection import Projection
    from napari_dinobloom.predict.pictures import iter_embed_files

    rows = read_table(asked.table)
    cohort, new = split(rows, asked.new)
    earlier = None if asked.on is None else Projection.load(asked.on)
    with load_encoder(asked.encoder, asked.device, asked.precision) as encoder:
        files = list(dict.fromkeys([*new["file"], *cohort["file"]]))
        paths = [asked.table.parent / file for file in files]
        vectors = (yield from iter_embed_files(paths, encoder, CropPolicy(kind="published"))).X
        facts = {"encoder": encoder.name, "encoder_sha256": encoder.sha256, "pooling": encoder.pooling}
    return (yield from iter_draw(asked, cohort, new, dict(zip(files, vectors, strict=True)), facts, earlier))


def iter_draw(
    asked: CohortFigure,
    cohort: pd.DataFrame,
    new: pd.DataFrame,
    vectors: dict[str, Float32],
    facts: dict[str, str],
    projection: Projection | None = None,
) -> Steps[list[Path]]:
    """Do what `iter_cohort_figure` does with embeddings that are there, by file."""
    from anndata import AnnData

    from napari_dinobloom.explore.layout import check_encoder, iter_umap
    from napari_dinobloom.io.atomic import disk_errors
    from napari_dinobloom.report.map_figure import Cells, draw_cohort

    files = list(dict.fromkeys(cohort["file"]))
    adata = AnnData(np.stack([vectors[file] for file in files]))
    adata.obs_names = files
    adata.uns["dinobloom"] = dict(facts)
    if projection is None:
        projection = yield from iter_umap(adata, seed=asked.seed)
    check_encoder(adata, projection)
    everyone = [*dict.fromkeys([*cohort["file"], *new["file"]])]
    spots = yield from projection.iter_place(np.stack([vectors[file] for file in everyone]))
    at = dict(zip(everyone, spots, strict=True))
    kinds, colours, names = _kinds(asked, cohort, new, vectors, facts["encoder"])

    def cells(rows: pd.DataFrame, title: str) -> Cells:
        found = np.array([kinds[row] for row in rows.index])
        return Cells(title, np.stack([at[file] for file in rows["file"]]), found)

    panels = [
        cells(part, f"{patient}: {part['diagnosis'].iloc[0].replace('_', ' ')}, {len(part)} cells")
        for patient, part in new.groupby("patient", sort=False)
    ]
    pictures = f" on {len(files):,} pictures" if len(files) < len(cohort) else ""
    title = f"Reference cohort: {cohort['patient'].nunique()} patients, {len(cohort):,} cells{pictures}"
    note = (
        f"UMAP of {len(projection):,} cells, seed {projection.params.get('seed')}, map {projection.hash[:8]}; encoder "
        f"{facts['encoder']} {facts['encoder_sha256'][:8]}; new cells placed by exact neighbours. Research use."
    )
    with disk_errors(asked.out):
        written = [draw_cohort(cells(cohort, title), panels, colours, names, note, asked.out)]
        if asked.save_map is not None:
            written.append(projection.save(asked.save_map))
    return written


def read_table(path: Path) -> pd.DataFrame:
    """Read which picture is whose; raise InputError where a column or a file is missing."""
    import pandas as pd

    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    rows = pd.DataFrame({str(name).strip(): rows[name].str.strip() for name in rows.columns})
    missing = [name for name in ("file", "patient", "diagnosis") if name not in rows]
    if missing or not len(rows):
        raise InputError(f"{path}: needs rows with the columns file, patient, diagnosis; {missing} are missing.")
    for number, file in enumerate(rows["file"], start=2):
        if not (path.parent / file).is_file():
            raise InputError(f"{path}: row {number} names {file[:200]!r}, which is not beside the CSV.")
    return rows


def split(rows: pd.DataFrame, new: tuple[str, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Part rows into those of reference patients and of new ones, who share no picture."""
    patients = set(rows["patient"])
    if unknown := [name for name in new if name not in patients]:
        raise InputError(f"There is no patient {unknown[0][:60]!r}. Patients: {', '.join(sorted(patients)[:8])}, ...")
    chosen = new or tuple(rows.drop_duplicates("patient").groupby("diagnosis", sort=False)["patient"].last())
    fresh = rows[rows["patient"].isin(chosen)]
    fresh = fresh.iloc[np.argsort([chosen.index(name) for name in fresh["patient"]], kind="stable")]
    shared = set(rows.loc[rows["file"].isin(set(fresh["file"])), "patient"])
    cohort = rows[~rows["patient"].isin(shared | set(chosen))]
    if cohort["file"].nunique() < 12:
        raise InputError("Fewer than 12 cells of reference patients are left: every other patient shares a picture.")
    return cohort, fresh


def _kinds(
    asked: CohortFigure, cohort: pd.DataFrame, new: pd.DataFrame, vectors: dict[str, Float32], encoder: str
) -> tuple[dict[Any, str], dict[str, str], dict[str, str]]:
    """What each row counts as, with colours and names in the order of the legend."""
    import pandas as pd

    from napari_dinobloom.explore.gate_tree import COLOURS
    from napari_dinobloom.predict.atlas import Atlas
    from napari_dinobloom.report.legend import Legend

    rows = pd.concat([cohort, new])
    if asked.colour == "diagnosis":
        found = list(dict.fromkeys(rows["diagnosis"]))
        colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(found)}
        return dict(rows["diagnosis"].items()), colours, {name: name.replace("_", " ") for name in found}
    atlas = Atlas.bundled(encoder, "published")
    files = list(dict.fromkeys(rows["file"]))
    named = atlas.classify(np.stack([vectors[file] for file in files]))["predicted"]
    by_file = dict(zip(files, named, strict=True))
    entries = Legend(by_file.values(), {}).entries
    kinds = {row: by_file[file] for row, file in rows["file"].items()}
    return kinds, {one.name: one.colour for one in entries}, {one.name: one.title for one in entries}
