"""Fourth step: the embedding of every cell, kept by the key of its crop under ``embeddings/<encoder>-<sha8>/``.

A crop whose key has an embedding of the same encoder, prepared and computed in the same way, is not computed again,
wherever its cell stands in the table. What was made by other encoders, or in another number format, stays beside it.
"""

from __future__ import annotations

import json
import uuid
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.cells import stain_transfer
from napari_dinobloom.errors import EncoderError, StudyError
from napari_dinobloom.io.embeddings import KEPT, Embedded, EmbeddingSet, Keys, Rows, Sink
from napari_dinobloom.io.vectors import FLOAT32, lazy, stays
from napari_dinobloom.pipeline.crops import open_crops, stored_keys
from napari_dinobloom.pipeline.embedded import FOLDER
from napari_dinobloom.pipeline.settings import RunSettings, digest
from napari_dinobloom.pipeline.stains import StudyStains, iter_find_stains
from napari_dinobloom.pipeline.workers import Workers
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.encoders.encoder import Encoder
    from napari_dinobloom.io.study import Study


def step_key(crops: str, settings: RunSettings) -> str:
    """Key of this step: that of the crops, and what decides the numbers; needs `settings.computed`."""
    from napari_dinobloom.encoders.encoder import VERSION
    from napari_dinobloom.encoders.library import identify, locate

    spec = locate(settings.encoder).spec
    seen = spec and (spec.input_size, spec.mean, spec.std, spec.interpolation, spec.positions)
    goal = stain_transfer.reference().to_dict() if settings.stain else {}
    more: list[object] = [settings.stain, stain_transfer.VERSION, goal] if settings.stain else []
    more += [settings.embeddings] if settings.embeddings != "float32" else []
    return digest(crops, identify(settings.encoder), seen, pooling_of(settings), settings.computed, VERSION, *more)


def pooling_of(settings: RunSettings) -> str:
    """What a run takes of the encoder's output; of a file given by path, where nothing was said, the class token."""
    from napari_dinobloom.encoders.library import locate

    spec = locate(settings.encoder).spec
    if settings.pooling != "own":
        return settings.pooling
    return "class" if spec is None else spec.pooling


def look_up_device(settings: RunSettings) -> None:
    """Find out which type of device and which number format this machine has for a run, if that is not known yet.

    Raises
    ------
    EncoderError
        If it has no such device.
    """
    if settings.computed is None:  # else torch need not be loaded
        from napari_dinobloom.encoders.device import resolve_devices, resolve_precision

        device = resolve_devices(settings.device)[0]
        settings.remember_computed(device.type, resolve_precision(settings.precision, device))


def check_device(settings: RunSettings) -> None:
    """Raise EncoderError if a device that was named is not there, before the steps that come first are done."""
    if settings.device not in ("auto", "cpu"):
        from napari_dinobloom.encoders.device import resolve_devices

        resolve_devices(settings.device)


def iter_embed_study(study: Study, settings: RunSettings, workers: Workers | None = None) -> Steps[None]:
    """Embed crops that are new or changed, and put all embeddings into ``X`` of the cell table.

    What computed them goes into `settings.computes`: a study may have moved to a machine with other devices.
    """
    crops = open_crops(study)
    keys = stored_keys(study)
    adata = study.cells
    if len(keys) != adata.n_obs:
        raise StudyError(f"{study.path}: {len(keys)} crops but {adata.n_obs} cells; run again to cut them anew.")
    stains = (yield from iter_find_stains(study, settings.stain)) if settings.stain else None
    keys = keys if stains is None else stains.keys(keys)
    yield Progress(0, len(keys), "loading the encoder")
    if workers is not None and workers.apart:
        from napari_dinobloom.pipeline.cluster import units

        facts, vectors = yield from units.iter_fill_apart(study, settings, keys, stains, workers)
    else:
        with load(settings) as encoder:
            facts = kept_as(facts_of(encoder, stains), settings)
            vectors = EmbeddingSet(*home_of(study, facts), encoder.dim)
            yield from _fill(vectors, encoder, crops, keys, stains)
    rows = Checked(vectors.rows(keys), adata.obs_names, settings.encoder, facts["precision"])
    values = lazy(rows, f"embedded-{uuid.uuid4().hex}") if stays(rows) else rows[:]
    study.save_cells(_table(adata, values, facts))
    vectors.tidy(keys)
    settings.remember_computed(facts["device"], facts["precision"])
    return None


def load(settings: RunSettings) -> Encoder:
    """The encoder of a run, to be closed by whoever asked for it."""
    from napari_dinobloom.encoders.encoder import load_encoder

    return load_encoder(
        settings.encoder,
        settings.device,
        settings.precision,
        pooling=None if settings.pooling == "own" else settings.pooling,
        max_memory_gib=settings.max_memory_gib or None,
    )


def facts_of(encoder: Encoder, stains: StudyStains | None = None) -> dict[str, str]:
    """What the cell table says of the encoder of its embeddings, and of what was done to the crops before."""
    facts = {
        "encoder": encoder.name,
        "encoder_sha256": encoder.sha256,
        "encoder_key": encoder.key,
        "pooling": encoder.pooling,
        "preprocessing": json.dumps(encoder.preprocessing),
        "precision": encoder.precision,
        "device": encoder.device_type,
    }
    return facts if stains is None else stained(facts, stains)


def stained(facts: dict[str, str], stains: StudyStains) -> dict[str, str]:
    """The same where crops are normalised before: embeddings of their own."""
    return {**facts, "stain": stains.method, "encoder_key": digest(facts["encoder_key"], stains.method)}


def kept_as(facts: dict[str, str], settings: RunSettings) -> dict[str, str]:
    """The same where embeddings are rounded to be kept: embeddings of their own."""
    if settings.embeddings == "float32":
        return facts
    return {**facts, KEPT: settings.embeddings, "encoder_key": digest(facts["encoder_key"], settings.embeddings)}


def home_of(study: Study, facts: dict[str, str]) -> tuple[Path, dict[str, str]]:
    """Folder and header of the embeddings of a study that these facts tell."""
    header = {name.removeprefix("encoder_"): value for name, value in facts.items()}
    return study.path / FOLDER / f"{_safe(facts['encoder'])}-{facts['encoder_sha256'][:8]}", header


def _fill(vectors: EmbeddingSet, encoder: Encoder, crops: Any, keys: Keys, stains: StudyStains | None) -> Steps[None]:
    """Compute what is missing; each block is on the disk as soon as it is whole, and what there is when this ends."""
    rows = vectors.missing(keys)
    total, known, where = len(keys), len(keys) - len(rows), f"{encoder.name} on {encoder.device}"
    yield Progress(known, total, where)
    if len(rows):
        picked = Picked(crops, rows, None if stains is None else stains.of(rows))
        with (
            closing(Sink(vectors, keys[rows])) as sink,
            closing(encoder.iter_embed_to(picked, sink)) as steps,
        ):
            for report in steps:
                yield Progress(known + report.done, total, where)
    yield Progress(total, total, where)
    return None


@dataclass(frozen=True, slots=True, eq=False)
class Picked:
    """Some rows of an array of crops, as an array that is sliced along its first axis, by several threads at once.

    `stains`: of these rows only.
    """

    crops: Any
    rows: Rows
    stains: StudyStains | None = None
    shared_reading = True

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, Y, X, 3)."""
        return (len(self.rows), *self.crops.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the crops."""
        found: np.dtype[Any] = self.crops.dtype
        return found

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> NDArray[np.uint8]:
        rows = self.rows[part]
        side_by_side = len(rows) > 0 and rows[-1] - rows[0] + 1 == len(rows)  # read as a slice, which is faster
        pictures = np.asarray(self.crops[rows[0] : rows[-1] + 1] if side_by_side else self.crops.oindex[rows])
        return pictures if self.stains is None else self.stains.recoloured(pictures, np.arange(len(self.rows))[part])


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """Embeddings that are read when they are sliced, and refused where one is not finite: nothing could rest on it.

    So those of very many cells are checked while they are written, without a look of its own at all of them.

    Raises
    ------
    EncoderError
        If a row that is read is not finite.
    """

    found: Embedded
    names: pd.Index[Any]
    encoder: str
    precision: str
    dtype = FLOAT32
    ndim = 2

    @property
    def shape(self) -> tuple[int, int]:
        """(n, D)."""
        return self.found.shape

    def __getitem__(self, part: Any) -> NDArray[np.float32]:
        values = self.found[part]
        wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(wrong):
            names = self.names[part[0] if isinstance(part, tuple) else part]
            raise EncoderError(
                f"{self.encoder} gave undefined numbers for {len(wrong)} of {len(values)} cells in {self.precision}, "
                f"the first is {names[wrong[0]]}. Use --precision float32, or another file of weights; the others are "
                "kept."
            )
        return values


def _table(adata: Any, embeddings: Any, about: dict[str, str]) -> Any:
    """Return the cell table with these embeddings; what rested on earlier ones (map, graph) is left behind."""
    from anndata import AnnData

    names = [f"e{i:04d}" for i in range(embeddings.shape[1])]
    table = AnnData(X=embeddings, obs=adata.obs, var=pd.DataFrame(index=names))
    table.obsm["spatial"] = adata.obsm["spatial"]
    table.uns["dinobloom"] = about
    return table


def _safe(name: str) -> str:
    """Encoder name as a folder name."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
