"""Pseudonyms: what stands for patients, slides, fields and people in files that leave the laboratory.

``P001``, ``S001``, ``F0001`` and ``R01`` are given once and kept in ``pseudonyms.json`` in the study, the only place
that says who is who; it is written into nothing else. A number carries nothing of the name, so that nobody can find a
name by trying names, as with a hash, and new names get theirs in an order that is drawn, so that it does not follow the
alphabet.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.atomic import disk_errors, write_text
from napari_dinobloom.io.celltable import COLUMNS, cell_id
from napari_dinobloom.io.trust import inside

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_dinobloom.io.fields import FieldRecord
    from napari_dinobloom.io.masks import FieldMasks
    from napari_dinobloom.io.smear import Smear
    from napari_dinobloom.io.study import Study

FILE = "pseudonyms.json"
SCHEMA = 1

Kind = Literal["patients", "slides", "fields", "people"]
FORMS: dict[Kind, tuple[str, int]] = {"patients": ("P", 3), "slides": ("S", 3), "fields": ("F", 4), "people": ("R", 2)}
"""Letter and least number of digits of each kind."""

UNTOLD = "the reason stands in the study's own report"
"""Instead of free text that came with a file: nobody can take a name out of it that he does not know."""

_NOTES = (
    "schema",
    "encoder",
    "encoder_sha256",
    "encoder_key",
    "pooling",
    "stain",
    "preprocessing",
    "precision",
    "device",
    "distance_limit",
    "confusion",
)
"""What of ``uns["dinobloom"]`` says nothing of anybody."""

_QUOTED = re.compile(r"(?<!\w)(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")")
"""A name as Python quotes it."""


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Who is who in one study.

    Attributes
    ----------
    names : mapping
        For each kind (``patients``, ``slides``, ``fields``, ``people``) every name and its pseudonym.
    """

    names: Mapping[Kind, Mapping[str, str]]

    def of(self, kind: Kind, name: str) -> str:
        """The pseudonym of a name, "" for none; KeyError for a name that was not there when they were given."""
        return self.names[kind][name] if name else ""

    def cell(self, name: str) -> str:
        """The pseudonym of a cell: its number in its field stays; "" for a cell of a field that is not known."""
        field, _, number = name.rpartition(":")
        alias = self.names["fields"].get(field, "")
        return cell_id(alias, int(number)) if alias else ""

    def in_text(self, text: str, others: Iterable[str] = ()) -> str:
        """Replace the patients in a sentence of ours, which quotes every name as Python does.

        Returns
        -------
        str
            The sentence; "" where it quotes anything but patients and `others`: who that is, nobody here knows.
        """
        known = {repr(name): repr(name) for name in others}
        known |= {repr(name): repr(alias) for name, alias in self.names["patients"].items()}
        if not set(_QUOTED.findall(text)) <= set(known):
            return ""
        return _QUOTED.sub(lambda found: known[found[0]], text)

    def grown(self, wanted: Mapping[Kind, Iterable[str]]) -> Pseudonyms:
        """Pseudonyms for these names too; itself where all have one. Those that were given stay."""
        names: dict[Kind, dict[str, str]] = {kind: dict(self.names.get(kind, {})) for kind in FORMS}
        draw = random.SystemRandom()
        for kind, (letter, digits) in FORMS.items():
            new = sorted({name for name in wanted.get(kind, ()) if name} - set(names[kind]))
            draw.shuffle(new)
            last = max((int(alias[1:]) for alias in names[kind].values()), default=0)
            names[kind] |= {name: f"{letter}{last + i:0{digits}d}" for i, name in enumerate(new, start=1)}
        return Pseudonyms(names) if names != self.names else self


def pseudonyms_of(study: Study) -> Pseudonyms:
    """Return the pseudonyms of a study; names that have none get theirs, which is written before it is used.

    Raises
    ------
    StudyError
        If the file cannot be read, or names are new and the study cannot be written.
    """
    known = read_pseudonyms(study.path)
    obs = study.cells.obs
    fields = study.fields
    wanted: dict[Kind, Iterable[str]] = {
        "patients": {*(f.patient for f in fields), *obs["patient"].astype(str)},
        "slides": {*(f.slide for f in fields), *obs["slide"].astype(str)},
        "fields": {*(f.id for f in fields), *obs["field"].astype(str)},
        "people": {*obs["label_by"].astype(str), *(act.who for act in study.acts)},
    }
    grown = known.grown(wanted)
    if grown is not known:
        study.ensure_writable()
        path = inside(study.path, FILE)
        text = json.dumps({"schema": SCHEMA, **grown.names}, indent=1, ensure_ascii=False)
        with disk_errors(path):
            write_text(path, text + "\n")
    return grown


def read_pseudonyms(folder: Path) -> Pseudonyms:
    """Read and check the key table of a study; an empty one where there is none.

    Raises
    ------
    StudyError
        If it is damaged, or two names share a pseudonym.
    """
    path = inside(folder, FILE)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Pseudonyms({kind: {} for kind in FORMS})
    except (OSError, ValueError, RecursionError) as error:
        raise StudyError(f"{path}: cannot be read ({error}). {_REMEDY}") from error
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        raise StudyError(f"{path}: is no table of pseudonyms of schema {SCHEMA}. {_REMEDY}")
    return Pseudonyms({kind: _checked(raw.get(kind), kind, path) for kind in FORMS})


_REMEDY = "Take it from a backup, or delete it: all pseudonyms are then given anew and no longer fit earlier files."


def _checked(raw: Any, kind: Kind, path: Path) -> dict[str, str]:
    """The names of one kind, each with a pseudonym of its form that no other name has."""
    letter = FORMS[kind][0]
    if not isinstance(raw, dict):
        raise StudyError(f"{path}: {kind} must be an object. {_REMEDY}")
    for name, alias in raw.items():
        if not isinstance(alias, str) or not re.fullmatch(rf"{letter}[0-9]{{1,9}}", alias):
            raise StudyError(f"{path}: {str(alias)[:40]!r} is no pseudonym of {name[:40]!r} ({letter}001). {_REMEDY}")
    if len(set(raw.values())) < len(raw):
        raise StudyError(f"{path}: two of the {kind} share a pseudonym. {_REMEDY}")
    return dict(raw)


class PseudonymousStudy:
    """A study as it may be told to others: what a report or an export reads of it, under pseudonyms.

    Patients, slides, fields with their files, cells and people have their pseudonyms; notes on fields, which quote
    files, are left out. Embeddings, gates and graphs are not there. Classes, colours and the name of the atlas are as
    in the study, and so are the pixels.

    Parameters
    ----------
    study : Study
        The study; new names get their pseudonyms.

    Attributes
    ----------
    path : Path
        Folder of the study, for what is read from it; not to be told.
    pseudonyms : Pseudonyms
        Who is who.
    name : str
        ``Study`` and the first digits of the study's random id.
    """

    def __init__(self, study: Study) -> None:
        self.pseudonyms = pseudonyms_of(study)
        self.path = study.path
        self.name = f"Study {study.id[:8]}"
        self.specimen = study.specimen
        self.palette = dict(study.palette)
        self._study = study
        self._fields = [self._field(record) for record in study.fields]
        self._ids = {alias: name for name, alias in self.pseudonyms.names["fields"].items()}
        self._cells: tuple[int, AnnData] | None = None

    @property
    def fields(self) -> list[FieldRecord]:
        """All fields under their pseudonyms, in an order that does not tell their names."""
        return sorted(self._fields, key=lambda record: record.id)

    @property
    def cells(self) -> AnnData:
        """The cell table without embeddings, row for row as the study's."""
        version = self._study.cells_version
        if self._cells is None or self._cells[0] != version:
            self._cells = (version, self._table())
        return self._cells[1]

    def read_field(self, field_id: str) -> Smear:
        """Open the image of a field; a `StudyError` that names no file where it is not found."""
        try:
            return self._study.read_field(self._ids[field_id])
        except (StudyError, OSError, ValueError):
            raise StudyError(f"{field_id}: {UNTOLD}.") from None

    def masks(self, field_id: str) -> FieldMasks:
        """Bitmaps of the cells of a field."""
        try:
            return self._study.masks(self._ids[field_id])
        except (StudyError, OSError, ValueError):
            raise StudyError(f"{field_id}: has no readable outlines; {UNTOLD}.") from None

    def _field(self, record: FieldRecord) -> FieldRecord:
        """One field; its file keeps its ending only, its problem no words that quote."""
        alias = self.pseudonyms.of("fields", record.id)
        problem = record.problem
        if record.status == "same_as":
            problem = self.pseudonyms.names["fields"].get(problem, "another field")
        elif problem:
            problem = UNTOLD
        return replace(
            record,
            id=alias,
            file=alias + _ending(record.file),
            root="",
            slide=self.pseudonyms.of("slides", record.slide),
            patient=self.pseudonyms.of("patients", record.patient),
            problem=problem,
        )

    def _table(self) -> AnnData:
        """Make the cell table."""
        from anndata import AnnData

        adata, names = self._study.cells, self.pseudonyms
        obs = adata.obs[list(COLUMNS)].copy()  # what another program added may be anything
        for column, kind in (("patient", "patients"), ("slide", "slides"), ("field", "fields"), ("label_by", "people")):
            obs[column] = [names.of(kind, str(value)) for value in obs[column]]  # type: ignore[arg-type]
        for column in ("cell_id", "duplicate_of"):
            obs[column] = [names.cell(str(value)) for value in obs[column]]
        obs.index = pd.Index(obs["cell_id"].to_numpy(object), dtype=object)
        told: dict[str, Any] = {key: np.asarray(adata.obsm[key]) for key in ("X_umap", "spatial") if key in adata.obsm}
        notes = dict(adata.uns.get("dinobloom", {}))
        return AnnData(obs=obs, obsm=told, uns={"dinobloom": {key: notes[key] for key in _NOTES if key in notes}})


def _ending(file: str) -> str:
    """The ending of a picture's name, if it is one that pictures have."""
    suffix = PurePosixPath(file).suffix.lower()
    return suffix if suffix in (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".svs", ".ndpi") else ""
