"""How good the teacher is while it learns: k-NN and a linear probe on labelled pictures, RankMe, and the best so far.

Pictures go through the network in batches that depend on their order alone, so that any number of processes computes
the same embeddings. The pictures that `encoders.splits.held_out` keeps apart are asked about; the others are the
reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, fields
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_dinobloom.cells.crop import CropPolicy
from napari_dinobloom.encoders.spec import IMAGENET_MEAN, IMAGENET_STD
from napari_dinobloom.encoders.splits import held_out
from napari_dinobloom.errors import InputError
from napari_dinobloom.predict.evaluation import evaluate_embeddings
from napari_dinobloom.predict.pictures import LabelledPicture, iter_crop_pictures, read_labelled
from napari_dinobloom.progress import drain
from napari_dinobloom.training.manifest import has_splits, read_manifest
from napari_dinobloom.training.topics import REPORTED

BATCH = 64
"""Pictures in one call of the network."""

RANK_TOKENS = 2500
"""Class tokens of which RankMe is taken, as by the reference."""

RANK_EPS = 1e-7
"""Added to the shares of the singular values (Garrido et al. 2023, for float32)."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledSet:
    """Labelled pictures, of which this process holds its share.

    Attributes
    ----------
    share : Tensor (rounds, batch, 224, 224, 3) uint8
        Batch `rank + size * round` of all pictures; black where there are no more.
    y : (n,) array of str
        Classes of all pictures.
    kept : (n,) array of bool
        Which are asked about.
    """

    share: Tensor
    y: NDArray[np.str_]
    kept: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scores:
    """How good embeddings are; weighted F1 and balanced accuracy of the pictures that were kept apart, 0 to 1."""

    knn_1: float
    """Weighted F1 of the nearest neighbour."""
    knn_20: float
    """Of the 20 nearest."""
    probe: float
    """Of the linear probe."""
    knn_1_balanced: float
    """Balanced accuracy of the nearest neighbour."""
    knn_20_balanced: float
    """Of the 20 nearest."""
    probe_balanced: float
    """Of the linear probe."""
    rank_me: float
    """Effective rank of the class tokens, 1 to the smaller of their number and length."""


def read_set(
    path: str | Path,
    split: str = "",
    *,
    most: int = 5000,
    batch: int = BATCH,
    group: dist.ProcessGroup | None = None,
    trained: NDArray[np.uint8] | None = None,
) -> LabelledSet:
    """Read the labelled pictures of a table or a folder, each process its share.

    Parameters
    ----------
    path : str or Path
        A CSV or a folder of class folders, as `predict.pictures.read_labelled` takes it.
    split : str, default: ""
        Rows of the CSV with this value of ``split``; empty takes all but those of `REPORTED`.
    most : int, default: 5000
        Pictures that are used, spread evenly over the table.
    batch : int, default: 64
        Pictures in one call of the network: as many as a training step's crops of a group, where it is compiled.
    group : ProcessGroup, optional
        Processes that share the work; None for one.
    trained : (m, 32) array of uint8, optional
        SHA-256 of the files that are trained on, `Store.sha256`.

    Returns
    -------
    LabelledSet
        Whole pictures, resized as the reference's evaluation does.

    Raises
    ------
    AtlasError
        If a file is missing or unreadable, or the table has no such split.
    InputError
        If fewer than two classes are among the reference, no picture is kept apart, or one that is kept apart is
        trained on (raised by the process whose share it is in).
    """
    found = [picture for one in _splits(path, split) for picture in read_labelled(path, split=one, held_out=held_out)]
    if len(found) > most:
        found = [found[row] for row in np.linspace(0, len(found) - 1, most).astype(int)]
    y, kept = np.array([picture.label for picture in found]), np.array([picture.held_out for picture in found])
    if len(set(y[~kept])) < 2 or not kept.any():
        raise InputError(
            f"{path}: {len(found)} pictures are too few to measure the encoder on: {int(kept.sum())} are kept apart, "
            f"and the others have the classes {', '.join(sorted(set(y[~kept]))) or 'none'}. Give more."
        )
    rank, size = _place(group)
    parts = [found[start : start + batch] for start in range(rank * batch, len(found), size * batch)]
    if trained is not None:
        _check_apart(path, [picture.path for part in parts for picture in part if picture.held_out], trained)
    share = [_batch(part, batch) for part in parts]
    rounds = -(-len(found) // (size * batch))
    share += [_batch([], batch)] * (rounds - len(share))
    return LabelledSet(torch.from_numpy(np.stack(share)), y, kept)


def _splits(path: str | Path, split: str) -> list[str | None]:
    """The splits to read: the one that was asked for, or all of a table that are not for reporting."""
    if split or Path(path).is_dir():
        return [split or None]
    found = {row.split for row in read_manifest(path)} if has_splits(path) else set()
    return [None] if not found else [one for one in sorted(found) if one not in REPORTED]


def _check_apart(table: str | Path, asked: list[Path], trained: NDArray[np.uint8]) -> None:
    """Refuse pictures that are asked about and trained on; files with the same bytes are one picture."""
    known = {row.tobytes() for row in trained}
    both = [path for path in asked if sha256(path.read_bytes()).digest() in known]
    if both:
        raise InputError(
            f"{table}: {len(both)} of {len(asked)} pictures that are to be asked about are trained on, such as "
            f"{both[0]}: scores on them would flatter. Make data.store again with `prepare --keep-apart`, which leaves "
            "them out, or give other pictures as evaluation.labelled (empty measures nothing)."
        )


def _batch(pictures: list[LabelledPicture], batch: int) -> NDArray[np.uint8]:
    """Read pictures, (batch, 224, 224, 3) uint8, black where there are no more."""
    pixels = np.zeros((batch, 224, 224, 3), np.uint8)
    if pictures:
        pixels[: len(pictures)] = drain(iter_crop_pictures(pictures, CropPolicy(kind="published")))
    return pixels


@torch.no_grad()
def embed(
    backbone: nn.Module,
    labelled: LabelledSet,
    device: torch.device,
    *,
    autocast: torch.dtype | None = None,
    group: dist.ProcessGroup | None = None,
    halt: Callable[[], bool] = lambda: False,
) -> NDArray[np.float32] | None:
    """Embed all pictures, each process its share; every process calls the network equally often.

    Parameters
    ----------
    backbone : Module
        The teacher's: normalised pictures (B, 3, 224, 224) to tokens (B, N, D), class token first.
    labelled : LabelledSet
        Made with the same `group`.
    device : torch.device
        Where the backbone is.
    autocast : torch.dtype, optional
        Number format of the products, as `Network.autocast` has it.
    group : ProcessGroup, optional
        Processes that share the work.
    halt : function, optional
        Asked before each batch, says in all processes alike whether to give up.

    Returns
    -------
    numpy.ndarray or None
        (n, D) float32 class tokens in the order of the table, the same in all processes; None where it gave up.
    """
    mean, std = (torch.tensor(values, device=device) for values in (IMAGENET_MEAN, IMAGENET_STD))
    dtype = next(backbone.parameters()).dtype
    rows = []
    for pixels in labelled.share:
        if halt():
            return None
        x_BYXC = (pixels.to(device, torch.float32) / 255 - mean) / std
        with torch.autocast(device.type, autocast, enabled=autocast is not None):
            rows.append(backbone(x_BYXC.permute(0, 3, 1, 2).to(dtype))[:, 0].float())
    mine = torch.stack(rows)
    everyone = [mine]
    if group is not None:
        everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
        dist.all_gather(everyone, mine, group=group)
    tokens = torch.stack(everyone, dim=1).flatten(0, 2)[: len(labelled.y)]
    return tokens.cpu().numpy().astype(np.float32)


def evaluate(
    backbone: nn.Module,
    labelled: LabelledSet,
    device: torch.device,
    *,
    autocast: torch.dtype | None = None,
    group: dist.ProcessGroup | None = None,
    halt: Callable[[], bool] = lambda: False,
) -> Scores | None:
    """Embed the pictures and score the embeddings; the parameters are those of `embed`.

    Every process computes the scores, so that none waits for another longer than a time limit of the network allows;
    those of the first are everybody's, so that all agree on what is best.
    """
    tokens = embed(backbone, labelled, device, autocast=autocast, group=group, halt=halt)
    if tokens is None:
        return None
    scores = score(tokens, labelled.y, labelled.kept)
    if group is None:
        return scores
    values = torch.tensor(astuple(scores), dtype=torch.float64, device=device)
    dist.broadcast(values, dist.get_global_rank(group, 0), group=group)
    return Scores(*values.tolist())


def score(X: NDArray[np.float32], y: NDArray[np.str_], kept: NDArray[np.bool_]) -> Scores:
    """Score embeddings (n, D) of pictures with classes `y` (n,): those that are `kept` (n,) are asked about.

    k-NN (1, 20; Euclidean) and the linear probe (C = D * classes / 100) are those of `predict.evaluation`.

    Raises
    ------
    AtlasError
        If an embedding is not finite.
    """
    table = evaluate_embeddings(X[~kept], y[~kept], X[kept], y[kept])
    f1, balanced = table["weighted_f1"], table["balanced_accuracy"]
    some = np.linspace(0, len(X) - 1, min(len(X), RANK_TOKENS)).astype(int)
    values = [float(column[row]) for column in (f1, balanced) for row in ("1-NN", "20-NN", "linear probe")]
    return Scores(*values, *[rank_me(X[some])])


def rank_me(X: NDArray[np.float32]) -> float:
    """Effective rank of embeddings (n, D): the exponential of the entropy of their singular values' shares.

    RankMe of Garrido et al. 2023 (arXiv 2210.02885); embeddings are not centred. 0 for embeddings that are all 0.
    """
    sizes = np.linalg.svd(np.asarray(X, np.float64), compute_uv=False)
    if not sizes.any():
        return 0.0
    shares = sizes / sizes.sum() + RANK_EPS
    return float(np.exp(-(shares * np.log(shares)).sum()))


@dataclass(slots=True)
class Best:
    """The best score so far, and when to stop. Equal in all processes, since their scores are.

    Its fields are plain values, for a checkpoint: ``Best(**asdict(best))`` goes on.
    """

    score: str = "knn_20"
    """Field of `Scores` that counts; more is better."""
    patience: int = 0
    """Evaluations without a better score after which to stop; 0 never stops."""
    value: float | None = None
    """The best score; None before the first."""
    iteration: int = 0
    """Iterations that the best teacher had learned for."""
    waited: int = 0
    """Evaluations since."""

    def __post_init__(self) -> None:
        known = [f.name for f in fields(Scores)]
        if self.score not in known:
            raise InputError(f"{self.score!r} is no score; use {', '.join(known)}.")

    def update(self, iteration: int, scores: Scores) -> bool:
        """Take an evaluation into account; True if it is the best so far. A score that is NaN never is."""
        value = float(getattr(scores, self.score))
        if np.isfinite(value) and (self.value is None or value > self.value):
            self.value, self.iteration, self.waited = value, iteration, 0
            return True
        self.waited += 1
        return False

    @property
    def stop(self) -> bool:
        """Whether patience has run out."""
        return 0 < self.patience <= self.waited


def _place(group: dist.ProcessGroup | None) -> tuple[int, int]:
    """Rank and number of the processes."""
    return (0, 1) if group is None else (dist.get_rank(group), dist.get_world_size(group))
