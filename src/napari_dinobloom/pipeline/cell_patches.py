"""Patch tokens of a few cells of a study, and the colours that show them; the colours are kept with the study.

Nothing here is a step of a run: tokens of all cells of a study would take hundreds of times the room of their
embeddings. They are computed for the cells that somebody looks at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.crop import find_windows
from napari_dinobloom.encoders.overlay import Tile, iter_tiles
from napari_dinobloom.encoders.patches import PatchBasis
from napari_dinobloom.io.celltable import cell_id
from napari_dinobloom.pipeline.crops import policy_of
from napari_dinobloom.pipeline.settings import resolve
from napari_dinobloom.pipeline.stains import iter_find_stains
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.encoders.encoder import Encoder
    from napari_dinobloom.encoders.foreground import Rule
    from napari_dinobloom.io.study import Study

BATCH = 8
"""Crops whose tokens are computed between two reports of progress."""


@dataclass(frozen=True, slots=True, eq=False)
class CellPatches:
    """What the encoder sees in some cells.

    Attributes
    ----------
    cells : tuple of str
        n cell ids.
    crops : ndarray (n, S, S, 3) uint8
        Their pictures as the encoder saw them, recoloured where the study's are.
    tokens : ndarray (n, h, w, D) float32
        Patch tokens.
    basis : PatchBasis
        What turns tokens into colours.
    colours : ndarray (n, h, w, 3) float32
        0..1; black where the rule for the foreground says so.
    everywhere : ndarray (n, h, w, 3) float32
        The same without black: on a field the outlines of the cells say what is background.
    foreground : str
        Rule of the basis; empty where all patches count.
    """

    cells: tuple[str, ...]
    crops: NDArray[np.uint8]
    tokens: NDArray[np.float32]
    basis: PatchBasis
    colours: NDArray[np.float32]
    everywhere: NDArray[np.float32]
    foreground: str = ""


def iter_cell_patches(
    study: Study,
    cells: Sequence[str],
    crops: NDArray[np.uint8],
    *,
    foreground: Rule | None = None,
    known: CellPatches | None = None,
    anew: bool = False,
) -> Steps[CellPatches]:
    """Compute patch tokens of cells with the study's encoder, and their colours.

    Parameters
    ----------
    study : Study
        Its settings name encoder, device and number format. The colours are those kept in its ``models/``; where there
        are none they are fitted to these cells, and kept if the study may be written.
    cells : sequence of str
        n cell ids.
    crops : ndarray (n, S, S, 3) uint8
        Their pictures.
    foreground : {"otsu", "centre"}, optional
        Rule for the patches that count.
    known : CellPatches, optional
        What was computed before: tokens of the same crop by the same weights are taken from there.
    anew : bool, default: False
        Fit the colours to these cells, and keep them in the place of the earlier ones.

    Yields
    ------
    Progress

    Returns
    -------
    CellPatches

    Raises
    ------
    EncoderError
        The encoder has no patch tokens, is not here, or the device is not; or the kept colours cannot be read.
    """
    from napari_dinobloom.encoders.encoder import load_encoder

    settings = resolve(study.settings, {})
    if settings.stain:
        stains = yield from iter_find_stains(study, settings.stain)
        crops = stains.recoloured(crops, study.cells.obs.index.get_indexer(list(cells)))
    yield Progress(0, len(cells), "loading the encoder", "patch tokens")
    with load_encoder(
        settings.encoder, settings.device, settings.precision, max_memory_gib=settings.max_memory_gib or None
    ) as encoder:
        place = basis_file(study, encoder.sha256, foreground)
        tokens = yield from _iter_tokens(encoder, crops, _known_tokens(known, encoder.sha256, cells, crops))
    basis = None if anew else _kept(known, encoder.sha256, foreground, place)
    if basis is None:
        basis = PatchBasis.fit(tokens, encoder=encoder, foreground=foreground)
        if not study.read_only:
            place.parent.mkdir(exist_ok=True)
            basis.save(place)
    everywhere = basis.apply(tokens, encoder=encoder, foreground=np.ones(tokens.shape[:3], bool))
    colours = basis.apply(tokens, encoder=encoder)
    yield Progress(len(cells), len(cells), encoder.name, "patch tokens")
    return CellPatches(tuple(cells), crops, tokens, basis, colours, everywhere, foreground or "")


def _kept(known: CellPatches | None, sha256: str, foreground: Rule | None, place: Path) -> PatchBasis | None:
    """The colours that were used before: in this session, which is all that a read-only study has, or in the study."""
    if known is not None and known.foreground == (foreground or "") and known.basis.encoder_sha256 == sha256:
        return known.basis
    return PatchBasis.load(place) if place.is_file() else None


def basis_file(study: Study, sha256: str, foreground: Rule | None) -> Path:
    """Where a study keeps the colours of an encoder's patches under a rule."""
    return study.path / "models" / f"patch-colours-{foreground or 'all'}-{sha256[:8]}.safetensors"


def field_tiles(study: Study, field: str, cells: Sequence[str], values: NDArray[np.float32]) -> list[Tile]:
    """Give the overlay of cells at their places in a field; cells of other fields are left out.

    Parameters
    ----------
    study : Study
        Its outlines say which pixels belong to a cell.
    field : str
        Id of the field.
    cells : sequence of str
        n cell ids.
    values : ndarray (n, h, w, 3) float32
        Colours of their patches, 0..1.

    Returns
    -------
    list of Tile
        `Tile.row` counts the cells of this field.
    """
    record, obs = study.field(field), study.cells.obs
    masks = study.masks(field)
    at = {cell_id(field, number): row for row, number in enumerate(masks.numbers.tolist())}
    shown = [number for number, cell in enumerate(cells) if cell in at]
    if not shown:
        return []
    rows = obs.index.get_indexer([cells[number] for number in shown])
    windows = find_windows(obs, policy_of(resolve(study.settings, {})))[rows]
    bitmaps = masks.take([at[cells[number]] for number in shown])
    shape = (record.height, record.width)
    return list(iter_tiles(values[shown], windows, shape, masks=bitmaps, interpolation="bilinear"))


def _known_tokens(
    known: CellPatches | None, sha256: str, cells: Sequence[str], crops: NDArray[np.uint8]
) -> dict[int, NDArray[np.float32]]:
    """Tokens that were computed before, by the place of their cell among those that are wanted now."""
    if known is None or known.basis.encoder_sha256 != sha256:
        return {}
    before = {cell: number for number, cell in enumerate(known.cells)}
    found = {}
    for place, cell in enumerate(cells):
        number = before.get(cell)
        if number is not None and np.array_equal(known.crops[number], crops[place]):
            found[place] = known.tokens[number]
    return found


def _iter_tokens(
    encoder: Encoder, crops: NDArray[np.uint8], found: dict[int, NDArray[np.float32]]
) -> Steps[NDArray[np.float32]]:
    """Patch tokens of all crops, (n, h, w, D): those that are found, the others computed."""
    left = [place for place in range(len(crops)) if place not in found]
    tokens = dict(found)
    for start in range(0, len(left), BATCH):
        some = left[start : start + BATCH]
        yield Progress(len(found) + start, len(crops), encoder.name, "patch tokens")
        tokens |= dict(zip(some, encoder.patch_tokens(crops[some]), strict=True))
    return np.stack([tokens[place] for place in range(len(crops))])
