"""Settings of a run: defaults, what a study remembers, what was asked for now."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from napari_dinobloom.cells.segmenter import check_licence, licence_of
from napari_dinobloom.errors import InputError
from napari_dinobloom.io.journal import now, user

Specimen = Literal["blood", "marrow"]

STEPS = ("read", "segment", "crop", "embed", "map", "classify", "differential", "report")
"""The steps of a run, in order."""

_ONE = r"(cpu|mps|cuda(:[0-9]{1,3})?|[0-9]{1,3})"
_DEVICES = re.compile(rf"auto|{_ONE}(, ?{_ONE})*")


@dataclass(kw_only=True, slots=True)
class RunSettings:
    """What decides the numbers of a run; stored in the study."""

    specimen: Specimen = "blood"
    """``blood`` or ``marrow``: which cells are the denominator of the differential."""
    scheme: str = "none"
    """Counting scheme: ``none`` (each class is a line), one that comes along (`report.schemes`), or a YAML file, which
    a run copies into its study."""
    count: Literal["all", "reviewed"] = "all"
    """Cells that the differential counts: all, or those that a person has reviewed or labelled."""
    cells: bool = False
    """Every picture is one cell already: no segmentation, the whole picture is the crop."""
    segmenter: str = "learned"
    """``learned``, ``cellpose``, or the file or folder of cells that are marked already (`io.annotations`)."""
    search: Literal["monolayer", "all"] = "monolayer"
    """Where cells of a whole slide are sought: in its monolayer (`cells.monolayer`), or all over it. Fields, and slides
    whose pixel size nobody knows, are searched all over."""
    accepted_licence: str = ""
    """Licence of a segmenter that was accepted, with who and when; `resolve` writes it for ``accept_licence``."""
    pixel_size_um: float | None = None
    """Micrometres per pixel of all fields; None takes it from the file or from the red cells."""
    slide_from: str = "folder"
    """What tells the slide of a file: ``folder``, ``folder:2``, ``file``, a regular expression or a CSV."""
    patient_from: str = "slide"
    """What tells the patient: as `slide_from`, or ``slide``."""
    fov_um: float = 25.0
    """Side of the square around a cell that the encoder sees, micrometres."""
    fov_diameters: float | None = None
    """The same in diameters of the slide's typical white cell, for slides whose pixel size nobody knows."""
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = "bilinear"
    """How crops are resized, antialiased."""
    mask_neighbours: bool = False
    """Paint other white cells in a crop over with the background."""
    encoder: str = "starter"
    """Name in the registry, or a file of weights."""
    device: str = "auto"
    """``auto``, ``cpu``, ``mps``, ``cuda``, ``cuda:1``, or several of one type: ``cuda:0,cuda:1`` or ``0,1``."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Number format of the encoder."""
    pooling: Literal["own", "class", "class+mean"] = "own"
    """The encoder's own, the class token, or class token and mean patch token one after the other."""
    embeddings: Literal["float32", "bf16"] = "float32"
    """How embeddings are kept: ``bf16`` rounds them to 8 bits of precision, which halves ``embeddings/``."""
    max_memory_gib: float | None = None
    """Memory that the encoder may take, GiB; None or 0 does not limit it. Changes no number."""
    computes: str = ""
    """What `device` and `precision` came to: "auto auto = cpu float32"; a run writes it."""
    stain: Literal["", "reinhard", "macenko"] = ""
    """Recolour the crops of each slide to the stain of the reference before embedding; empty: no."""
    adapt: Literal["", "slide", "patient"] = ""
    """Move the embeddings of each slide or patient towards the reference before they are named; empty: no."""
    atlas: str = "auto"
    """``auto`` (the one that comes with the encoder, if any), ``none``, an atlas or a probe: a name or a file."""
    knn_k: int = 0
    """Reference cells that vote on a cell; 0: as many as the atlas says."""
    knn_metric: Literal["own", "euclidean", "cosine"] = "own"
    """Distance between cells; ``own``: that of the atlas."""
    knn_weights: Literal["own", "uniform", "distance"] = "own"
    """Weight of a vote; ``own``: that of the atlas."""
    neighbours: int = 15
    """Neighbours of a cell in the map."""
    min_dist: float = 0.1
    """How densely UMAP packs."""
    seed: int = 42
    """Of the map."""
    map_method: Literal["umap", "pca"] = "umap"
    """``pca``: the first two principal components instead."""
    map_subset: int | None = None
    """Cells that the map is fitted to, the others being placed; None: all up to 200,000, else 50,000."""
    restandardise: Literal["", "slide", "patient"] = ""
    """Take out of the map what a stain adds to all cells of a slide or patient; empty: no."""

    def __post_init__(self) -> None:
        choices = {
            "specimen": ("blood", "marrow"),
            "count": ("all", "reviewed"),
            "search": ("monolayer", "all"),
            "precision": ("auto", "float32", "bf16"),
            "interpolation": ("bilinear", "bicubic", "lanczos"),
            "pooling": ("own", "class", "class+mean"),
            "embeddings": ("float32", "bf16"),
            "stain": ("", "reinhard", "macenko"),
            "adapt": ("", "slide", "patient"),
            "knn_metric": ("own", "euclidean", "cosine"),
            "knn_weights": ("own", "uniform", "distance"),
            "map_method": ("umap", "pca"),
            "restandardise": ("", "slide", "patient"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is {getattr(self, name)!r}; use {' or '.join(filter(None, allowed))}.")
        if not _DEVICES.fullmatch(str(self.device)):
            raise InputError(
                f"device is {str(self.device)[:60]!r}; use auto, cpu, mps, cuda, cuda:1, or several: cuda:0,cuda:1."
            )
        if self.max_memory_gib is not None and not (self.max_memory_gib == 0 or 0.25 <= self.max_memory_gib < 1e5):
            raise InputError(f"max_memory_gib is {self.max_memory_gib} GiB; use 0.25 or more, or 0 for no limit.")
        if self.pixel_size_um is not None and not 0.01 <= self.pixel_size_um <= 5:
            raise InputError(f"pixel size is {self.pixel_size_um} um: a smear has 0.01 to 5 um per pixel.")
        if not 0 <= self.knn_k <= 1000:
            raise InputError(f"knn_k is {self.knn_k}; use 1 to 1000 reference cells, or 0 for the atlas' own number.")
        if not 2 <= self.neighbours <= 200:
            raise InputError(f"neighbours is {self.neighbours}; use 2 to 200.")
        if not 0 <= self.min_dist < 1:
            raise InputError(f"min_dist is {self.min_dist}; use 0 to below 1.")
        if self.map_subset is not None and self.map_subset < 100:
            raise InputError(f"map_subset is {self.map_subset}; use 100 cells or more.")
        if not 5 <= self.fov_um <= 200:
            raise InputError(f"the field of view is {self.fov_um} um; use 5 to 200 um.")
        if self.fov_diameters is not None and not 0.5 <= self.fov_diameters <= 20:
            raise InputError(f"the field of view is {self.fov_diameters} cell diameters; use 0.5 to 20.")
        if self.cells and self.mask_neighbours:
            raise InputError(
                "mask_neighbours needs cells that were segmented; whole pictures (cells) have none beside."
            )

    @property
    def computed(self) -> tuple[str, str] | None:
        """Device type and number format, if it is known already what `device` and `precision` come to."""
        asked, _, found = self.computes.partition(" = ")
        device_type, _, precision = found.partition(" ")
        return (device_type, precision) if precision and asked == f"{self.device} {self.precision}" else None

    def remember_computed(self, device_type: str, precision: str) -> None:
        """Take down what `device` and `precision` came to."""
        self.computes = f"{self.device} {self.precision} = {device_type} {precision}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``study.json``."""
        return asdict(self)


def resolve(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> RunSettings:
    """Combine what was asked for now (None: not said), what the study remembers, and the defaults, in this order.

    ``accept_licence`` (bool) is no setting but an act: whoever runs this accepts the licence of the segmenter.

    Raises
    ------
    InputError
        If a name is not known (the nearest is named) or a value not allowed, or two values exclude each other.
    LicenceError
        If the segmenter has a licence that neither was accepted for this study nor is now.
    """
    known = [f.name for f in fields(RunSettings)]
    for name in asked:
        if name not in (*known, "accept_licence"):
            near = difflib.get_close_matches(name, known, 1)
            raise InputError(f"{name!r} is no setting of a run" + (f"; did you mean {near[0]!r}?" if near else "."))
    said = {name: value for name, value in asked.items() if value is not None}
    if said.get("scheme") == stored.get("scheme"):
        said.pop("scheme", None)
    elif Path(str(said.get("scheme", ""))).suffix.lower() in (".yaml", ".yml"):
        said["scheme"] = str(Path(said["scheme"]).expanduser().resolve())  # until a run has copied it
    said |= _files(said)
    accepted = bool(said.pop("accept_licence", False))
    if {"fov_um", "fov_diameters"} <= set(said):
        raise InputError("the field of view is given in micrometres and in diameters: give fov_um or fov_diameters.")
    forgotten = "fov_diameters" if "fov_um" in said else ""
    kept = {name: value for name, value in stored.items() if name in known and name != forgotten and value is not None}
    values = kept | said
    settings = RunSettings(**values)
    licence = licence_of(settings.segmenter)
    if not settings.accepted_licence.startswith(licence):
        check_licence(settings.segmenter, accepted=accepted)
        settings.accepted_licence = f"{licence}; accepted by {user()} at {now()}"
    return settings


def _files(said: Mapping[str, Any]) -> dict[str, str]:
    """Whole paths of the encoder and the atlas where they are files: a later run may begin in another folder."""
    from napari_dinobloom.encoders.library import is_path
    from napari_dinobloom.predict.shelf import is_file

    tests: dict[str, Callable[[str | Path], bool]] = {"encoder": is_path, "atlas": is_file}
    files = [name for name, test in tests.items() if name in said and test(said[name])]
    return {name: str(Path(said[name]).expanduser().resolve()) for name in files}


def digest(*parts: object) -> str:
    """Return 16 hexadecimal digits that stand for plain values (sha256 of their canonical JSON)."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
