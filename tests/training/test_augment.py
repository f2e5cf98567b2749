"""Augmentation: each operation against torchvision's on a PIL image, and what a crop depends on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision.transforms as transforms
import torchvision.transforms.functional as functional
from PIL import Image, ImageFilter
from torch import Tensor

from napari_dinobloom.errors import InputError
from napari_dinobloom.training.augment import Augmentation, Augmentations, Draws, apply, operations
from napari_dinobloom.training.augment.draws import draw
from napari_dinobloom.training.augment.views import DEVIATION, MEAN

TOLERANCE = 2.0
"""Grey levels of 255."""

MANY = 60


def _picture(seed: int, side: int = 224) -> Image.Image:
    """A purple nucleus and pink background with grain; every third picture is noise of all colours."""
    rng = np.random.default_rng(seed)
    if seed % 3 == 2:
        return Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
    y, x = np.mgrid[:side, :side] / side
    inside = np.hypot(y - rng.uniform(0.3, 0.7), x - rng.uniform(0.3, 0.7))[..., None] < rng.uniform(0.1, 0.3)
    colours = np.where(
        inside, rng.uniform([60, 20, 100], [130, 70, 180]), rng.uniform([190, 150, 150], [250, 220, 230])
    )
    noisy = Image.fromarray(np.clip(colours + rng.normal(0, 20, (side, side, 3)), 0, 255).astype(np.uint8))
    return noisy.filter(ImageFilter.GaussianBlur(rng.uniform(0, 1.5)))


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()


def _draws(count: int = 1, **changed: Tensor) -> Draws:
    """Parameters that change nothing, but for those given."""
    no = torch.zeros(count, dtype=torch.bool)
    plain = {
        "box": torch.tensor([[0, 0, 224, 224]]).expand(count, 4),
        "order": torch.arange(4).expand(count, 4),
        "factors": torch.tensor([[1.0, 1, 1, 0]]).expand(count, 4),
        "sigma": torch.zeros(count),
    }
    flags = dict.fromkeys(("horizontal_flip", "vertical_flip", "quarter_turn", "jitter", "grey", "solarise"), no)
    return Draws(**(plain | flags | changed))


def _values(crops: Tensor) -> Tensor:
    """Grey levels of normalised crops."""
    return (crops * torch.tensor(DEVIATION).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255


def _error(found: Tensor, expected: Image.Image) -> float:
    return float((found - _tensor(expected)).abs().max())


@pytest.mark.parametrize("size", [224, 98])
def test_crop_and_resize(size: int) -> None:
    rng = np.random.default_rng(size)
    for seed in range(MANY):
        height, width = rng.integers(5, 225, 2).tolist()
        top, left = int(rng.integers(0, 225 - height)), int(rng.integers(0, 225 - width))
        picture = _picture(seed)
        # First along x, then along y, as Pillow did when DinoBloom was trained. Version 13 gives another result for
        # some crops that shrink in height; what is clipped between the two steps makes the order count.
        crop = functional.crop(picture, top, left, height, width)
        expected = crop.resize((size, height), Image.Resampling.BICUBIC).resize((size, size), Image.Resampling.BICUBIC)
        if size == 224:  # a crop that is enlarged, as all global ones are
            bicubic = transforms.InterpolationMode.BICUBIC
            theirs = functional.resized_crop(picture, top, left, height, width, [size, size], bicubic)
            assert _error(_tensor(expected), theirs) == 0
        found = apply(
            torch.from_numpy(np.array(picture))[None], _draws(box=torch.tensor([[top, left, height, width]])), size
        )
        assert _error(_values(found), expected) <= TOLERANCE


def test_flips_and_turns_in_their_order() -> None:
    box = torch.tensor([[20, 50, 150, 120]])
    picture = _picture(1)
    crop = functional.resized_crop(picture, 20, 50, 150, 120, [224, 224], transforms.InterpolationMode.BICUBIC)
    for code in range(8):
        flags = [bool(code & bit) for bit in (1, 2, 4)]
        expected = functional.hflip(crop) if flags[0] else crop
        expected = functional.vflip(expected) if flags[1] else expected
        expected = functional.rotate(expected, 90) if flags[2] else expected
        names = ("horizontal_flip", "vertical_flip", "quarter_turn")
        draws = _draws(box=box, **{name: torch.tensor([flag]) for name, flag in zip(names, flags, strict=True)})
        found = apply(torch.from_numpy(np.array(picture))[None], draws, 224)
        assert _error(_values(found), expected) <= TOLERANCE


@pytest.mark.parametrize(
    ("ours", "theirs", "least", "largest"),
    [
        (operations.brightness, functional.adjust_brightness, 0.6, 1.4),
        (operations.contrast, functional.adjust_contrast, 0.6, 1.4),
        (operations.saturation, functional.adjust_saturation, 0.8, 1.2),
        (operations.hue, functional.adjust_hue, -0.1, 0.1),
        (operations.hue, functional.adjust_hue, -0.5, 0.5),
        (operations.blur, lambda picture, sigma: functional.gaussian_blur(picture, [9, 9], [sigma]), 0.1, 2.0),
    ],
    ids=["brightness", "contrast", "saturation", "hue", "any hue", "blur"],
)
def test_an_operation_with_a_parameter(
    ours: Callable[[Tensor, Tensor], Tensor],
    theirs: Callable[[Image.Image, float], Image.Image],
    least: float,
    largest: float,
) -> None:
    rng = np.random.default_rng(0)
    for seed in range(MANY if ours is not operations.blur else 20):
        factor = float(rng.uniform(least, largest))
        picture = _picture(seed)
        found = ours(_tensor(picture), torch.tensor([factor]))
        assert _error(found, theirs(picture, factor)) <= TOLERANCE, (seed, factor)


def test_grey_and_solarise() -> None:
    for seed in range(9):
        picture = _picture(seed)
        assert _error(operations.grey(_tensor(picture)), functional.rgb_to_grayscale(picture, 3)) <= 1
        assert _error(operations.solarise(_tensor(picture)), functional.solarize(picture, 128)) == 0


def test_all_operations_in_order_on_a_batch() -> None:
    """A batch with every flag in some row, against the operations one by one on each picture."""
    count = 12
    draws = draw(Augmentations(blur=(0.5, 0.9, 0.5), solarise=(0.5, 0.5, 0.0)), 224, 3, torch.arange(count), 1)
    pictures = [_picture(seed) for seed in range(count)]
    found = apply(torch.from_numpy(np.stack([np.array(p) for p in pictures])), draws, 224)
    for i, picture in enumerate(pictures):
        x = functional.resized_crop(picture, *draws.box[i].tolist(), [224, 224], transforms.InterpolationMode.BICUBIC)
        x = functional.hflip(x) if draws.horizontal_flip[i] else x
        x = functional.vflip(x) if draws.vertical_flip[i] else x
        x = functional.rotate(x, 90) if draws.quarter_turn[i] else x
        named = [
            functional.adjust_brightness,
            functional.adjust_contrast,
            functional.adjust_saturation,
            functional.adjust_hue,
        ]
        for number in draws.order[i].tolist() if draws.jitter[i] else []:
            x = named[number](x, float(draws.factors[i, number]))
        x = functional.rgb_to_grayscale(x, 3) if draws.grey[i] else x
        x = functional.gaussian_blur(x, [9, 9], [float(draws.sigma[i])]) if draws.sigma[i] > 0 else x
        x = functional.solarize(x, 128) if draws.solarise[i] else x
        # PIL's rounding between the steps adds up, and near grey it moves the hue.
        difference = (_values(found[i : i + 1]) - _tensor(x)).abs()
        assert float(difference.mean()) < 2.5, i
        assert float(difference.max()) < 12, i


def test_a_crop_depends_on_seed_and_position_alone() -> None:
    rng = np.random.default_rng(0)
    pictures = torch.from_numpy(rng.integers(0, 256, (6, 224, 224, 3), dtype=np.uint8))
    positions = torch.tensor([5, 900, 7, 2**40, 0, 11])
    augmentation = Augmentation(Augmentations(local_crops=2))
    views = augmentation.views(pictures, 1, positions)
    assert views.crops.shape == (12, 3, 224, 224)
    assert views.local is not None
    assert views.local.shape == (12, 3, 98, 98)
    torch.manual_seed(1)
    part = augmentation.views(pictures[[3, 1]], 1, positions[[3, 1]])
    assert part.local is not None
    assert torch.equal(part.crops, views.crops[[3, 1, 9, 7]])
    assert torch.equal(part.local, views.local[[3, 1, 9, 7]])
    assert torch.equal(Augmentation().views(pictures, 1, positions).crops, views.crops)
    assert not torch.equal(augmentation.views(pictures[:1], 2, positions[:1]).crops, views.crops[[0, 6]])
    assert not torch.equal(views.crops[0], views.crops[6])


def test_a_batch_at_once_gives_what_single_crops_give() -> None:
    pictures = torch.from_numpy(np.stack([np.array(_picture(seed)) for seed in range(8)]))
    draws = draw(Augmentations(), 224, 0, torch.arange(8), 1)
    together = apply(pictures, draws, 224)
    alone = torch.cat([apply(pictures[i : i + 1], draws.part(slice(i, i + 1)), 224) for i in range(8)])
    assert float((_values(together) - _values(alone)).abs().mean()) < 0.01


def test_boxes_follow_torchvision() -> None:
    """Means and spreads of height, width and place, and the central box where nothing fits."""
    torch.manual_seed(0)
    count = 4000
    with Image.new("RGB", (224, 224)) as blank:
        theirs = np.array(
            [transforms.RandomResizedCrop.get_params(blank, [0.32, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
        )
    ours = draw(Augmentations(), 224, 0, torch.arange(count), 0).box.numpy()
    for power in (1, 2):
        a, b = ours.astype(float) ** power, theirs.astype(float) ** power
        error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / count)
        assert (np.abs(a.mean(axis=0) - b.mean(axis=0)) < 4 * error).all()
    ratio = (3.0, 4.0)  # none of this shape has the whole area
    central = draw(Augmentations(scale=(1.0, 1.0), ratio=ratio), 224, 0, torch.arange(3), 0).box
    with Image.new("RGB", (224, 224)) as blank:
        assert central.tolist() == [list(transforms.RandomResizedCrop.get_params(blank, [1.0, 1.0], list(ratio)))] * 3


def test_probabilities_and_ranges() -> None:
    positions = torch.arange(20_000)
    for crop, blur, solarise in ((0, 0.0, 0.0), (1, 0.9, 0.2), (2, 0.5, 0.0)):
        draws = draw(Augmentations(local_crops=1), 224, 0, positions, crop)
        shares = {
            "horizontal_flip": 0.5,
            "vertical_flip": 0.5,
            "quarter_turn": 0.5,
            "jitter": 0.8,
            "grey": 0.2,
            "solarise": solarise,
        }
        for name, share in shares.items():
            assert float(getattr(draws, name).float().mean()) == pytest.approx(share, abs=0.015)
        assert float((draws.sigma > 0).float().mean()) == pytest.approx(blur, abs=0.015)
        orders = np.unique(draws.order.numpy(), axis=0, return_counts=True)[1]
        assert len(orders) == 24
        assert np.abs(orders - 20_000 / 24).max() < 5 * np.sqrt(20_000 / 24)
        low, high = draws.factors.amin(dim=0), draws.factors.amax(dim=0)
        assert low.tolist() == pytest.approx([0.6, 0.6, 0.8, -0.1], abs=1e-3)
        assert high.tolist() == pytest.approx([1.4, 1.4, 1.2, 0.1], abs=1e-3)
        assert float(draws.sigma.max()) <= 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"jitter": 1.1},
        {"scale": (0.5, 0.3)},
        {"local_scale": (0.0, 0.3)},
        {"hue": 0.6},
        {"blur": (0, 2, 0)},
        {"size": 3},
    ],
)
def test_a_configuration_that_cannot_work(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="augmentation"):
        Augmentations(**wrong)  # type: ignore[arg-type]


def test_pictures_that_are_none() -> None:
    with pytest.raises(InputError, match="uint8"):
        Augmentation().views(torch.zeros(2, 224, 224, 3), 0, torch.arange(2))
    with pytest.raises(InputError, match="positions"):
        Augmentation().views(torch.zeros(2, 224, 224, 3, dtype=torch.uint8), 0, torch.arange(3))


@pytest.mark.gpu
def test_a_card_gives_what_the_processor_gives() -> None:
    pictures = torch.from_numpy(np.stack([np.array(_picture(seed)) for seed in range(8)]))
    here = Augmentation().views(pictures, 0, torch.arange(8)).crops
    there = Augmentation().views(pictures.cuda(), 0, torch.arange(8)).crops.cpu()
    assert float((_values(here) - _values(there)).abs().mean()) < 0.05
