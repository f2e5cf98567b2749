"""One training step on a CPU beside a straightforward one, and what a store costs to make and to read.

    python benchmarks/training.py [--only step,attention,store] [--compiled] [--pictures TABLE.csv]

``step``: ViT-S, batch 8, two crops of 224 px, the heads and 65,536 prototypes of DinoBloom, from crops to updated
teacher, in float32 and bf16. ``eager`` is the same step as one would write it down: timm's model under autocast, logits
and assignments as whole matrices, Sinkhorn-Knopp by dividing the matrix, torch's log-softmax, AdamW with its defaults,
the teacher parameter by parameter. Both start from the same weights and see the same batch, and their losses are
compared before they are timed. They take turns; what counts is the median of the ratios of neighbours.
``attention``: one layer of ViT-S on 16 crops in bf16, our plain products beside torch's fused kernel, forwards and
back. ``store``: pictures per second that ``prepare`` turns into a store, raw and JPEG, and that a training reads from
it. Writes ``benchmarks/results/training.json``.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from machine import RESULTS, machine
from torch import Tensor, nn

from napari_dinobloom.encoders.architecture import ARCHITECTURES
from napari_dinobloom.encoders.networks.vit import attention
from napari_dinobloom.training.begin import randomise
from napari_dinobloom.training.distillation import Group, MaskedTransformer, Network, SelfDistillation
from napari_dinobloom.training.heads import DINOHead
from napari_dinobloom.training.manifest import read_manifest
from napari_dinobloom.training.masking import block_masks
from napari_dinobloom.training.optimiser import make_optimiser
from napari_dinobloom.training.parallel import World, parallelize
from napari_dinobloom.training.prepare import PrepareConfig, prepare
from napari_dinobloom.training.schedules import Values
from napari_dinobloom.training.step import run_step

BATCH, PROTOTYPES, ROUNDS = 8, 65536, 7
VALUES = Values(1e-4, 1e-4, 0.04, 0.994, 0.04)
WORLD = World(0, 1, 0, torch.device("cpu"))
FILE = RESULTS / "training.json"


class Eager(nn.Module):
    """Backbone of timm with a mask token, and two heads as DINOv2 writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model(
            "vit_small_patch14_dinov2", img_size=224, num_classes=0, pretrained=False, init_values=1e-5
        )
        self.mask_token = nn.Parameter(torch.zeros(1, 384))
        self.dino_head, self.ibot_head = self._head(), self._head()

    @staticmethod
    def _head() -> nn.Module:
        mlp = nn.Sequential(
            nn.Linear(384, 2048), nn.GELU(), nn.Linear(2048, 2048), nn.GELU(), nn.Linear(2048, 256)
        )  # fmt: skip
        last = nn.utils.parametrizations.weight_norm(nn.Linear(256, PROTOTYPES, bias=False))
        return nn.ModuleDict({"mlp": mlp, "last": last})

    def tokens(self, x: Tensor, masks: Tensor | None) -> Tensor:
        """All tokens after the last norm."""
        net = self.backbone
        patches = net.patch_embed(x)
        if masks is not None:
            patches = torch.where(masks.unsqueeze(-1), self.mask_token.to(patches.dtype).unsqueeze(0), patches)
        out = torch.cat([net.cls_token.expand(len(x), -1, -1), patches], dim=1) + net.pos_embed
        for block in net.blocks:
            out = block(out)
        normed: Tensor = net.norm(out)
        return normed

    @staticmethod
    def logits(head: Any, x: Tensor) -> Tensor:
        """Scores of prototypes; the product leaves in float32, as ours does."""
        with torch.autocast("cpu", enabled=False):
            return head["last"](F.normalize(head["mlp"](x.float()), dim=-1))  # type: ignore[no-any-return]


def eager_sinkhorn(logits: Tensor, temperature: float) -> Tensor:
    """SwAV's three rounds on the whole matrix."""
    q = torch.exp(logits / temperature).t()
    rows, columns = q.shape[1], q.shape[0]
    q /= q.sum()
    for _ in range(3):
        q /= q.sum(dim=1, keepdim=True)
        q /= columns
        q /= q.sum(dim=0, keepdim=True)
        q /= rows
    return (q * rows).t()


def eager_koleo(x: Tensor) -> Tensor:
    """KoLeo of one crop."""
    x = F.normalize(x.float(), dim=-1)
    likeness = x @ x.t()
    likeness.fill_diagonal_(-1)
    distance = F.pairwise_distance(x, x[likeness.argmax(dim=1)], eps=1e-4)
    return -torch.log(distance + 1e-8).mean()


def eager_step(student: Eager, teacher: Eager, optimiser: Any, crops: Tensor, masks: Tensor, bf16: bool) -> float:
    """The whole step; gives the loss."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        with torch.no_grad():
            seen = teacher.tokens(crops, None)
            first, second = seen[:, 0].chunk(2)
            classes = eager_sinkhorn(teacher.logits(teacher.dino_head, torch.cat([second, first])), 0.04)
            patches = eager_sinkhorn(teacher.logits(teacher.ibot_head, seen[:, 1:][masks]), 0.04)
        seen = student.tokens(crops, masks)
        dino = -(classes * F.log_softmax(student.logits(student.dino_head, seen[:, 0]) / 0.1, dim=-1)).sum(-1).mean()
        of_patches = student.logits(student.ibot_head, seen[:, 1:][masks])
        weight = (1 / masks.sum(-1).clamp(min=1.0)).unsqueeze(-1).expand_as(masks)[masks]
        ibot = -((patches * F.log_softmax(of_patches / 0.1, dim=-1)).sum(-1) * weight).sum() / len(masks)
        koleo = sum(eager_koleo(part) for part in seen[:, 0].chunk(2))
        loss = 0.5 * dino + ibot + 0.1 * koleo
    optimiser.zero_grad()
    loss.backward()
    for part in (student.backbone, student.dino_head, student.ibot_head):
        nn.utils.clip_grad_norm_(part.parameters(), 3.0)
    optimiser.step()
    with torch.no_grad():
        for ours, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
            ours.mul_(VALUES.momentum).add_(theirs, alpha=1 - VALUES.momentum)
    return float(loss.detach())


def pair() -> tuple[Network, Eager]:
    """The same weights in both."""
    torch.manual_seed(0)
    backbone = MaskedTransformer(ARCHITECTURES["S"])
    randomise(backbone)
    ours = Network(backbone, DINOHead(384, 256, PROTOTYPES), DINOHead(384, 256, PROTOTYPES))
    eager = Eager()
    missing = eager.backbone.load_state_dict(
        {name: value for name, value in ours.backbone.state_dict().items() if name != "mask_token"}, strict=False
    )
    if missing.missing_keys or missing.unexpected_keys:
        raise RuntimeError(f"timm's network has other weights: {missing}")
    for name in ("dino_head", "ibot_head"):
        mine, theirs = getattr(ours, name), getattr(eager, name)
        theirs["mlp"].load_state_dict(mine.mlp.state_dict())
        with torch.no_grad():
            theirs["last"].parametrizations.weight.original0.copy_(mine.last_layer.weight_g)
            theirs["last"].parametrizations.weight.original1.copy_(mine.last_layer.weight_v)
    return ours, eager


def step(compiled: bool) -> dict[str, Any]:
    """Time both steps in both precisions."""
    crops = torch.randn(2 * BATCH, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    masks = block_masks(BATCH, 16, 0, 0, 0)
    found: dict[str, Any] = {"masked_patches": int(masks.sum()), "threads": torch.get_num_threads()}
    for precision in ("float32", "bf16"):
        found[precision] = compare(crops, masks, precision == "bf16", compiled)
        print(precision, json.dumps(found[precision]), flush=True)
    return found


def compare(crops: Tensor, masks: Tensor, bf16: bool, compiled: bool) -> dict[str, Any]:
    """Time both steps by turns in one precision."""
    network, student = pair()
    teacher = copy.deepcopy(student).requires_grad_(False)
    eager_optimiser = torch.optim.AdamW(student.parameters(), lr=VALUES.lr, weight_decay=VALUES.weight_decay)
    model = SelfDistillation(network)
    parallelize(model, WORLD, "none", bf16=bf16, compile=compiled)
    optimiser = make_optimiser(network)
    group = Group(crops, masks, None)

    def ours() -> float:
        return run_step(model, optimiser, [group], VALUES, WORLD).losses["total"]

    def eager() -> float:
        return eager_step(student, teacher, eager_optimiser, crops, masks, bf16)

    first = (ours(), eager())
    if abs(first[0] / first[1] - 1) > 1e-3:
        raise RuntimeError(f"The two steps compute different losses: {first}")
    ours(), eager()
    times = [(_seconds(ours), _seconds(eager)) for _ in range(ROUNDS)]
    ratios = [theirs / mine for mine, theirs in times]
    return {
        "losses_of_the_first_step": first,
        "ours_s": round(statistics.median(mine for mine, _ in times), 3),
        "eager_s": round(statistics.median(theirs for _, theirs in times), 3),
        "speedup": round(statistics.median(ratios), 3),
        "speedup_range": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def attention_layer() -> dict[str, Any]:
    """Time attention of one layer both ways."""
    qkv = torch.randn(2 * BATCH, 257, 3, 6, 64, dtype=torch.bfloat16, requires_grad=True)

    def forwards(attend: Callable[..., Tensor]) -> Tensor:
        return attend(*qkv.permute(2, 0, 3, 1, 4).unbind(0))

    def both(attend: Callable[..., Tensor]) -> None:
        forwards(attend).sum().backward()

    found: dict[str, Any] = {}
    for name, work in (("forwards", forwards), ("with_backwards", both)):
        times = {
            kind: min(_seconds(lambda work=work, attend=attend: work(attend)) for _ in range(10))  # type: ignore[misc]
            for kind, attend in (("ours", attention), ("fused", F.scaled_dot_product_attention))
        }
        found[name] = {f"{kind}_ms": round(1e3 * taken, 1) for kind, taken in times.items()}
        found[name]["speedup"] = round(times["fused"] / times["ours"], 2)
    print(json.dumps(found), flush=True)
    return found


def store(pictures: Path) -> dict[str, Any]:
    """Time `prepare` and reading in random order on labelled real pictures."""
    rows = read_manifest(pictures)[:3000]
    found: dict[str, Any] = {"pictures": len(rows)}
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("raw", "jpeg"):
            place = Path(folder) / kind
            taken = _seconds(lambda place=place, kind=kind: prepare(rows, place, PrepareConfig(format=kind)))  # type: ignore[misc]
            made = prepare(rows, place, PrepareConfig(format=kind)).store
            order = random.permutation(sum(made.sizes))[:2048].reshape(-1, 128)
            reading = _seconds(lambda made=made, order=order: [made.read(part) for part in order])  # type: ignore[misc]
            found[kind] = {
                "prepare_per_s": round(len(rows) / taken),
                "read_per_s": round(order.size / reading),
                "mib": round(sum(f.stat().st_size for f in place.glob("shard-*")) / 2**20, 1),
            }
            shutil.rmtree(place)
            print(kind, json.dumps(found[kind]), flush=True)
    return found


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure, print and write; what was not asked for keeps its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="step,attention,store")
    parser.add_argument("--compiled", action="store_true", help="compile our blocks, as run.compile=true does")
    parser.add_argument("--pictures", type=Path, default=Path("../shared/data/pbc.csv"))
    asked = parser.parse_args()
    found = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    for name in asked.only.split(","):
        key = "step, blocks compiled" if name == "step" and asked.compiled else name
        work = {
            "step": lambda: step(asked.compiled),
            "attention": attention_layer,
            "store": lambda: store(asked.pictures),
        }
        found[key] = work[name]() | {"machine": machine()}
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
