"""Student and teacher, and one step's losses: DINO between two global crops, iBOT on masked patches, KoLeo.

After DINOv2 (Oquab et al. 2023, arXiv 2304.07193) as DinoBloom's training uses it: no loss between global and local
crops, a head of its own for iBOT, Sinkhorn-Knopp in place of centering.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from napari_dinobloom.encoders.networks.vit import VisionTransformer
from napari_dinobloom.training.heads import DINOHead
from napari_dinobloom.training.losses import dino_loss, ibot_loss, koleo_loss, sinkhorn_knopp


@dataclass(kw_only=True, slots=True, frozen=True)
class Weights:
    """How much each term counts."""

    dino: float = 0.5
    """Of the loss between the two global crops. The reference divides by the terms that local crops would add."""
    ibot: float = 1.0
    """Of the loss on masked patches."""
    koleo: float = 0.1
    """Of the sum of KoLeo over both crops."""


class Losses(NamedTuple):
    """The terms of a step, each with its weight in it, and their sum."""

    dino: Tensor
    ibot: Tensor
    koleo: Tensor
    total: Tensor


class Network(nn.Module):
    """A backbone with its two heads: what is trained, and what teaches.

    Parameters
    ----------
    backbone : VisionTransformer
        Tokens of a picture.
    dino_head, ibot_head : DINOHead
        Scores of class tokens and of patch tokens.
    """

    def __init__(self, backbone: VisionTransformer, dino_head: DINOHead, ibot_head: DINOHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.mask_token = nn.Parameter(torch.zeros(1, backbone.dim))
        self.dino_head = dino_head
        self.ibot_head = ibot_head

    def tokens(self, crops_BCYX: Tensor, masks_BP: Tensor | None = None) -> Tensor:
        """Compute all tokens, masked patches replaced by the mask token, (B, 1 + patches, D)."""
        tokens: Tensor = self.backbone(crops_BCYX, masks_BP, self.mask_token)
        return tokens

    def modules_to_clip(self) -> Iterator[tuple[str, list[nn.Parameter]]]:
        """Give the three parts whose gradients are clipped each by itself, with their parameters."""
        yield "backbone", [*self.backbone.parameters(), self.mask_token]
        yield "dino_head", list(self.dino_head.parameters())
        yield "ibot_head", list(self.ibot_head.parameters())


class SelfDistillation(nn.Module):
    """A student and its teacher, a moving average of it.

    Parameters
    ----------
    student : Network
        What is trained. The teacher starts as its copy, heads included.
    weights : Weights, optional
        Of the terms.
    student_temperature : float, default: 0.1
        Divides the student's scores.
    """

    def __init__(self, student: Network, weights: Weights | None = None, student_temperature: float = 0.1) -> None:
        super().__init__()
        self.student = student
        self.teacher = copy.deepcopy(student).requires_grad_(False).eval()
        self.weights = weights or Weights()
        self.student_temperature = student_temperature

    @torch.no_grad()
    def targets(
        self, crops: Tensor, masks: Tensor, temperature: float, group: dist.ProcessGroup | None = None
    ) -> tuple[Tensor, Tensor]:
        """Let the teacher assign both crops, unmasked.

        Parameters
        ----------
        crops : Tensor (2 n, 3, Y, X)
            First the n first crops, then the n second ones.
        masks : Tensor (2 n, patches) of bool
            Patches that the student will not see.
        temperature : float
            Teacher temperature.
        group : ProcessGroup, optional
            Balance over all its processes.

        Returns
        -------
        classes : Tensor (2 n, prototypes)
            Target of each crop's class token: the assignment of the other crop.
        patches : Tensor (masked patches, prototypes)
            Targets of the masked patches, in the order of `masks`.
        """
        tokens = self.teacher.tokens(crops)
        first, second = tokens[:, 0].chunk(2)
        class_scores = self.teacher.dino_head(torch.cat([second, first]))
        patch_scores = self.teacher.ibot_head(tokens[:, 1:][masks])
        return (
            sinkhorn_knopp(class_scores, temperature, group=group),
            sinkhorn_knopp(patch_scores, temperature, group=group),
        )

    def losses(
        self, crops: Tensor, masks: Tensor, targets: tuple[Tensor, Tensor], groups: Sequence[slice] | None = None
    ) -> Losses:
        """Compute the student's losses against the teacher's targets.

        Parameters
        ----------
        crops, masks
            As in `targets`.
        targets : (Tensor, Tensor)
            What `targets` gives.
        groups : sequence of slice, optional
            Rows of a crop (of 0..n) among which KoLeo looks for neighbours; all of them are one group by default.

        Returns
        -------
        Losses
        """
        tokens = self.student.tokens(crops, masks)
        classes, patches = tokens[:, 0], tokens[:, 1:][masks]
        dino = dino_loss(self.student.dino_head(classes), targets[0], self.student_temperature)
        ibot = ibot_loss(self.student.ibot_head(patches), targets[1], masks, self.student_temperature)
        count = len(crops) // 2
        parts = groups or [slice(0, count)]
        koleo = torch.stack(
            [koleo_loss(crop[part]) * (len(crop[part]) / count) for crop in classes.chunk(2) for part in parts]
        ).sum()
        weighted = (self.weights.dino * dino, self.weights.ibot * ibot, self.weights.koleo * koleo)
        return Losses(*weighted, torch.stack(weighted).sum())

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Move the teacher towards the student: ``momentum * teacher + (1 - momentum) * student``."""
        teacher, student = ([p.detach() for p in network.parameters()] for network in (self.teacher, self.student))
        torch._foreach_mul_(teacher, momentum)
        torch._foreach_add_(teacher, student, alpha=1 - momentum)
