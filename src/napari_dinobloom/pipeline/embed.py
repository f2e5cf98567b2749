"""Fourth step: the embedding of every cell, in blocks under ``embeddings/<encoder>-<sha8>/``.

A block is 256 rows of the cell table in one safetensors file, keyed by the crops in it, the device type and the number
format; it is written when it is done, so that a run that was stopped goes on with the next block, and a row's batch is
the same however often the run was stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.atomic import disk_errors, replacing
from napari_dinobloom.pipeline.crops import open_crops
from napari_dinobloom.pipeline.settings import RunSettings, digest
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.encoders.encoder import Encoder
    from napari_dinobloom.io.study import Study

BLOCK = 256


def iter_embed_study(study: Study, settings: RunSettings) -> Steps[None]:
    """Embed what is new or changed and put all embeddings into ``X`` of the cell table."""
    crops = open_crops(study)
    keys = list(crops.attrs["rows"])
    adata = study.cells
    if len(keys) != adata.n_obs:
        raise StudyError(f"{study.path}: {len(keys)} crops but {adata.n_obs} cells; run again to cut them anew.")
    yield Progress(0, len(keys), "loading the encoder")
    encoder = _load(settings)
    folder = study.path / "embeddings" / f"{_safe(encoder.name)}-{encoder.sha256[:8]}"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(keys), BLOCK):
        stop = min(start + BLOCK, len(keys))
        parts.append((yield from _block(folder, encoder, crops, keys[start:stop], start, len(keys))))
    embeddings = np.concatenate(parts) if parts else np.zeros((0, encoder.dim), np.float32)
    about = {
        "encoder": encoder.name,
        "encoder_sha256": encoder.sha256,
        "device": encoder.device.split(":")[0],
        "precision": encoder.precision,
    }
    study.save_cells(_table(adata, embeddings, about))
    return None


def _load(settings: RunSettings) -> Encoder:
    from napari_dinobloom.encoders.encoder import load_encoder

    return load_encoder(settings.encoder, device=settings.device, precision=settings.precision)


def _table(adata: Any, embeddings: NDArray[np.float32], about: dict[str, str]) -> Any:
    """Return the cell table with these embeddings; what rested on earlier ones (map, graph) is left behind."""
    from anndata import AnnData

    names = [f"e{i:04d}" for i in range(embeddings.shape[1])]
    table = AnnData(X=embeddings, obs=adata.obs, var=pd.DataFrame(index=names))
    table.obsm["spatial"] = adata.obsm["spatial"]
    table.uns["dinobloom"] = about
    return table


def _block(
    folder: Path, encoder: Encoder, crops: Any, keys: list[str], start: int, total: int
) -> Steps[NDArray[np.float32]]:
    """Embeddings of one block, from its file if that has the same key."""
    path = folder / f"{start // BLOCK:06d}.safetensors"
    key = digest(keys, encoder.sha256, encoder.device.split(":")[0], encoder.precision)
    values = _read(path, key)
    if values is None or values.shape != (len(keys), encoder.dim):
        steps = encoder.iter_embed(crops[start : start + len(keys)])
        while True:
            try:
                report = next(steps)
            except StopIteration as end:
                values = end.value
                break
            yield Progress(start + report.done, total, f"{encoder.name} on {encoder.device}")
        _write(path, key, values)
    yield Progress(start + len(keys), total, f"{encoder.name} on {encoder.device}")
    return values


def _read(path: Path, key: str) -> NDArray[np.float32] | None:
    """Embeddings in a block file; None if it is missing, damaged or has another key."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            values: NDArray[np.float32] = file.get_tensor("X")
    except (OSError, SafetensorError):
        return None
    return values


def _write(path: Path, key: str, values: NDArray[np.float32]) -> None:
    from safetensors.numpy import save

    with disk_errors(path), replacing(path) as part:
        part.write_bytes(save({"X": np.ascontiguousarray(values)}, metadata={"key": key}))


def _safe(name: str) -> str:
    """Encoder name as a folder name."""
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
