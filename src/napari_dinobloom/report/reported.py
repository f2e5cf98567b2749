"""What a report reads of a study, gathered once for whatever page says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Protocol, Required, TypedDict, Unpack

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_dinobloom.cells.taxonomy import UNCLASSIFIED, describe
from napari_dinobloom.report.counting import Selection, Specimen
from napari_dinobloom.report.fields import Fields
from napari_dinobloom.report.legend import Legend
from napari_dinobloom.report.page import Facts, facts
from napari_dinobloom.report.sightings import sightings

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_dinobloom.io.study import FieldRecord
    from napari_dinobloom.report.schemes import Scheme

_PACKAGES = ("napari-dinobloom", "torch", "timm", "numpy", "scikit-image", "umap-learn", "anndata")


class ReportedStudy(Fields, Protocol):
    """What a report reads of a study: its fields, cells and colours."""

    @property
    def name(self) -> str:
        """Name for people."""

    @property
    def specimen(self) -> Specimen:
        """What was smeared."""

    @property
    def cells(self) -> AnnData:
        """The cell table."""

    @property
    def palette(self) -> Mapping[str, str]:
        """Colour of each class."""


class Said(TypedDict, total=False):
    """What a report says beside the study itself; `differential` and `summary` are needed.

    Attributes
    ----------
    differential, summary : DataFrame
        As the functions of these names in `report.differential` return them.
    specimen : {"blood", "marrow"}
        What was counted; by default what the study says.
    atlas_info, encoder_info, settings : mapping
        For the chapter on method; nested mappings are spread out. ``classes`` (sequence of str) and ``distance_limit``
        (float) of the atlas decide on cautions.
    versions : mapping of str to str
        By default those of the installed packages that make numbers.
    licences, problems : sequence of (str, str)
        What is used and its terms; inputs that never became a field and why.
    created : str
        By default now, in UTC.
    scheme, selection
        What the differential was counted by, as its ``scheme`` and ``cells``: other cells are said not to count.
    """

    differential: Required[pd.DataFrame]
    summary: Required[pd.DataFrame]
    specimen: Specimen | None
    atlas_info: Mapping[str, object] | None
    encoder_info: Mapping[str, object] | None
    settings: Mapping[str, object] | None
    versions: Mapping[str, str] | None
    licences: Sequence[tuple[str, str]]
    problems: Sequence[tuple[str, str]]
    created: str | None
    scheme: Scheme | None
    selection: Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInput:
    """Everything a report says, without the pictures.

    Attributes
    ----------
    name : str
        Name of the study.
    specimen : {"blood", "marrow"}
        What was smeared.
    fields : sequence of FieldRecord
        All fields, failed ones included.
    obs : DataFrame
        The study's cell table, indexed by cell_id.
    coordinates : array, (n, 2), float
        Place of each cell on the map, NaN where it has none.
    palette : mapping of str to str
        Colour of each class.
    differential, summary : DataFrame
        As the functions of these names in `report.differential` return them.
    atlas, encoder, settings, versions : mapping
        What stands in the chapter on method; ``classes`` and ``distance_limit`` of the atlas are also judged.
    licences : sequence of (str, str)
        What is used, and under which terms.
    problems : sequence of (str, str)
        Inputs that never became a field, and why.
    created : str
        When, for readers.
    scheme, selection
        What the differential was counted by, as its ``scheme`` and ``cells``.
    """

    name: str
    specimen: Specimen
    fields: Sequence[FieldRecord]
    obs: pd.DataFrame
    coordinates: npt.NDArray[np.float64]
    palette: Mapping[str, str]
    differential: pd.DataFrame
    summary: pd.DataFrame
    atlas: Mapping[str, object] = field(default_factory=dict)
    encoder: Mapping[str, object] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    licences: Sequence[tuple[str, str]] = ()
    problems: Sequence[tuple[str, str]] = ()
    created: str = ""
    scheme: Scheme | None = None
    selection: Selection = "all"

    @classmethod
    def of(cls, study: ReportedStudy, **said: Unpack[Said]) -> ReportInput:
        """Gather it from a study and what is said beside it."""
        adata = study.cells
        return cls(
            name=study.name,
            specimen=said.get("specimen") or study.specimen,
            fields=study.fields,
            obs=pd.DataFrame(adata.obs),
            coordinates=_coordinates(adata),
            palette=study.palette,
            differential=said["differential"],
            summary=said["summary"],
            atlas=said.get("atlas_info") or {},
            encoder=said.get("encoder_info") or {},
            settings=said.get("settings") or {},
            versions=_versions() if (versions := said.get("versions")) is None else versions,
            licences=said.get("licences", ()),
            problems=said.get("problems", ()),
            created=said.get("created") or datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            scheme=said.get("scheme"),
            selection=said.get("selection", "all"),
        )

    def sightings(self) -> pd.DataFrame:
        """The cells as `sightings` gives them, their reasons those of the differential."""
        return sightings(self.obs, self.specimen, scheme=self.scheme, cells=self.selection)

    def beside(self) -> list[str]:
        """Titles of the lines that are given per 100 counted cells."""
        lines = self.differential
        return [self._title(str(name)) for name in lines.loc[~lines["in_denominator"].astype(bool), "class"].unique()]

    def left_out(self) -> list[str]:
        """Titles of the lines that the scheme leaves out."""
        return [line.title for line in self.scheme.classes if line.count == "excluded"] if self.scheme else []

    def _title(self, name: str) -> str:
        """What readers call a line."""
        line = None if self.scheme is None else self.scheme.line(name)
        return describe(name).title if line is None else line.title

    def facts(self, *, brief: bool = False) -> Facts:
        """The chapter on method: title and rows of each table, empty ones left out.

        `brief` leaves out how the atlas came to be, which its hash stands for.
        """
        atlas = {key: value for key, value in self.atlas.items() if not (brief and key == "info")}
        return facts(
            [
                ("Encoder", self.encoder),
                ("Reference atlas", atlas),
                ("Settings", self.settings),
                ("Versions", self.versions),
                ("Licences", self.licences),
            ]
        )

    def legend(self, cells: pd.DataFrame) -> Legend:
        """All classes that any part of the report names; `cells` as `sightings` gives them."""
        named = set(cells["shown"]) | set(cells["nearest"]) | set(self.differential["class"]) | {UNCLASSIFIED}
        titles = {line.name: line.title for line in self.scheme.classes} if self.scheme else {}
        return Legend(named - {""}, self.palette, titles)


def _coordinates(adata: AnnData) -> npt.NDArray[np.float64]:
    """Place of each cell on the active map, NaN where there is none."""
    if "X_umap" not in adata.obsm:
        return np.full((adata.n_obs, 2), np.nan)
    return np.asarray(adata.obsm["X_umap"], dtype=np.float64)[:, :2]


def _versions() -> dict[str, str]:
    """Versions of the installed packages that make numbers."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
