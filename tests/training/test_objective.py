"""Losses, head, schedules and whole steps against the numbers of the public implementation."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from spawned import groups, toy
from torch import Tensor

from napari_dinobloom.encoders.architecture import Architecture
from napari_dinobloom.encoders.networks.vit import attention
from napari_dinobloom.encoders.positions import resample_positions
from napari_dinobloom.training.distillation import Group, LossWeights, MaskedTransformer, Network, SelfDistillation
from napari_dinobloom.training.heads import DINOHead
from napari_dinobloom.training.losses import (
    balance,
    cross_entropy,
    dino_loss,
    ibot_loss,
    koleo_loss,
    sinkhorn_knopp,
)
from napari_dinobloom.training.optimiser import apply_schedule, clip_gradients, make_optimiser, multipliers
from napari_dinobloom.training.products import use_in
from napari_dinobloom.training.schedules import Schedules, Values

Golden = dict[str, np.ndarray]
Conformance = tuple[ModuleType, Golden]

STEPS = [
    Values(1e-3, 0.0, 0.04, 0.9, 0.04),
    Values(1e-3, 1e-3, 0.05, 0.91, 0.05),
    Values(2e-3, 2e-3, 0.06, 0.92, 0.06),
]


def in_parts(logits: Tensor, temperature: float, parts: int, iterations: int = 3) -> Tensor:
    """Assignment of all rows, balanced in several parts."""
    scaled = (logits.detach() / temperature).chunk(parts)
    counts = torch.ones(len(logits), dtype=torch.bool).chunk(parts)
    found = balance(lambda part: scaled[part], counts, iterations)
    return torch.cat([found.assignment(lambda part: scaled[part], part) for part in range(parts)])


def _close(found: Tensor, golden: np.ndarray, tolerance: float = 1e-5) -> None:
    assert float(np.abs(found.detach().numpy() - golden).max()) <= tolerance * float(np.abs(golden).max())


def _drawn(rule: ModuleType, name: str, rows: int) -> Tensor:
    return torch.from_numpy(rule.draw(name, (rows, 512), 0, 0.3))


@pytest.mark.real_data
def test_the_dino_loss(conformance: Conformance) -> None:
    rule, golden = conformance
    assignment = sinkhorn_knopp(_drawn(rule, "teacher_logits", 16), 0.05)
    _close(assignment, golden["dino/sinkhorn"])
    _close(in_parts(_drawn(rule, "teacher_logits", 16), 0.05, 3), golden["dino/sinkhorn"])
    student = _drawn(rule, "student_logits", 16).requires_grad_()
    loss = dino_loss(student, assignment)
    loss.backward()
    _close(loss, golden["dino/loss"])
    assert student.grad is not None
    _close(student.grad, golden["dino/grad"])


@pytest.mark.real_data
def test_the_ibot_loss(conformance: Conformance) -> None:
    rule, golden = conformance
    assignment = sinkhorn_knopp(_drawn(rule, "teacher_patch", 24)[:17], 0.05)
    _close(assignment, golden["ibot/sinkhorn"])
    student = _drawn(rule, "student_patch", 17).requires_grad_()
    loss = ibot_loss(student, assignment, torch.from_numpy(golden["ibot/masks"]))
    loss.backward()
    _close(loss, golden["ibot/loss"])
    assert student.grad is not None
    _close(student.grad, golden["ibot/grad"])


@pytest.mark.real_data
def test_koleo(conformance: Conformance) -> None:
    rule, golden = conformance
    x = torch.from_numpy(rule.koleo_input()).requires_grad_()
    loss = koleo_loss(x)
    loss.backward()
    _close(loss, golden["koleo/loss"])
    assert x.grad is not None
    _close(x.grad, golden["koleo/grad"])


@pytest.mark.real_data
def test_the_head(conformance: Conformance) -> None:
    rule, golden = conformance
    head = DINOHead(384, 256, 1024)
    weights = rule.weights(rule.head_shapes("dino_head", 384, 256, 1024))
    head.load_state_dict({key.removeprefix("dino_head."): torch.from_numpy(value) for key, value in weights.items()})
    _close(head(torch.from_numpy(rule.draw("head_in", (6, 384)))), golden["head/out"])


def test_a_new_head_has_prototypes_of_length_one() -> None:
    head = DINOHead(8, 4, 12, 16)
    assert bool((head.last_layer.weight_g == 1).all())
    x = torch.randn(5, 8)
    directions = head.last_layer.weight_v / head.last_layer.weight_v.norm(dim=1, keepdim=True)
    torch.testing.assert_close(head(x), head.bottleneck(x) @ directions.T)
    assert head.last_layer.weight_v.abs().max() <= 0.5  # 1 / sqrt(4): the default of a linear layer


def test_sinkhorn_balances_rows_and_prototypes() -> None:
    logits = torch.randn(24, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    balanced = sinkhorn_knopp(logits, 0.5, iterations=200)
    torch.testing.assert_close(balanced.sum(1), torch.ones(24, dtype=torch.float64))
    torch.testing.assert_close(balanced.sum(0), torch.full((6,), 4.0, dtype=torch.float64))
    torch.testing.assert_close(sinkhorn_knopp(logits + 3000, 0.5), sinkhorn_knopp(logits, 0.5))


def test_padding_rows_stay_out_of_sinkhorn() -> None:
    random = torch.Generator().manual_seed(1)
    logits, padding = torch.randn(10, 7, generator=random), torch.randn(4, 7, generator=random)
    valid = torch.arange(14) < 10
    padded = sinkhorn_knopp(torch.cat([logits, padding]), 0.1, valid=valid)
    torch.testing.assert_close(padded[:10], sinkhorn_knopp(logits, 0.1))
    assert bool((padded[10:] == 0).all())
    assert sinkhorn_knopp(logits[:0], 0.1).shape == (0, 7)


@pytest.mark.real_data
def test_the_published_schedules(real_data: Path) -> None:
    stated = json.loads((real_data.parent / "conformance" / "schedules.json").read_text(encoding="utf-8"))
    for size in "SBLG":
        schedules = Schedules(batch=stated[size]["batch"])
        for place, iteration in enumerate(stated["iterations"]):
            values = schedules.at(iteration)
            found = (values.lr, values.last_layer_lr, values.weight_decay, values.momentum, values.teacher_temperature)
            wanted = (
                stated[size]["lr"][place],
                stated[size]["last_layer_lr"][place],
                *(stated[name][place] for name in ("weight_decay", "momentum", "teacher_temp")),
            )
            assert found == pytest.approx(wanted, rel=1e-12, abs=1e-18)


def test_schedules_that_cannot_work_are_refused() -> None:
    for wrong in ({"batch": 0}, {"batch": 8, "warmup": 100_000}, {"batch": 8, "teacher_temperature": (0.0, 0.07)}):
        with pytest.raises(ValueError, match=r"batch|warmup|temperature"):
            Schedules(**wrong)
    end = Schedules(batch=8).at(10**6)
    assert end == (1e-6, 1e-6, 0.2, 1.0, 0.07)


def test_local_crops_learn_what_the_teacher_says_of_both_global_ones() -> None:
    model = toy()
    model.weights = LossWeights(dino=0.25, ibot=0.0, koleo=0.0, local=0.75)
    (group, *_) = groups(0)
    assert group.local is not None
    losses = model.losses(group, model.targets([group], 0.05), 0)
    with torch.no_grad():
        said = model.teacher.dino_head(model.teacher.backbone(group.crops)[:, 0])
        first, second = sinkhorn_knopp(said, 0.05).chunk(2)
        local = model.student.dino_head(model.student.backbone(group.local)[:, 0]).unflatten(0, (2, 3))
        pairs = [dino_loss(crop, target) for crop in local for target in (first, second)]
    assert float(losses.local.detach()) == pytest.approx(0.75 * float(torch.stack(pairs).mean()), rel=1e-9)
    assert float(losses.total.detach()) == pytest.approx(float(losses.local.detach() + losses.dino.detach()), rel=1e-12)


def test_positions_of_local_crops_follow_the_public_models() -> None:
    backbone = MaskedTransformer(Architecture("toy", 16, 1, 2, 24), 16)
    torch.nn.init.normal_(backbone.pos_embed)
    found = backbone.positions(49)
    torch.testing.assert_close(found, resample_positions(backbone.pos_embed, 7, "hub"))
    assert backbone(torch.zeros(2, 3, 98, 98)).shape == (2, 50, 16)
    found.sum().backward()
    assert backbone.pos_embed.grad is not None
    assert float(backbone.pos_embed.grad[0, 0].mean()) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_entropy_is_that_of_the_softmax(dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 11, generator=random, dtype=dtype).requires_grad_()
    assignment = torch.rand(7, 11, generator=random, dtype=dtype)
    assignment[3] = 0  # a row of padding
    weight = torch.rand(7, generator=random, dtype=dtype)
    plain = -(assignment * torch.log_softmax(logits / 0.1, dim=-1)).sum(dim=-1)
    (wanted,) = torch.autograd.grad((plain * weight).sum(), logits)
    own = cross_entropy(logits / 0.1, assignment)
    (found,) = torch.autograd.grad((own * weight).sum(), logits)
    torch.testing.assert_close(own, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    assert float(found[3].abs().max()) == 0


@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_by_onednn(bias: bool) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 7, generator=random).requires_grad_()
    layer = torch.nn.Linear(7, 11, bias=bias)
    weight = torch.randn(3, 5, 11, generator=random)
    wanted = layer(x)
    inputs = [x, *layer.parameters()]
    gradients = torch.autograd.grad((wanted * weight).sum(), inputs)
    use_in(layer)
    found = layer(x)
    assert type(found.grad_fn).__name__.startswith("_Linear")
    torch.testing.assert_close(found, wanted)
    for ours, theirs in zip(torch.autograd.grad((found * weight).sum(), inputs), gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert layer.double()(x.double()).dtype == torch.float64


def test_attention_in_bf16_is_near_that_of_torch() -> None:
    random = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 17, 16, generator=random).bfloat16().unbind(0)
    wanted = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float())
    torch.testing.assert_close(attention(q, k, v).float(), wanted, rtol=0.02, atol=0.02)


@pytest.mark.real_data
def test_three_whole_steps(conformance: Conformance) -> None:
    rule, golden = conformance
    network = Network(
        MaskedTransformer(Architecture("toy", 64, 2, 2, 256), 4), DINOHead(64, 32, 256, 96), DINOHead(64, 32, 256, 96)
    )
    made = rule.weights(rule.tiny_shapes())
    network.load_state_dict({key: torch.from_numpy(value) for key, value in made.items()})
    start = {key: value.clone() for key, value in network.state_dict().items()}
    model = SelfDistillation(network)
    optimiser = make_optimiser(network)
    for step, values in enumerate(STEPS):
        group = Group(*(torch.from_numpy(part) for part in rule.tiny_batch(step)))
        apply_schedule(optimiser, values)
        optimiser.zero_grad()
        losses = model.losses(group, model.targets([group], values.teacher_temperature), 0)
        losses.total.backward()
        norms = clip_gradients(network.parts())
        optimiser.step()
        model.update_teacher(values.momentum)
        assert float(losses.local) == 0
        for name in ("dino", "ibot", "koleo", "total"):
            loss = getattr(losses, name)
            assert float(loss.detach()) == pytest.approx(golden[f"step/{name}"][step], rel=1e-4)
        for name, norm in norms.items():
            assert float(norm) == pytest.approx(golden[f"step/norm_{name}"][step], rel=1e-4)
    for place, released in enumerate(golden["step/names"]):
        name = str(released)
        change = (network.state_dict()[name] - start[name]).double()
        teacher = (model.teacher.state_dict()[name] - start[name]).double()
        scale = golden["step/student_change_rms"][place]
        assert float(change.square().mean().sqrt()) == pytest.approx(scale, rel=0.01)
        assert float(teacher.square().mean().sqrt()) == pytest.approx(
            golden["step/teacher_change_rms"][place], rel=0.01
        )
        assert float(change.mean()) == pytest.approx(golden["step/student_change_mean"][place], abs=0.01 * scale)
        found = multipliers(name)
        assert (found.lr, found.weight_decay, float(found.last_layer)) == tuple(golden["step/multipliers"][place])


def test_only_the_tokens_that_are_asked_for_leave_the_last_block() -> None:
    torch.manual_seed(0)
    backbone = toy().student.backbone
    crops, masks = torch.randn(3, 3, 6, 6, dtype=torch.float64), torch.rand(3, 9) < 0.4
    rows = torch.tensor([0, 10, 20, 5, 11, 29, 29])
    whole = backbone(crops, masks)
    asked = backbone(crops, masks, rows_R=rows)
    torch.testing.assert_close(asked, whole.flatten(0, 1)[rows], rtol=1e-12, atol=1e-12)
    wanted = torch.randn_like(asked)
    ours = torch.autograd.grad((asked * wanted).sum(), list(backbone.parameters()))
    theirs = torch.autograd.grad((whole.flatten(0, 1)[rows] * wanted).sum(), list(backbone.parameters()))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
