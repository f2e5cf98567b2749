"""The three terms of DinoBloom's objective and the assignment that two of them learn.

After DINO (Caron et al. 2021, arXiv 2104.14294), iBOT (Zhou et al. 2022, arXiv 2111.07832), SwAV's Sinkhorn-Knopp
(Caron et al. 2020, arXiv 2006.09882) and KoLeo (Sablayrolles et al. 2019, arXiv 1806.03198), with the constants of
DinoBloom's training (Koch et al. 2024, arXiv 2404.05022). All sums are in float32 (in float64 for float64 input):
in bf16 a logit divided by a temperature of 0.04 is off by several per cent.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

DISTANCE_EPS = 1e-4
"""Added to each difference before KoLeo's distance: for equal rows, 1e-8 gave infinite losses in half precision."""

LOG_EPS = 1e-8
NORM_EPS = 1e-8


def sinkhorn_knopp(
    logits: Tensor,
    temperature: float,
    iterations: int = 3,
    *,
    valid: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Assign rows to prototypes so that all prototypes are used alike, by Sinkhorn-Knopp's balancing.

    The matrix ``exp(logits / temperature)`` is never rewritten: two scaling vectors are iterated, and it is
    multiplied with both once at the end.

    Parameters
    ----------
    logits : Tensor (rows, prototypes)
        The teacher's scores.
    temperature : float
        Teacher temperature, above 0.
    iterations : int, default: 3
        Rounds; each balances prototypes, then rows.
    valid : Tensor (rows,) of bool, optional
        Rows that count; others (padding) change nothing and get an assignment of 0.
    group : ProcessGroup, optional
        Balance over the rows of all processes of this group, which all have to call.

    Returns
    -------
    Tensor (rows, prototypes)
        float32 (float64 for float64 logits), each valid row with the sum 1; without gradient.
    """
    with torch.no_grad():
        scaled = _exact(logits) / temperature
        rows = torch.tensor(float(len(scaled)), dtype=scaled.dtype, device=scaled.device)
        weight = torch.ones_like(scaled[:, 0])
        if valid is not None:
            weight = valid.to(scaled.dtype)
            rows = weight.sum()
        highest = scaled.max() if len(scaled) else scaled.new_tensor(-torch.inf)
        if group is not None:
            dist.all_reduce(highest, dist.ReduceOp.MAX, group)
            dist.all_reduce(rows, group=group)
        matrix = (scaled - highest).exp_()
        by_row = weight
        by_prototype = torch.empty_like(matrix[0]) if len(matrix) else scaled.new_ones(scaled.shape[1])
        for _ in range(iterations):
            mass = by_row @ matrix
            if group is not None:
                dist.all_reduce(mass, group=group)
            by_prototype = 1 / (mass * scaled.shape[1])
            by_row = weight / ((matrix @ by_prototype) * rows)
        return matrix.mul_(by_prototype).mul_((by_row * rows).unsqueeze(1))


def dino_loss(student_logits: Tensor, assignment: Tensor, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of the student's class tokens against the teacher's assignment, averaged over rows.

    Parameters
    ----------
    student_logits, assignment : Tensor (rows, prototypes)
        Scores of the student; target from `sinkhorn_knopp`, of the other crop of the same picture.
    temperature : float, default: 0.1
        Student temperature.

    Returns
    -------
    Tensor ()
    """
    return _cross_entropy(student_logits, assignment, temperature).mean()


def ibot_loss(student_logits: Tensor, assignment: Tensor, masks: Tensor, temperature: float = 0.1) -> Tensor:
    """Cross-entropy of the student's masked patches against the teacher's assignment of the same patches.

    Each masked patch weighs 1 / (masked patches of its image); the sum is divided by the number of images, those
    without a mask included.

    Parameters
    ----------
    student_logits, assignment : Tensor (masked patches, prototypes)
        In the order in which `masks` holds True, image by image.
    masks : Tensor (images, patches) of bool
        Masked patches.
    temperature : float, default: 0.1
        Student temperature.

    Returns
    -------
    Tensor ()
    """
    counts = masks.sum(dim=1).clamp(min=1)
    weight = (1 / counts.to(_exact(student_logits).dtype)).unsqueeze(1).expand_as(masks)[masks]
    return (_cross_entropy(student_logits, assignment, temperature) * weight).sum() / len(masks)


def koleo_loss(x: Tensor) -> Tensor:
    """Kozachenko-Leonenko estimate of (minus) the entropy of embeddings on the sphere: keeps them apart.

    Parameters
    ----------
    x : Tensor (rows, dim)
        Class tokens of one crop before the head; at least two rows.

    Returns
    -------
    Tensor ()
        Mean over rows of ``-log(distance to the nearest other row + 1e-8)``.
    """
    x = F.normalize(_exact(x), dim=-1, eps=NORM_EPS)
    with torch.no_grad():
        likeness = x @ x.T
        likeness.fill_diagonal_(-1)
        nearest = likeness.argmax(dim=1)
    distance = F.pairwise_distance(x, x[nearest], eps=DISTANCE_EPS)
    return -(distance + LOG_EPS).log().mean()


def _cross_entropy(logits: Tensor, assignment: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of each row, (rows,)."""
    return -(assignment * F.log_softmax(_exact(logits) / temperature, dim=-1)).sum(dim=-1)


def _exact(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
