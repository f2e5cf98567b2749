"""The three terms of DinoBloom's objective and the assignment that two of them learn.

After DINO (Caron et al. 2021, arXiv 2104.14294), iBOT (Zhou et al. 2022, arXiv 2111.07832), SwAV's Sinkhorn-Knopp
(Caron et al. 2020, arXiv 2006.09882) and KoLeo (Sablayrolles et al. 2019, arXiv 1806.03198), with the constants of
DinoBloom's training (Koch et al. 2024, arXiv 2404.05022). All sums are in float32 (in float64 for float64 input):
in bf16 a logit divided by a temperature of 0.04 is off by several per cent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

DISTANCE_EPS = 1e-4
"""Added to each difference before KoLeo's distance: for equal rows, 1e-8 gave infinite losses in half precision."""

LOG_EPS = 1e-8
NORM_EPS = 1e-8

Scores = Callable[[int], Tensor]
"""Gives the scores (rows, prototypes) of a numbered part of all rows; asked several times for each."""


@dataclass(frozen=True, slots=True)
class Balance:
    """Sinkhorn-Knopp's scaling of ``exp(logits)``, from which assignments follow part by part.

    Attributes
    ----------
    by_prototype : Tensor (prototypes,)
        Factor of each column.
    by_row : list of Tensor (rows of a part,)
        Factors of rows, for each part; 0 for rows that do not count.
    shift : Tensor ()
        Subtracted from the logits before the exponential.
    whole : Tensor (rows, prototypes), optional
        The assignment itself, where there is a single part.
    """

    by_prototype: Tensor
    by_row: list[Tensor]
    shift: Tensor
    whole: Tensor | None = None

    def assignment(self, scores: Scores, part: int) -> Tensor:
        """Give the assignment (rows, prototypes) of a part; each row that counts has the sum 1."""
        if self.whole is not None:
            return self.whole
        matrix = (_exact(scores(part)) - self.shift).exp_()
        return matrix.mul_(self.by_prototype).mul_(self.by_row[part].unsqueeze(1))


@torch.no_grad()
def balance(
    scores: Scores,
    valid: Sequence[Tensor],
    iterations: int = 3,
    *,
    group: dist.ProcessGroup | None = None,
) -> Balance:
    """Balance rows that are computed part by part, so that their scores never lie in memory together.

    Each iteration is one pass over the parts: a row's factor follows from the columns' factors of the pass before. A
    single part is computed once, and its assignment kept.

    Parameters
    ----------
    scores : function of int
        Logits (rows, prototypes) of a part, divided by the teacher temperature.
    valid : sequence of Tensor (rows,) of bool
        For each part, which rows count.
    iterations : int, default: 3
        Rounds; each balances prototypes, then rows.
    group : ProcessGroup, optional
        Balance over the rows of all processes of this group, which all have to call.

    Returns
    -------
    Balance
    """
    first = _exact(scores(0))
    rows = torch.stack([part.sum() for part in valid]).sum().to(first.dtype)
    later = [_exact(scores(part)).amax() for part in range(1, len(valid)) if len(valid[part])]
    tops = [first.amax(), *later] if len(first) else later
    shift = torch.stack(tops).amax() if tops else first.new_tensor(-torch.inf)
    if group is not None:
        dist.all_reduce(rows, group=group)
        dist.all_reduce(shift, dist.ReduceOp.MAX, group=group)
    by_prototype = first.new_zeros(first.shape[1])
    by_row = [part.to(first.dtype) for part in valid]
    only = (first - shift).exp_() if len(valid) == 1 else None
    del first
    for number in range(iterations + 1):
        mass = torch.zeros_like(by_prototype)
        for part, counts in enumerate(valid):
            matrix = (_exact(scores(part)) - shift).exp_() if only is None else only
            if number:
                by_row[part] = counts / (matrix @ by_prototype)
            if number < iterations:
                mass += by_row[part] @ matrix
        if number < iterations:
            if group is not None:
                dist.all_reduce(mass, group=group)
            by_prototype = rows / (mass * len(mass))
    if only is not None:
        only.mul_(by_prototype).mul_(by_row[0].unsqueeze(1))
    return Balance(by_prototype, by_row, shift, only)


def sinkhorn_knopp(
    logits: Tensor,
    temperature: float,
    iterations: int = 3,
    *,
    valid: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Assign rows to prototypes so that all prototypes are used alike: `balance` of one part that lies in memory.

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
    scaled = _exact(logits.detach()) / temperature
    counts = torch.ones(len(logits), dtype=torch.bool, device=logits.device) if valid is None else valid
    return balance(lambda _: scaled, [counts], iterations, group=group).assignment(lambda _: scaled, 0)


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
    return cross_entropy(_exact(student_logits) / temperature, assignment).mean()


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
    places = masks.flatten().nonzero().flatten()
    weights = patch_weights(masks, places, torch.ones_like(places, dtype=torch.bool))
    lost = cross_entropy(_exact(student_logits) / temperature, assignment)
    return (lost * weights.to(lost.dtype)).sum() / len(masks)


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


def cross_entropy(scaled: Tensor, assignment: Tensor) -> Tensor:
    """Cross-entropy of each row against its assignment, (rows,); no gradient flows to the assignment.

    Parameters
    ----------
    scaled : Tensor (rows, prototypes)
        The student's scores, divided by its temperature.
    assignment : Tensor (rows, prototypes)
        Rows may have any sum; one of zeros gives 0.
    """
    out: Tensor = _CrossEntropy.apply(_exact(scaled), assignment)
    return out


class _CrossEntropy(torch.autograd.Function):
    """``-(assignment * log_softmax(logits)).sum(-1)``, which keeps its gradient alone: one matrix and not five."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, assignment: Tensor) -> Tensor:
        top = logits.amax(dim=-1, keepdim=True)
        gradient = (logits - top).exp_()
        whole = gradient.sum(dim=-1, keepdim=True)
        mass = assignment.sum(dim=-1, keepdim=True)
        said = torch.bmm(assignment.unsqueeze(1), logits.unsqueeze(2)).flatten()
        ctx.save_for_backward(gradient.mul_(mass / whole).sub_(assignment))
        out: Tensor = (mass * (top + whole.log())).flatten() - said
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0].unsqueeze(1), None


def patch_weights(masks: Tensor, places: Tensor, counts: Tensor) -> Tensor:
    """Weight of each masked patch in the sum over images: 1 / (masked patches of its image).

    Parameters
    ----------
    masks : Tensor (images, patches) of bool
        Masked patches.
    places : Tensor (rows,) of int64
        Places of the masked ones among all patches of all images.
    counts : Tensor (rows,) of bool
        Which rows count; the others, padding, weigh 0.

    Returns
    -------
    Tensor (rows,) of float64
    """
    return counts / masks.sum(dim=1).clamp(min=1).double()[places // masks.shape[1]]


def _exact(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
