"""Student and teacher, and one step's losses: DINO between crops, iBOT on masked patches, KoLeo.

After DINOv2 (Oquab et al. 2023, arXiv 2304.07193) as DinoBloom's training uses it: a head of its own for iBOT,
Sinkhorn-Knopp in place of centering, no local crops unless they are asked for. A step's pictures come in *groups*
(the reference's batch of one card): masks and KoLeo know only their own group, Sinkhorn-Knopp balances all of them
over all processes. A micro-batch is one group, so that neither their number nor that of the processes changes a step.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from napari_dinobloom.encoders.architecture import Architecture
from napari_dinobloom.encoders.networks.vit import VisionTransformer
from napari_dinobloom.encoders.positions import resample_positions
from napari_dinobloom.training.heads import DINOHead
from napari_dinobloom.training.losses import Balance, balance, cross_entropy, koleo_loss, patch_weights


@dataclass(kw_only=True, slots=True, frozen=True)
class LossWeights:
    """How much each term counts."""

    dino: float = 0.5
    """Of the loss between the two global crops. The reference divides by the terms that local crops would add."""
    ibot: float = 1.0
    """Of the loss on masked patches."""
    koleo: float = 0.1
    """Of the sum of KoLeo over both crops."""
    local: float = 0.0
    """Of the loss of local crops against both global ones, averaged over pairs."""


class Group(NamedTuple):
    """One group's pictures as the network sees them."""

    crops: Tensor
    """(2 n, 3, Y, X): first the n first crops, then the n second ones."""
    masks: Tensor
    """(2 n, patches) bool: what the student does not see."""
    rows: int | None = None
    """Masked patches are padded to this number (`masking.most_masked`), so that shapes stay the same from step to step
    and a graphics card need not be asked how many there are; None pads nothing."""
    local: Tensor | None = None
    """(k n, 3, y, x): first the n first local crops, then the n second ones and so on; the student alone sees them."""

    def masked(self) -> tuple[Tensor, Tensor]:
        """Give the places of the masked patches among all (rows,), padded with 0, and which of them count."""
        flat = self.masks.flatten()
        if self.rows is None:
            places = flat.nonzero().squeeze(1)
            return places, torch.ones_like(places, dtype=torch.bool)
        places = torch.nonzero_static(flat, size=self.rows, fill_value=0).squeeze(1)
        return places, torch.arange(self.rows, device=flat.device) < flat.sum()


class Losses(NamedTuple):
    """The terms of a step, each with its weight in it, and their sum."""

    dino: Tensor
    ibot: Tensor
    koleo: Tensor
    local: Tensor
    total: Tensor


class Seen(NamedTuple):
    """What a network makes of a group."""

    classes: Tensor
    """Class tokens of the global crops (2 n, D), before the head."""
    of_classes: Tensor
    """Their bottlenecks, float32."""
    of_patches: Tensor
    """Bottlenecks of the patches that were asked for, float32."""
    of_local: Tensor | None
    """Bottlenecks of the class tokens of the local crops (k n, bottleneck), float32."""


class MaskedTransformer(VisionTransformer):
    """A vision transformer with a mask token that takes the place of masked patches.

    It takes square crops of any whole number of patches: positions are resampled by the rule of DINOv2's own models.
    """

    def __init__(self, arch: Architecture, grid: int = 16) -> None:
        super().__init__(arch, grid)
        self.mask_token = nn.Parameter(torch.zeros(1, arch.dim))

    def forward(
        self,
        x_BCYX: Tensor,
        masks_BP: Tensor | None = None,
        mask_token_1D: Tensor | None = None,
        rows_R: Tensor | None = None,
    ) -> Tensor:
        """Compute tokens, as the base class does, with the mask token of its own."""
        return super().forward(x_BCYX, masks_BP, self.mask_token if mask_token_1D is None else mask_token_1D, rows_R)

    def positions(self, patches: int) -> Tensor:
        """Resample the positions to a grid of another size."""
        grid = math.isqrt(patches)
        return self.pos_embed if grid == self.grid else resample_positions(self.pos_embed, grid, "hub")


def class_rows(pictures: int, patches: int, device: torch.device) -> Tensor:
    """Places of the class tokens among all tokens of so many pictures, (pictures,) int64."""
    return torch.arange(pictures, device=device) * (1 + patches)


class Network(nn.Module):
    """A backbone with its two heads: what is trained, and what teaches. Key names are those of the releases.

    Parameters
    ----------
    backbone : MaskedTransformer
        Tokens of a picture.
    dino_head, ibot_head : DINOHead
        Scores of class tokens and of patch tokens.
    """

    def __init__(self, backbone: MaskedTransformer, dino_head: DINOHead, ibot_head: DINOHead) -> None:
        super().__init__()
        self.backbone, self.dino_head, self.ibot_head = backbone, dino_head, ibot_head
        self.autocast: torch.dtype | None = None

    def forward(self, group: Group, places: Tensor, *, student: bool) -> Seen:
        """Look at a group's crops; the patches at `places` go through the iBOT head.

        A student sees masked crops, and the local ones. With `autocast` set, backbone and heads compute in that type;
        bottlenecks are float32 all the same.
        """
        with torch.autocast(group.crops.device.type, self.autocast, enabled=self.autocast is not None):
            patches_each, count = group.masks.shape[1], len(group.crops)
            rows = torch.cat([class_rows(count, patches_each, places.device), places + places // patches_each + 1])
            tokens: Tensor = self.backbone(group.crops, group.masks if student else None, rows_R=rows)
            classes, patches = tokens[:count], tokens[count:]
            local = None
            if student and group.local is not None:
                small = group.local.shape[-1] // self.backbone.arch.patch_size
                rows = class_rows(len(group.local), small**2, places.device)
                local = self.dino_head.bottleneck(self.backbone(group.local, rows_R=rows))
            return Seen(classes, self.dino_head.bottleneck(classes), self.ibot_head.bottleneck(patches), local)

    def parts(self) -> Iterator[tuple[str, list[nn.Parameter]]]:
        """Give the three parts whose gradients are clipped each by itself, with their parameters."""
        for name, module in self.named_children():
            yield name, list(module.parameters())


@dataclass(frozen=True, slots=True)
class Targets:
    """What the teacher says of all groups of this process: bottlenecks, and the balance that makes them assignments."""

    classes: list[Tensor]
    """For each group (2 n, bottleneck), the crops exchanged: a crop learns what the teacher says of the other. Divided
    by the teacher temperature, which costs less than to divide scores of prototypes."""
    patches: list[Tensor]
    """For each group (masked patches, bottleneck), divided likewise."""
    class_balance: Balance
    patch_balance: Balance
    images: int
    """Pictures of all groups of all processes."""
    groups: int
    """Groups of all processes."""


class SelfDistillation:
    """A student and its teacher, a moving average of it.

    Parameters
    ----------
    student : Network
        What is trained. The teacher starts as its copy, heads included. `trained` is the same network, or what
        wraps it to exchange gradients.
    weights : LossWeights, optional
        Of the terms.
    student_temperature : float, default: 0.1
        Divides the student's scores.
    group : ProcessGroup, optional
        Processes that share a step; None for one process.
    """

    def __init__(
        self,
        student: Network,
        weights: LossWeights | None = None,
        student_temperature: float = 0.1,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.student = student
        self.teacher = copy.deepcopy(student).requires_grad_(False).eval()
        self.trained: nn.Module = student
        self.weights = weights or LossWeights()
        self.student_temperature = student_temperature
        self.group = group

    @torch.no_grad()
    def targets(self, groups: Sequence[Group], temperature: float) -> Targets:
        """Let the teacher look at all groups of this process, unmasked, and balance with those of the others.

        Parameters
        ----------
        groups : sequence of Group
            At least one; each process has as many, of the same size.
        temperature : float
            Teacher temperature.
        """
        classes, patches, counted = [], [], []
        for group in groups:
            places, counts = group.masked()
            counted.append(counts)
            seen = self.teacher(group, places, student=False)
            first, second = seen.of_classes.chunk(2)
            classes.append(torch.cat([second, first]))
            patches.append(seen.of_patches)
        dino, ibot = self.teacher.dino_head.last_layer, self.teacher.ibot_head.last_layer
        # The bottlenecks are divided by the temperature, so that the scores are.
        classes, patches = ([part / temperature for part in parts] for parts in (classes, patches))
        processes = 1 if self.group is None else dist.get_world_size(self.group)
        return Targets(
            classes,
            patches,
            balance(lambda part: dino(classes[part]), _all(classes), group=self.group),
            balance(lambda part: ibot(patches[part]), counted, group=self.group),
            sum(len(g.crops) for g in groups) // 2 * processes,
            len(groups) * processes,
        )

    def losses(self, group: Group, targets: Targets, number: int) -> Losses:
        """Compute one group's share of the step's losses; the shares of all groups of all processes add up to them.

        Parameters
        ----------
        group : Group
            What the student sees, masked.
        targets : Targets
            Of this process.
        number : int
            Which of its groups this is.
        """
        places, counts = group.masked()
        seen: Seen = self.trained(group, places, student=True)
        student, teacher, temperature = self.student, self.teacher, self.student_temperature
        assigned = targets.class_balance.assignment(
            lambda part: teacher.dino_head.last_layer(targets.classes[part]), number
        )
        dino = cross_entropy(student.dino_head.last_layer(seen.of_classes / temperature), assigned)
        ibot = cross_entropy(
            student.ibot_head.last_layer(seen.of_patches / temperature),
            targets.patch_balance.assignment(lambda part: teacher.ibot_head.last_layer(targets.patches[part]), number),
        )
        local = dino.new_zeros(1)
        if seen.of_local is not None:
            of_picture = torch.stack(assigned.chunk(2)).mean(dim=0)  # linear: the mean of two losses is that of targets
            of_local = student.dino_head.last_layer(seen.of_local / temperature)
            local = cross_entropy(of_local, of_picture.repeat(len(of_local) // len(of_picture), 1))
        crops = 2 * targets.images
        shares = patch_weights(group.masks, places, counts).to(ibot.dtype)
        koleo = torch.stack([koleo_loss(crop) for crop in seen.classes.chunk(2)]).sum() / targets.groups
        weighted = (
            self.weights.dino * dino.sum() / crops,
            self.weights.ibot * (ibot * shares).sum() / crops,
            self.weights.koleo * koleo,
            self.weights.local * local.mean() * (len(dino) / crops),
        )
        return Losses(*weighted, torch.stack(weighted).sum())

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """Move the teacher towards the student: ``momentum * teacher + (1 - momentum) * student``."""
        teacher, student = ([p.detach() for p in network.parameters()] for network in (self.teacher, self.student))
        torch._foreach_lerp_(teacher, student, 1 - momentum)


def _all(parts: Sequence[Tensor]) -> list[Tensor]:
    """All rows of each part count."""
    return [torch.ones(len(part), dtype=torch.bool, device=part.device) for part in parts]
