"""Embedding by other processes: units of rows of the cell table, each computed by one worker and written as one block.

A unit is a fixed range of rows, whatever the number of workers, and is written whole or not at all; what is missing in
it is computed in one go, also after a worker was lost.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_dinobloom.errors import EncoderError
from napari_dinobloom.io.embeddings import BLOCK, EmbeddingSet, Keys, Rows, write_block
from napari_dinobloom.pipeline import embed
from napari_dinobloom.pipeline.crops import FILE
from napari_dinobloom.pipeline.settings import RunSettings
from napari_dinobloom.pipeline.stains import StudyStains
from napari_dinobloom.pipeline.workers import Workers, call
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.encoders.encoder import Encoder
    from napari_dinobloom.io.study import Study

UNIT = 2 * BLOCK
"""Rows of a unit: what the loss of a worker costs at most."""

_loading = threading.Lock()


@dataclass(frozen=True, slots=True, eq=False)
class UnitJob:
    """Rows to embed.

    Attributes
    ----------
    crops : Path
        The store of crops.
    rows : (n,) array of int
        Rows of it.
    keys : (n,) array of uint64
        Their keys.
    stains : StudyStains or None
        The stain of each row's slide, where it is normalised.
    folder : Path
        Folder of the block.
    about : mapping of str
        Its header.
    encoder_key : str
        Key that the worker's encoder must have.
    settings : RunSettings
        Of the run, for a worker.
    """

    crops: Path
    rows: Rows
    keys: Keys
    stains: StudyStains | None
    folder: Path
    about: Mapping[str, str]
    encoder_key: str
    settings: RunSettings


def iter_fill_apart(
    study: Study, settings: RunSettings, keys: Keys, stains: StudyStains | None, workers: Workers
) -> Steps[tuple[dict[str, str], EmbeddingSet]]:
    """Have what is missing computed; returns what computed it, and the set of embeddings."""
    mine = replace(settings, device=_kind(settings.device))
    cards = mine.device != "cpu"
    facts, dim = call(workers, describe, mine, encoder=cards)
    mine = replace(mine, device=facts["device"], precision=facts["precision"])
    encoder_key = facts["encoder_key"]
    facts = embed.kept_as(facts if stains is None else embed.stained(facts, stains), settings)
    folder, header = embed.home_of(study, facts)
    rows = EmbeddingSet(folder, header, dim).missing(keys)
    parts = np.split(rows, np.flatnonzero(np.diff(rows // UNIT)) + 1) if len(rows) else []
    jobs = [
        UnitJob(
            study.path / FILE,
            part,
            keys[part],
            None if stains is None else stains.of(part),
            folder,
            header,
            encoder_key,
            mine,
        )
        for part in parts
    ]
    done, where = len(keys) - len(rows), f"{facts['encoder']} on {facts['device']} of the workers"
    yield Progress(done, len(keys), where)
    for place, answer in workers.map(embed_unit, jobs, encoder=cards):
        if isinstance(answer, Exception):
            first, last = jobs[place].rows[[0, -1]].tolist()
            raise EncoderError(f"Rows {first} to {last} could not be embedded: {answer} What was finished is kept.")
        done += len(jobs[place].rows)
        yield Progress(done, len(keys), where)
    return facts, EmbeddingSet(folder, header, dim)


def describe(settings: RunSettings) -> tuple[dict[str, str], int]:
    """What the cell table says of the encoder that this process computes with, and the length D of an embedding."""
    encoder = _encoder(settings)
    return embed.facts_of(encoder), encoder.dim


def embed_unit(job: UnitJob) -> None:
    """Embed the rows of a unit and write them as one block; rows that are not finite are left out.

    Raises
    ------
    EncoderError
        If this process computes in another way than the one that was asked first.
    """
    import zarr

    encoder = _encoder(job.settings)
    if encoder.key != job.encoder_key:
        raise EncoderError(
            f"A worker computes in {encoder.precision} on {encoder.device_type} with the weights "
            f"{encoder.sha256[:8]}, unlike the first. Give all the same weights; where some have graphics cards, start "
            "these with --resources GPU=1, or name --device cpu."
        )
    crops = zarr.open_array(job.crops, mode="r")
    values = encoder.embed(embed.Picked(crops, job.rows, job.stains))
    good = np.isfinite(values).all(axis=1)
    if good.any():
        name = hashlib.sha256(job.keys.tobytes()).hexdigest()[:12]  # the same unit done twice is the same file
        write_block(job.folder, job.about, name, job.keys[good], values[good])


def _encoder(settings: RunSettings) -> Encoder:
    """The encoder of this process, loaded once."""
    with _loading:  # a worker may have several threads
        return _loaded(settings.encoder, settings.device, settings.precision, settings.pooling, settings.max_memory_gib)


@lru_cache(maxsize=1)
def _loaded(encoder: str, device: str, precision: str, pooling: str, memory: float | None) -> Encoder:
    return embed.load(
        RunSettings(encoder=encoder, device=device, precision=precision, pooling=pooling, max_memory_gib=memory)  # type: ignore[arg-type]
    )


def _kind(device: str) -> str:
    """Type of device that each worker takes, of the devices that a run names: "cuda" of "0,1" and of "cuda:1"."""
    first = device.split(",")[0].split(":")[0]
    return "cuda" if first.isdecimal() else first
