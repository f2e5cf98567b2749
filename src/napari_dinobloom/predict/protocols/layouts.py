"""Labelled data sets as they were published: which file shows which class, of whom, and for what it is kept.

Known are the external set of the paper (Acevedo et al. 2020, 8 folders, 11 classes by file name), the bone marrow set
(Matek et al. 2021, BMC) with the paper's lists of pictures, the patients of Hehr et al. 2023, any folder of class
folders (also below ``train`` and ``test``), and any CSV. Files come sorted by their names, whatever the file system
says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.datasets import DATASETS, match
from napari_dinobloom.io.inputs import Source, find_images
from napari_dinobloom.predict.protocols.tables import Row, find_lists, read_lists, read_table

Layout = Literal["acevedo", "bmc", "hehr", "folders", "table"]

LAYOUTS: tuple[Layout, ...] = ("acevedo", "bmc", "hehr", "folders", "table")

BMC_CLASSES = frozenset(
    "ABE ART BAS BLA EBO EOS FGC HAC KSC LYI LYT MMZ MON MYB NGB NGS NIF OTH PEB PLM PMO".split()  # noqa: SIM905
)
"""The 21 classes of BMC."""

ACEVEDO_UNSURE = frozenset({"IG", "NEUTROPHIL"})
"""Prefixes of the archive that name none of the paper's 11 classes: immature granulocytes and neutrophils at large."""

MOST = 0.9
"""Least share of the pictures of a folder that must be laid out as a data set for it to be taken for that."""

COLUMNS = ["file", "label", "split", "patient"]


@dataclass(frozen=True, slots=True, eq=False)
class LabelledFiles:
    """The pictures of a data set.

    Attributes
    ----------
    root : Path
        Folder that files are named from.
    layout : str
        One of `LAYOUTS`.
    table : DataFrame
        One row a picture, sorted by ``file`` (path below `root`, with slashes); ``label`` its class, ``split``
        ``train``, ``test`` or ``""`` where nothing is fixed, ``patient`` or ``""`` where unknown.
    notes : tuple of str
        What was left out, in words.
    """

    root: Path
    layout: Layout
    table: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """The files."""
        return [self.root / file for file in self.table["file"]]

    @property
    def fixed(self) -> bool:
        """Whether the data set says which pictures are for training and which for testing."""
        return bool((self.table["split"] != "").all())

    def keep(self, rows: NDArray[Any] | slice) -> LabelledFiles:
        """The same data set with some of its rows: a mask, positions or a slice."""
        return LabelledFiles(self.root, self.layout, self.table.iloc[rows].reset_index(drop=True), self.notes)


def read_layout(path: str | Path, layout: str = "auto", *, lists: str | Path | None = None) -> LabelledFiles:
    """Find the pictures of a data set.

    Parameters
    ----------
    path : str or Path
        Folder in which its archive was unpacked, a folder of class folders, or a CSV with the columns ``file``
        (relative to the CSV's folder) and ``cell_type``, and perhaps ``split`` (``train``, ``test``; others are left
        out) and ``patient``.
    layout : str, default: "auto"
        One of `LAYOUTS`; "auto" takes a file for a table, and a folder for the first data set as which nine tenths of
        its pictures are laid out, else for class folders.
    lists : str or Path, optional
        Folder of ``bm_train.csv`` and ``bm_test.csv`` (columns ``Image Path,Label``) for BMC; by default `path` and its
        folder ``splits`` are searched.

    Returns
    -------
    LabelledFiles

    Raises
    ------
    InputError
        If there is no such file or layout, nothing is laid out so, a list names a picture that is not there, a class is
        empty, or fewer than two classes are left; the message names file and remedy.
    """
    path = Path(path).expanduser().resolve()
    if layout not in ("auto", *LAYOUTS):
        raise InputError(f"Layout {layout!r} is not known. Use auto, {', '.join(LAYOUTS)}.")
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder. Check the name.")
    if path.is_file() != (layout == "table") and layout != "auto":
        raise InputError(f"{path}: layout {layout!r} needs a {'CSV' if layout == 'table' else 'folder'}.")
    if lists is not None and layout not in ("auto", "bmc"):
        raise InputError(f"{lists}: lists of pictures belong to the layout 'bmc', not to {layout!r}. Leave them out.")
    if path.is_file():
        found = _sorted(path.parent, "table", *read_table(path))
    else:
        sources = find_images([path]).files
        if not sources:
            raise InputError(f"{path}: holds no pictures. Name the folder in which the data set was unpacked.")
        name = _detect(path, sources, lists) if layout == "auto" else layout
        found = {"acevedo": _acevedo, "bmc": _bmc, "hehr": _hehr}.get(name, _folders)(path, sources, lists)
    classes = found.table["label"].nunique()
    if classes < 2:
        raise InputError(f"{path}: read as {found.layout!r} it has {classes} class. Two or more are needed.")
    return found


def _sorted(root: Path, layout: Layout, rows: Sequence[Row], notes: Sequence[str]) -> LabelledFiles:
    """Rows (file, label, split, patient) in the order of their files."""
    return LabelledFiles(root, layout, pd.DataFrame(sorted(rows), columns=COLUMNS, dtype=object), tuple(notes))


def _detect(root: Path, sources: list[Source], lists: str | Path | None) -> str:
    """Name of the layout of a folder."""
    enough = MOST * len(sources)
    if lists is not None or find_lists(root) is not None:
        return "bmc"
    known = set(DATASETS["acevedo"].labels) | ACEVEDO_UNSURE
    if sum(found.label.upper() in known for found in match("acevedo", sources)) >= enough:
        return "acevedo"
    if len(match("hehr", sources)) >= enough:
        return "hehr"
    if sum(found.label.upper() in BMC_CLASSES for found in match("bmc", sources)) >= enough:
        return "bmc"
    return "folders"


def _acevedo(root: Path, sources: list[Source], lists: str | Path | None) -> LabelledFiles:
    """Eleven classes by the prefix of the file's name, whichever of the folders it lies in."""
    found = match("acevedo", sources)
    known = [one for one in found if one.label.upper() in DATASETS["acevedo"].labels]
    notes = _left_out(root, "acevedo", len(sources) - len(known), known)
    unsure = sum(one.label.upper() in ACEVEDO_UNSURE for one in found)
    if unsure:
        notes.append(f"{unsure} of them begin with {' or '.join(sorted(ACEVEDO_UNSURE))}, none of the 11 classes.")
    return _sorted(root, "acevedo", [(one.file, one.label.upper(), "", "") for one in known], notes)


def _hehr(root: Path, sources: list[Source], lists: str | Path | None) -> LabelledFiles:
    """Patients below their diagnosis, which is the class of all their cells."""
    found = match("hehr", sources)
    notes = _left_out(root, "hehr", len(sources) - len(found), found)
    labels: dict[str, set[str]] = {}
    for one in found:
        labels.setdefault(one.patient, set()).add(one.label)
    two = sorted(patient for patient, names in labels.items() if len(names) > 1)
    if two:
        raise InputError(
            f"{root}: patient {two[0]!r} lies below {' and '.join(sorted(labels[two[0]]))}. Remove one of the folders."
        )
    return _sorted(root, "hehr", _one_split([(one.file, one.label, one.split, one.patient) for one in found]), notes)


def _bmc(root: Path, sources: list[Source], lists: str | Path | None) -> LabelledFiles:
    """The paper's lists where they are there, else class folders."""
    place = find_lists(Path(lists).expanduser() if lists is not None else root)
    if place is None and lists is not None:
        raise InputError(
            f"{lists}: has no bm_train.csv and bm_test.csv. Name the folder `splits` of marrlab/DinoBloom."
        )
    if place is not None:
        return _sorted(root, "bmc", read_lists(place, sources), ())
    found = [one for one in match("bmc", sources) if one.label.upper() in BMC_CLASSES]
    notes = _left_out(root, "bmc", len(sources) - len(found), found)
    return _sorted(root, "bmc", _one_split([(one.file, one.label.upper(), one.split, "") for one in found]), notes)


def _folders(root: Path, sources: list[Source], lists: str | Path | None) -> LabelledFiles:
    """One folder for each class, perhaps below ``train`` and ``test``."""
    parts = [source.file.split("/") for source in sources]
    split = {"train", "test"} <= {part[0].casefold() for part in parts}
    depth = 1 if split else 0
    rows = [
        (source.file, part[depth], part[0].casefold() if split else "", "")
        for source, part in zip(sources, parts, strict=True)
        if len(part) > depth + 1 and (not split or part[0].casefold() in ("train", "test"))
    ]
    return _sorted(root, "folders", rows, _left_out(root, "folders", len(sources) - len(rows), rows))


def _one_split(rows: list[Row]) -> list[Row]:
    """The folders ``train`` and ``test`` count where every picture lies in one, and there are both."""
    if {split for _, _, split, _ in rows} == {"train", "test"}:
        return rows
    return [(file, label, "", patient) for file, label, _, patient in rows]


def _left_out(root: Path, layout: str, count: int, found: Sequence[object]) -> list[str]:
    """Say that pictures are laid out otherwise, or raise InputError where all are."""
    wanted = DATASETS[layout].source if layout in DATASETS else "one folder of pictures for each class"
    if not found:
        raise InputError(f"{root}: holds no picture laid out as {layout!r} ({wanted}). Name its folder, or a layout.")
    return [f"{count} pictures are not laid out as {layout!r} and are left out."] if count else []
