"""From pictures, fields or a study to the figure of what the encoder sees inside cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.crop import CropPolicy
from napari_dinobloom.encoders.patches import PatchBasis
from napari_dinobloom.errors import InputError
from napari_dinobloom.progress import Progress, Steps
from napari_dinobloom.report.figure_file import check_files

if TYPE_CHECKING:
    from napari_dinobloom.encoders.encoder import Encoder
    from napari_dinobloom.encoders.foreground import Rule

Pictures = NDArray[np.uint8]
Rows = list[tuple[str, Pictures]]
"""Title of each row of the figure, and its crops (k, 224, 224, 3)."""
A = TypeVar("A")

BATCH = 32
"""Crops whose tokens are computed between two reports of progress."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PatchFigure:
    """What is drawn, and how."""

    inputs: Sequence[str | Path]
    """CSVs or folders of labelled pictures, studies, or images."""
    out: Path
    """The figure, .png, .pdf, .svg or .jpg."""
    encoder: str = "starter"
    """Name in the registry, or a file of weights."""
    device: str = "auto"
    """As for `load_encoder`."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """As for `load_encoder`."""
    per_class: int = 4
    """Pictures of a class (or of an input), spread evenly over those there are."""
    rows: Literal["class", "dataset"] = "class"
    """Whether a class or an input makes a row."""
    crops: Literal["published", "context"] = "published"
    """``published``: each picture whole; ``context``: the square around a cell that is found in it."""
    foreground: Rule | None = None
    """Rule for the patches that count, the others being black."""
    basis: Path | None = None
    """Basis to use instead of fitting one."""
    save_basis: Path | None = None
    """File for the basis that is fitted."""
    tiles: Path | None = None
    """Folder for one PNG a picture."""

    def __post_init__(self) -> None:
        check_files(self.out, self.save_basis)
        if self.basis is not None and (self.foreground or self.save_basis):
            raise InputError("A basis that is given already has its foreground, and is saved: leave the other out.")
        if self.per_class < 1:
            raise InputError(f"per_class={self.per_class}: give at least 1 picture of a class.")


def iter_patch_figure(asked: PatchFigure) -> Steps[list[Path]]:
    """Draw the patches of cells in colours of one PCA over all of them, or of a basis that was kept.

    Parameters
    ----------
    asked : PatchFigure
        What is drawn.

    Yields
    ------
    Progress

    Returns
    -------
    list of Path
        What was written: the figure, then the basis and the PNGs where they were asked for.

    Raises
    ------
    DinoBloomError
        If an input cannot be used, the encoder has no patch tokens, or a basis belongs to another one.
    """
    from napari_dinobloom.encoders.encoder import load_encoder
    from napari_dinobloom.io.atomic import disk_errors
    from napari_dinobloom.report.patch_figure import PictureRow, draw_patches, write_tiles

    basis = None if asked.basis is None else PatchBasis.load(asked.basis)
    found: Rows = []
    with load_encoder(asked.encoder, asked.device, asked.precision) as encoder:
        if basis is not None:
            basis.check_encoder(encoder.name, encoder.sha256)
        encoder.patch_tokens(np.zeros((0, 8, 8, 3), np.uint8))  # one that has none says so before pictures are read
        for given in asked.inputs:
            found += yield from _iter_rows(given, asked)
        if not found:
            raise InputError(f"There is no cell to show in {', '.join(map(str, asked.inputs))}.")
        tokens = yield from _iter_tokens(encoder, np.concatenate([crops for _, crops in found]))
    fitted = PatchBasis.fit(tokens, encoder=encoder, foreground=asked.foreground) if basis is None else basis
    colours = np.split(fitted.apply(tokens, encoder=encoder), np.cumsum([len(crops) for _, crops in found])[:-1])
    rows = [PictureRow(title, crops, part) for (title, crops), part in zip(found, colours, strict=True)]
    with disk_errors(asked.out):
        written = [draw_patches(rows, _caption(fitted, len(tokens), asked), asked.out)]
        if asked.save_basis is not None:
            written.append(fitted.save(asked.save_basis))
        return written + (write_tiles(rows, asked.tiles) if asked.tiles is not None else [])


def _iter_tokens(encoder: Encoder, crops: Pictures) -> Steps[NDArray[np.float32]]:
    """Patch tokens of all crops, (n, h, w, D), with progress."""
    parts = []
    for start in range(0, len(crops), BATCH):
        yield Progress(start, len(crops), encoder.name, "patch tokens")
        parts.append(encoder.patch_tokens(crops[start : start + BATCH]))
    yield Progress(len(crops), len(crops), encoder.name, "patch tokens")
    return np.concatenate(parts)


def _caption(basis: PatchBasis, cells: int, asked: PatchFigure) -> str:
    """What the colours are, for the figure's title."""
    rules = {"otsu": "the first component", "centre": "the centre against the corners"}
    shares = ", ".join(f"{100 * share:.0f}%" for share in basis.explained)
    if asked.basis is not None:
        fit = f"PCA of patch tokens, basis {asked.basis.name} fitted to {basis.cells} cells, here on {cells} cells"
    else:
        fit = f"PCA of patch tokens, fitted to all {cells} cells together ({basis.patches} patches)"
    about = f"encoder {basis.encoder} {basis.encoder_sha256[:8]}, {asked.crops} crops"
    if asked.foreground:
        about += f", foreground by Otsu on {rules[asked.foreground]}"
    return f"{fit}. Components 1, 2, 3 as red, green, blue ({shares} of the variance); {about}"


def _iter_rows(given: str | Path, asked: PatchFigure) -> Steps[Rows]:
    """Rows of one input: a study, labelled pictures, or images."""
    from napari_dinobloom.io.inputs import find_images
    from napari_dinobloom.io.manifest import NAME
    from napari_dinobloom.predict.pictures import SUFFIXES, LabelledPicture, iter_crop_pictures, read_labelled

    path = Path(given).expanduser()
    if (path / NAME).exists():
        return _of_study(path, asked)
    folder = path.is_dir() and not any(file.suffix.lower() in SUFFIXES for file in path.iterdir())
    if folder or path.suffix.lower() == ".csv":
        labelled = read_labelled(path)
    else:
        images = find_images([given])
        if not images.files:
            raise InputError(" ".join(f"{problem.name}: {problem.message}" for problem in images.problems))
        if asked.crops == "context":
            return (yield from _iter_fields([source.path for source in images.files], path.stem, asked))
        labelled = [LabelledPicture(source.path, "") for source in images.files]
    groups = _groups(labelled, [picture.label for picture in labelled], path.stem, asked)
    chosen = [picture for _, group in groups for picture in group]
    crops = yield from iter_crop_pictures(chosen, CropPolicy(kind=asked.crops))
    parts = np.split(crops, np.cumsum([len(group) for _, group in groups])[:-1])
    return [(title, part) for (title, _), part in zip(groups, parts, strict=True)]


def _of_study(path: Path, asked: PatchFigure) -> Rows:
    """Rows of a study: its cells by the class that they count as, in the crops that it holds."""
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.pipeline.crops import open_crops
    from napari_dinobloom.report.sightings import BY_CLASS, sightings

    with Study.open(path, read_only=True) as study:
        crops = open_crops(study)
        if crops.shape[0] != study.cells.n_obs:
            raise InputError(
                f"{path}: {crops.shape[0]} crops but {study.cells.n_obs} cells; run `napari-dinobloom crop`."
            )
        cells = sightings(study.cells.obs, study.specimen)
        cells = cells[cells["reason"].isin(BY_CLASS)]
        groups = _groups(cells["row"].tolist(), cells["shown"].tolist(), path.stem, asked)
        return [(title, np.stack([np.asarray(crops[row]) for row in rows])) for title, rows in groups]


def _iter_fields(paths: Sequence[Path], name: str, asked: PatchFigure) -> Steps[Rows]:
    """One row of the cells that are found in fields, from as many fields as there are pictures to show."""
    from napari_dinobloom.cells.crop import crop
    from napari_dinobloom.cells.segment import segment
    from napari_dinobloom.io.smear import read_smear

    crops: list[Pictures] = []
    for done, path in enumerate(paths):
        missing = asked.per_class - len(crops)
        if not missing:
            break
        yield Progress(done, len(paths), path.name, "segment")
        smear = read_smear(path)
        image = smear.load()
        cells = segment(image, smear.pixel_size_um)
        whole = np.flatnonzero(cells.table["quality"] == "ok")
        share = -(-missing // (len(paths) - done))
        crops += list(
            crop(image, cells.table.iloc[_spread(whole.tolist(), share)], pixel_size_um=cells.scale.pixel_size_um)
        )
    return [(name, np.stack(crops))] if crops else []


def _groups(items: Sequence[A], labels: Sequence[str], name: str, asked: PatchFigure) -> list[tuple[str, list[A]]]:
    """Title and some items of each row, by class in their clinical order, or all of an input."""
    from napari_dinobloom.report.legend import Legend

    if asked.rows == "dataset" or not any(labels):
        return [(name, _spread(items, asked.per_class))] if items else []
    before = f"{name}: " if len(asked.inputs) > 1 else ""
    return [
        (
            before + entry.title,
            _spread([item for item, label in zip(items, labels, strict=True) if label == entry.name], asked.per_class),
        )
        for entry in Legend(labels, {}).entries
    ]


def _spread(items: Sequence[A], count: int) -> list[A]:
    """At most `count` items, spread evenly over all."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places.tolist()]
