"""Recipe of a `starter` encoder, a ViT-Tiny that learns on a CPU: where it starts, and its supervised finish.

The bundled one is a finish of 2,000 steps that began with the weights of the first edition. Three commands make a new
one:
``python -m napari_dinobloom.training.starter start FILE`` writes the weights it starts from,
``python -m napari_dinobloom.training --config starter model.start=FILE ...`` lets it learn without labels, and
``python -m napari_dinobloom.training.starter finish --csv .../pbc.csv --start TEACHER --out FOLDER`` with them.

What makes the finish cheap: three quarters of the patch tokens are left out in most of the schedule, fewer later and
none at the end (PatchDropout, Liu et al. 2022, arXiv 2208.07220), so that the network always sees cells at the scale at
which it will be used. Tokens near the middle, where the cell lies, are kept more often. What makes it learn from 6,500
pictures: mimetic initialisation of the attention (Trockman and Kolter 2023, arXiv 2305.09828), sine-cosine positions, a
cosine classifier (the angles that k-NN compares are the ones trained), and augmentation of colour, focus and field of
view that spans other stains and scanners; and a convolutional guide (`starter_guide`), which learns the same pictures
first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from napari_dinobloom.encoders.build import load_backbone
from napari_dinobloom.encoders.registry import REGISTRY
from napari_dinobloom.training.starter_guide import WIDTHS, Guide, GuideConfig, shrink, train_guide
from napari_dinobloom.training.starter_pictures import Pictures, read_pictures, restain, turn_and_zoom

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class StarterConfig:
    """The recipe of the starter encoder."""

    steps: int = 3400
    """Optimiser steps."""
    batch: int = 64
    """Pictures per step."""
    lr: float = 1e-3
    """Peak learning rate of AdamW."""
    warmup: int = 150
    """Steps of linear warm-up; linear decay to zero follows."""
    weight_decay: float = 0.05
    """Of weight matrices; biases, norms, positions and the class token have none."""
    kept: tuple[tuple[float, int], ...] = ((0.0, 56), (0.75, 128), (0.92, 256))
    """(fraction of the schedule from which, patch tokens of 256 that are kept)."""
    spread: float = 4.5
    """Standard deviation, in patches from the middle, of the bell after which kept tokens are drawn."""
    fov: tuple[float, float] = (190.0, 390.0)
    """Range of the field of view in pixels of the 360 px picture, log-uniform."""
    smoothing: float = 0.1
    """Label smoothing."""
    guided_labels: float = 0.7
    """Weight of the guide's class probabilities, the rest being that of the labels."""
    guided_features: float = 1.0
    """Weight of predicting the guide's features from patch tokens."""
    guided_blocks: tuple[int, int] = (6, 9)
    """Blocks, counted from 0, after which patch tokens predict the guide's middle and coarse features."""
    head_scale: float = 16.0
    """Inverse temperature of the cosine classifier."""
    ema: float = 0.999
    """Decay of the averaged weights, which are the ones written."""
    seed: int = 0
    """Seed of everything that is drawn."""

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 2:
            raise ValueError(f"steps ({self.steps}) must be 1 or more and batch ({self.batch}) 2 or more")


def build_vit() -> VisionTransformer:
    """ViT-Tiny with patches of 14 px for pictures of 224 px, without a head; its keys are those the package loads."""
    return VisionTransformer(img_size=224, patch_size=14, embed_dim=192, depth=12, num_heads=3, num_classes=0)


def mimetic_(model: nn.Module) -> None:
    """Start attention near what trained ones look like: queries times keys near I, values times projection near -I."""

    def factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        u, s, vt = torch.linalg.svd(matrix)
        root = s[:rank].sqrt()
        return u[:, :rank] * root, vt[:rank].T * root

    for block in model.blocks:  # type: ignore[union-attr]
        attention = block.attn
        dim, heads = attention.proj.weight.shape[0], attention.num_heads
        width = dim // heads
        eye = torch.eye(dim)
        with torch.no_grad():
            for h in range(heads):
                q, k = factors(0.7 * torch.randn(dim, dim) / dim**0.5 + 0.7 * eye, width)
                attention.qkv.weight[h * width : (h + 1) * width] = q.T
                attention.qkv.weight[dim + h * width : dim + (h + 1) * width] = k.T
            v, p = factors(0.4 * torch.randn(dim, dim) / dim**0.5 - 0.4 * eye, dim)
            attention.qkv.weight[2 * dim :] = v.T
            attention.proj.weight.copy_(p)


def sine_positions(grid: int, dim: int) -> Tensor:
    """(1, 1 + grid * grid, dim) fixed sine-cosine positions, zero for the class token."""
    omega = 1 / 10_000 ** (torch.arange(dim // 4) / (dim / 4))
    place = torch.arange(grid).float()
    wave = torch.outer(place, omega)
    line = torch.cat([wave.sin(), wave.cos()], 1)
    rows = torch.cat([line[:, None].expand(-1, grid, -1), line[None].expand(grid, -1, -1)], 2).reshape(grid * grid, dim)
    return torch.cat([torch.zeros(1, dim), rows])[None]


class CentralTokens(nn.Module):
    """Leaves patch tokens out at random, those near the middle less often; the class token stays.

    Parameters
    ----------
    kept : int
        Patch tokens that stay.
    spread : float
        Standard deviation in patches of the bell after which they are drawn, over a floor of 0.02.
    draw : torch.Generator
        Source of the draws.
    grid : int, default: 16
        Patches per side.
    """

    def __init__(self, kept: int, spread: float, draw: torch.Generator, grid: int = 16) -> None:
        super().__init__()
        self.kept, self.draw = kept, draw
        place = torch.arange(grid) - (grid - 1) / 2
        squared = place[:, None] ** 2 + place[None, :] ** 2
        self.log_chance = (torch.exp(-squared / (2 * spread**2)) + 0.02).log().flatten()
        self.chosen: Tensor | None = None  # (b, kept) of the last call, None where all stayed

    def forward(self, x_BND: Tensor) -> Tensor:
        """(b, 1 + patches, dim) to (b, 1 + kept, dim); as it came outside training or where all are kept."""
        self.chosen = None
        if not self.training or self.kept >= x_BND.shape[1] - 1:
            return x_BND
        chance = torch.rand((len(x_BND), len(self.log_chance)), generator=self.draw)
        keys = self.log_chance - (-chance.log()).log()  # Gumbel's trick: the largest are a draw without replacement
        self.chosen = keys.topk(self.kept, dim=1).indices
        patches = x_BND[:, 1:].gather(1, self.chosen.unsqueeze(2).expand(-1, -1, x_BND.shape[2]))
        return torch.cat([x_BND[:, :1], patches], dim=1)


class CosineClassifier(nn.Module):
    """Class scores as scaled cosines between the class token and one vector per class."""

    def __init__(self, dim: int, classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(classes, dim) * dim**-0.5)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """(b, dim) to (b, classes)."""
        return self.scale * F.normalize(x.float(), dim=1) @ F.normalize(self.weight, dim=1).T


class Guidance(nn.Module):
    """Lets patch tokens of a ViT predict the features that a guide has at their places.

    Parameters
    ----------
    model : VisionTransformer
        Its blocks are listened to.
    blocks : (int, int)
        After which the middle and the coarse features are predicted.
    """

    def __init__(self, model: VisionTransformer, blocks: tuple[int, int]) -> None:
        super().__init__()
        self.outward = nn.ModuleList([nn.Linear(model.embed_dim, width) for width in WIDTHS[1:]])
        self._tokens: dict[int, Tensor] = {}
        for place, block in enumerate(blocks):
            model.blocks[block].register_forward_hook(lambda _m, _i, out, place=place: self._keep(place, out))

    def _keep(self, place: int, tokens: Tensor) -> None:
        self._tokens[place] = tokens

    def forward(self, features: tuple[Tensor, ...], chosen: Tensor | None) -> Tensor:
        """Mean squared error against the guide's features, (b, c, h, w) each and standardised over their channels."""
        lost = []
        for place, (outward, wanted) in enumerate(zip(self.outward, features, strict=True)):
            full = wanted if wanted.shape[-1] == 16 else F.interpolate(wanted, (16, 16), mode="bilinear")
            goal = full.flatten(2).transpose(1, 2)
            if chosen is not None:
                goal = goal.gather(1, chosen.unsqueeze(2).expand(-1, -1, goal.shape[2]))
            goal = F.layer_norm(goal.float(), goal.shape[-1:])
            lost.append(F.mse_loss(outward(self._tokens.pop(place)[:, 1:].float()), goal))
        return torch.stack(lost).mean()


def learning_rate(step: int, config: StarterConfig) -> float:
    """Linear warm-up, then linear decay to zero."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    return config.lr * (config.steps - step) / max(1, config.steps - config.warmup)


def normalise(x: Tensor) -> Tensor:
    """0..1 pictures to what the encoder expects."""
    spec = REGISTRY["starter"]
    return (x - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)


@torch.inference_mode()
def accuracy(model: nn.Module, head: nn.Module, pictures: Pictures, fov: float = 300.0) -> float:
    """Fraction of `pictures` whose best class is right, at one fixed field of view in pixels."""
    model.eval()
    right = 0
    edge = int(pictures.images.shape[-1] - fov) // 2
    for start in range(0, len(pictures.images), 64):
        x = pictures.images[start : start + 64].float() / 255
        x = x[..., edge : x.shape[-1] - edge, edge : x.shape[-1] - edge]
        x = F.interpolate(x, (224, 224), mode="bilinear", antialias=True)
        with torch.autocast("cpu", torch.bfloat16):
            scores = head(model(normalise(x)))
        right += int((scores.argmax(1) == pictures.targets[start : start + 64]).sum())
    model.train()
    return right / len(pictures.images)


def starting_weights(seed: int) -> dict[str, Tensor]:
    """Give the weights that the starter encoder begins with, by timm's names."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_vit()
        mimetic_(model)
        model.pos_embed = nn.Parameter(0.3 * sine_positions(16, model.embed_dim))
    return {name: value.detach().contiguous() for name, value in model.state_dict().items()}


def train(
    data: Pictures, check: Pictures, config: StarterConfig, start: dict[str, Tensor] | None = None, *, guide: Guide
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Train on `data`, report on `check`; return the averaged backbone weights (float32) and the log.

    Parameters
    ----------
    data, check : Pictures
        To learn from, and to look at on the way.
    config : StarterConfig
        The recipe.
    start : dict of str to Tensor, optional
        Weights by timm's names; by default `starting_weights`.
    guide : Guide
        Trained on `data`.
    """
    draw = torch.Generator().manual_seed(config.seed)
    model = build_vit()
    model.load_state_dict(start or starting_weights(config.seed))
    for block in model.blocks:
        setattr(block.attn, "fused_attn", False)  # noqa: B010 - on a CPU its backward pass is six times slower
    torch.manual_seed(config.seed)
    head = CosineClassifier(model.embed_dim, len(data.classes), config.head_scale)
    guidance = Guidance(model, config.guided_blocks)
    parameters = [*model.parameters(), *head.parameters(), *guidance.parameters()]
    matrices = [p for n, p in model.named_parameters() if p.ndim >= 2 and "pos_embed" not in n and "token" not in n]
    others = [p for p in parameters if not any(p is m for m in matrices)]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=config.lr,
        betas=(0.9, 0.98),
        fused=True,
    )
    mean = [p.detach().clone() for p in parameters]
    chance = torch.bincount(data.targets).float().rsqrt()[data.targets]
    history: list[dict[str, float]] = []
    started = time.monotonic()
    for step in range(config.steps):
        tokens_kept = [kept for begin, kept in config.kept if step >= begin * config.steps][-1]
        dropping = CentralTokens(tokens_kept, config.spread, draw)
        setattr(model, "patch_drop", dropping)  # noqa: B010 - typed otherwise
        rows = torch.multinomial(chance, config.batch, replacement=False, generator=draw)
        view = turn_and_zoom(data.images[rows], config.fov, draw)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            *features, advice = guide(shrink(view))
        x = normalise(restain(view, draw))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, config)
        with torch.autocast("cpu", torch.bfloat16):
            tokens = model(x)
        scores = head(tokens)
        told = F.cross_entropy(scores, data.targets[rows], label_smoothing=config.smoothing)
        advised = F.cross_entropy(scores, advice.softmax(1))
        shown = guidance(tuple(features), dropping.chosen)
        loss = torch.lerp(told, advised, config.guided_labels) + config.guided_features * shown
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        torch._foreach_lerp_(mean, [p.detach() for p in parameters], 1 - min(config.ema, (step + 1) / (step + 10)))
        if step % 50 == 49 or step + 1 == config.steps:
            seconds = time.monotonic() - started
            parts = {"loss": told, "advised": advised, "shown": shown}
            history.append(
                {
                    "step": step + 1,
                    **{name: round(value.item(), 4) for name, value in parts.items()},
                    "seconds": round(seconds, 1),
                }
            )
            log.info("%s, %.1f pictures/s", history[-1], (step + 1) * config.batch / seconds)
        if (step + 1) % 500 == 0:
            log.info("step %d held-out accuracy %.4f", step + 1, accuracy(model, head, check))
    with torch.no_grad():
        for p, m in zip(parameters, mean, strict=True):
            p.copy_(m)
    report = {
        "held_out_accuracy": round(accuracy(model, head, check), 4),
        "seconds": round(time.monotonic() - started),
        "processor_seconds": round(time.process_time()),
        "history": history,
    }
    log.info("held-out accuracy of the averaged weights %.4f", report["held_out_accuracy"])
    return {k: v.detach().float() for k, v in model.state_dict().items()}, report


def save(
    weights: dict[str, Tensor], report: dict[str, object], config: StarterConfig, folder: Path, data: Pictures
) -> Path:
    """Write ``starter.safetensors`` (float16) and ``starter.json`` (recipe, log, sha256) into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "starter.safetensors"
    save_file({k: v.half().contiguous() for k, v in weights.items()}, path)
    card = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "pictures": len(data.images),
        "classes": data.classes,
        "recipe": asdict(config),
        "torch": torch.__version__,
        **report,
    }
    (folder / "starter.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return path


def main(arguments: list[str] | None = None) -> None:
    """Write the weights to start from, or finish the starter encoder, from the command line."""
    parser = argparse.ArgumentParser(prog="python -m napari_dinobloom.training.starter", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parts = parser.add_subparsers(dest="part", required=True)
    begin = parts.add_parser("start", help="write the weights that it begins with")
    begin.add_argument("file", type=Path, help="safetensors file to write")
    finish = parts.add_parser("finish", help="train with labels")
    finish.add_argument("--csv", type=Path, required=True, help="CSV with columns file, cell_type, split")
    finish.add_argument("--out", type=Path, required=True, help="folder for starter.safetensors and starter.json")
    finish.add_argument("--start", type=Path, help="weights to begin with, such as a teacher of the preset starter")
    finish.add_argument("--steps", type=int, default=StarterConfig().steps)
    finish.add_argument("--batch", type=int, default=StarterConfig().batch)
    finish.add_argument("--guide-steps", type=int, default=GuideConfig().steps)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if options.part == "start":
        save_file(starting_weights(options.seed), options.file)
        return
    begun = load_backbone(options.start) if options.start else None
    config = StarterConfig(steps=options.steps, batch=options.batch, seed=options.seed)
    data = read_pictures(options.csv, split="train", held=False)
    check = read_pictures(options.csv, split="train", held=True, classes=data.classes)
    log.info("%d pictures to train on, %d held out", len(data.images), len(check.images))
    guiding = GuideConfig(steps=options.guide_steps, batch=options.batch, seed=options.seed)
    guide, advised = train_guide(data, check, guiding)
    weights, report = train(data, check, config, begun.backbone.state_dict() if begun else None, guide=guide)
    report.update(advised)
    report["start"] = begun.sha256 if begun else ""
    log.info("wrote %s", save(weights, report, config, options.out, data))


if __name__ == "__main__":
    main()
