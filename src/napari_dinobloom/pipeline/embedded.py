"""What embeddings a study holds, of which encoders, and how they are read row for row with its cell table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.crop import find_windows
from napari_dinobloom.cells.stain_transfer import METHODS
from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.embeddings import Block, EmbeddingSet, Keys, Rows, keys_of, read_blocks
from napari_dinobloom.pipeline.crops import policy_of, row_keys
from napari_dinobloom.pipeline.settings import resolve
from napari_dinobloom.pipeline.stains import iter_find_stains
from napari_dinobloom.progress import drain

if TYPE_CHECKING:
    from napari_dinobloom.cells.stain_transfer import Method
    from napari_dinobloom.io.study import Study

FOLDER = "embeddings"
"""Of a study; below it one folder for each encoder."""


@dataclass(frozen=True, slots=True)
class StoredEncoder:
    """Embeddings of one encoder that a study holds.

    Attributes
    ----------
    name, sha256 : str
        The encoder, and the hash of its weights.
    dim : int
        Length D of an embedding.
    n : int
        Cells that are embedded; not all need be in the table still.
    precision, device, pooling : str
        Number format, device type, and what of the encoder's output was taken.
    when : str
        When the last of them was computed, UTC.
    key : str
        16 hexadecimal digits, the encoder's cache key: what tells it from all others.
    folder : str
        Name of its folder under ``embeddings/``.
    active : bool
        Whether these are ``X`` of the cell table.
    stain : str
        How the crops were normalised first, see `RunSettings.stain`; empty where they were not.
    """

    name: str
    sha256: str
    dim: int
    n: int
    precision: str
    device: str
    pooling: str
    when: str
    key: str
    folder: str
    active: bool
    stain: str = ""


def stored_encoders(study: Study) -> list[StoredEncoder]:
    """List the encoders whose embeddings a study holds, those of ``X`` among them.

    Parameters
    ----------
    study : Study
        May be open for reading only.

    Returns
    -------
    list of StoredEncoder
        By name and hash; one for each number format, device type and pooling that an encoder was used with.
    """
    active = str(study.cells.uns.get("dinobloom", {}).get("encoder_key", ""))
    found = []
    for folder in sorted(path for path in (study.path / FOLDER).glob("*") if path.is_dir()):
        sets: dict[str, list[Block]] = {}
        for block in read_blocks(folder)[0]:
            sets.setdefault(block.about["key"], []).append(block)
        found += [_stored(folder.name, blocks, active) for _, blocks in sorted(sets.items())]
    return found


def _stored(folder: str, blocks: list[Block], active: str) -> StoredEncoder:
    """What the blocks of one set say."""
    about = blocks[0].about
    said = {name: about.get(name, "") for name in ("sha256", "precision", "device", "pooling", "stain")}
    return StoredEncoder(
        name=about.get("encoder", ""),
        dim=blocks[0].dim,
        n=len(np.unique(np.concatenate([block.crops for block in blocks]))),
        when=max(block.about.get("written", "") for block in blocks),
        key=about["key"],
        folder=folder,
        active=about["key"] == active,
        **said,
    )


def read_embeddings(
    study: Study,
    which: str | StoredEncoder,
    *,
    missing: Literal["nan", "refuse"] = "nan",
    rows: Rows | None = None,
) -> NDArray[np.float32]:
    """Read embeddings that a study holds, of any encoder, row for row with its cell table.

    Parameters
    ----------
    study : Study
        May be open for reading only.
    which : str or StoredEncoder
        One of `stored_encoders`, or its name, its folder's name or its key.
    missing : {"nan", "refuse"}
        What to do where cells have none, as they changed or came after these were computed: leave NaN in their rows,
        or raise. Deleted cells may be without.
    rows : (n,) array of int, optional
        Rows of the cell table; by default all. Only theirs are read.

    Returns
    -------
    ndarray
        (n, D) float32.

    Raises
    ------
    StudyError
        If there is no such encoder or several; or cells have no embedding and `missing` is "refuse".
    """
    chosen = which if isinstance(which, StoredEncoder) else _find(study, which)
    place = study.path / FOLDER / chosen.folder
    keys = crop_keys(study)
    if chosen.stain in METHODS:
        keys = drain(iter_find_stains(study, cast("Method", chosen.stain))).keys(keys)
    some = slice(None) if rows is None else rows
    values = EmbeddingSet(place, {"key": chosen.key}, chosen.dim).read(keys[some])
    lost = int((np.isnan(values).all(axis=1) & ~study.cells.obs["deleted"].to_numpy(bool)[some]).sum())
    if lost and missing == "refuse":
        raise StudyError(
            f"{place}: {lost} of {len(values)} cells have no embedding of {chosen.name}; "
            f"run `napari-dinobloom embed {study.path.name} --encoder {chosen.name}` first."
        )
    return values


def _find(study: Study, which: str) -> StoredEncoder:
    """The one stored encoder that a name, a folder or a key means."""
    stored = stored_encoders(study)
    found = [one for one in stored if which in (one.name, one.folder, one.key)]
    if len(found) == 1:
        return found[0]
    ways = [f"{one.key} ({one.folder}, {one.precision} on {one.device}, {one.pooling})" for one in found or stored]
    raise StudyError(
        f"{study.path}: {len(found) or 'none'} of the stored embeddings are called {which[:100]!r}. "
        f"Name one by its key: {', '.join(ways) or 'there are none yet'}."
    )


def crop_keys(study: Study) -> Keys:
    """Keys that the crops of all cells have as the table is now, whether they were cut already or not."""
    obs, policy = study.cells.obs, policy_of(resolve(study.settings, {}))
    return keys_of(row_keys(study, obs, find_windows(obs, policy), policy))
