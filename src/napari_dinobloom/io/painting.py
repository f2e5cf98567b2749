"""Objects of a generated smear, painted as absorbance: white cells with nucleus and granules, red cells, platelets.

Colours of six made-up laboratories, shapes and sizes of the five main types, and the camera that turns absorbance into
a picture with uneven light, blur and noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Vector = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stain:
    """Colours of one laboratory: background in 0..255, all else absorbance in red, green, blue at full thickness."""

    background: Vector
    red: Vector
    nucleus: Vector
    cytoplasm: Vector
    blue: Vector
    """Basophilic cytoplasm (lymphocytes, monocytes)."""
    eosin: Vector
    """Granules of eosinophils."""
    basophil: Vector
    """Granules of basophils and platelets."""


STAINS: Mapping[str, Stain] = {
    "wright-giemsa": Stain(
        background=(246, 238, 228),
        red=(0.10, 0.42, 0.30),
        nucleus=(1.05, 1.55, 0.55),
        cytoplasm=(0.10, 0.24, 0.08),
        blue=(0.36, 0.36, 0.12),
        eosin=(0.10, 0.60, 0.50),
        basophil=(0.95, 1.30, 0.55),
    ),
    "may-gruenwald": Stain(
        background=(252, 230, 205),
        red=(0.20, 0.38, 0.24),
        nucleus=(1.30, 1.80, 0.70),
        cytoplasm=(0.18, 0.32, 0.12),
        blue=(0.45, 0.45, 0.15),
        eosin=(0.24, 0.82, 0.60),
        basophil=(1.15, 1.50, 0.60),
    ),
    "alkaline": Stain(
        background=(208, 212, 214),
        red=(0.30, 0.42, 0.28),
        nucleus=(0.95, 1.10, 0.22),
        cytoplasm=(0.24, 0.26, 0.06),
        blue=(0.42, 0.38, 0.08),
        eosin=(0.30, 0.74, 0.44),
        basophil=(0.95, 1.15, 0.25),
    ),
    "acid": Stain(
        background=(240, 236, 226),
        red=(0.05, 0.55, 0.46),
        nucleus=(0.62, 1.20, 0.48),
        cytoplasm=(0.08, 0.30, 0.16),
        blue=(0.26, 0.36, 0.14),
        eosin=(0.06, 0.62, 0.55),
        basophil=(0.65, 1.20, 0.50),
    ),
    "pale": Stain(
        background=(214, 216, 212),
        red=(0.13, 0.28, 0.20),
        nucleus=(0.52, 0.78, 0.16),
        cytoplasm=(0.11, 0.17, 0.03),
        blue=(0.20, 0.20, 0.04),
        eosin=(0.12, 0.46, 0.30),
        basophil=(0.55, 0.80, 0.20),
    ),
    "warm-light": Stain(
        background=(250, 226, 158),
        red=(0.14, 0.40, 0.34),
        nucleus=(0.95, 1.60, 0.85),
        cytoplasm=(0.14, 0.30, 0.16),
        blue=(0.36, 0.42, 0.22),
        eosin=(0.15, 0.76, 0.70),
        basophil=(0.95, 1.45, 0.80),
    ),
}
"""Six laboratories, from a strong to a pale stain and from blueish to yellow light."""

RADIUS_UM: Mapping[str, tuple[float, float]] = {
    "neutrophil_segmented": (6.0, 7.0),
    "eosinophil": (6.2, 7.4),
    "basophil": (5.4, 6.4),
    "lymphocyte": (4.2, 5.6),
    "monocyte": (7.2, 8.8),
}
"""Radii of the types in a smear (Bain, Blood Cells, 2015)."""


class Canvas:
    """Absorbance and truth of a field while it is painted; one random generator for all of it."""

    def __init__(self, height: int, width: int, pixel_um: float, stain: Stain, rng: np.random.Generator) -> None:
        self.density = np.zeros((height, width, 3), np.float32)
        self.labels = np.zeros((height, width), np.int32)
        self.nuclei = np.zeros((height, width), np.int32)
        self.pixel_um = pixel_um
        self.rng = rng
        shift = rng.normal(0, 0.05, (7, 3)) + rng.normal(0, 0.08)
        names = ("red", "nucleus", "cytoplasm", "blue", "eosin", "basophil")
        self.colour = {
            name: (np.asarray(getattr(stain, name)) * np.exp(shift[i])).astype(np.float32)
            for i, name in enumerate(names)
        }
        self.background = np.asarray(stain.background, np.float32)

    def window(self, y: float, x: float, reach: float) -> tuple[tuple[slice, slice], Float, Float]:
        """Part of the field around (y, x) within `reach`, and its coordinates from there; all micrometres."""
        px, (height, width) = self.pixel_um, self.labels.shape
        y0, y1 = max(int((y - reach) / px), 0), min(int((y + reach) / px) + 2, height)
        x0, x1 = max(int((x - reach) / px), 0), min(int((x + reach) / px) + 2, width)
        dy = ((np.arange(y0, max(y1, y0)) + 0.5) * px - y).astype(np.float32)[:, None]
        dx = ((np.arange(x0, max(x1, x0)) + 0.5) * px - x).astype(np.float32)[None, :]
        return (slice(y0, max(y1, y0)), slice(x0, max(x1, x0))), dy, dx

    def grain(self, shape: tuple[int, ...], size_um: float) -> Float:
        """Smooth random texture of zero mean and unit spread."""
        from scipy import ndimage as ndi

        noise = ndi.gaussian_filter(self.rng.standard_normal(shape).astype(np.float32), size_um / self.pixel_um)
        spread = float(noise.std()) if noise.size else 0.0
        result: Float = noise / spread if spread > 0 else noise
        return result


def _wobble(rng: np.random.Generator, dy: Float, dx: Float, amount: float) -> Float:
    """Radius factor by direction: 1 plus a few random harmonics."""
    angle = np.arctan2(dy, dx)
    result = np.ones_like(angle)
    for order in (2, 3, 4, 5):
        size, phase = rng.normal(0, amount / order), rng.uniform(0, 2 * np.pi)
        result += (size * np.cos(order * angle + phase)).astype(np.float32)
    return result


def _edge(inside: Float, soft: float) -> Float:
    """Cover of a shape: 0 outside to 1 inside over `soft`, from a signed distance that is positive inside."""
    result: Float = np.clip(inside / soft + 0.5, 0, 1).astype(np.float32)
    return result


def add_white_cells(canvas: Canvas, wanted: int, touching: float, composition: Mapping[str, float]) -> list[str]:
    """Place and draw white cells; gives their types in the order of their numbers."""
    rng, px = canvas.rng, canvas.pixel_um
    height, width = (n * px for n in canvas.labels.shape)
    names = sorted(composition)
    share = np.array([composition[name] for name in names], np.float64)
    placed: list[tuple[float, float, float]] = []
    classes = []
    for _ in range(wanted):
        name = names[int(rng.choice(len(names), p=share / share.sum()))]
        radius = float(rng.uniform(*RADIUS_UM[name]))
        spot = _free_spot(rng, placed, radius, (height, width), bool(placed) and rng.random() < touching)
        if spot is None:
            continue
        placed.append((*spot, radius))
        classes.append(name)
        _draw_white_cell(canvas, name, spot, radius, len(classes))
    return classes


def _free_spot(
    rng: np.random.Generator,
    placed: list[tuple[float, float, float]],
    radius: float,
    size: tuple[float, float],
    touch: bool,
) -> tuple[float, float] | None:
    """Find a centre clear of other white cells, against one of them if `touch`."""
    others = np.asarray(placed, np.float64).reshape(-1, 3)
    for attempt in range(200):
        if touch and attempt < 60:
            y, x, other = others[int(rng.integers(len(others)))]
            angle, far = rng.uniform(0, 2 * np.pi), (radius + other) * rng.uniform(0.94, 1.0)
            spot = (float(y + far * np.sin(angle)), float(x + far * np.cos(angle)))
        else:
            spot = (float(rng.uniform(0, size[0])), float(rng.uniform(0, size[1])))
        margin = 0.55 * radius
        inside = margin < spot[0] < size[0] - margin and margin < spot[1] < size[1] - margin
        gaps = np.hypot(others[:, 0] - spot[0], others[:, 1] - spot[1]) - (others[:, 2] + radius) * 0.935
        if inside and (gaps > 0).all():
            return spot
    return None


def _draw_white_cell(canvas: Canvas, name: str, spot: tuple[float, float], radius: float, number: int) -> None:
    """Draw one white cell: cytoplasm, granules, nucleus; and its truth."""
    rng = canvas.rng
    where, dy, dx = canvas.window(*spot, 1.35 * radius)
    far = np.hypot(dy, dx)
    taken = (canvas.labels[where] > 0).astype(np.float32)
    body = radius * _wobble(rng, dy, dx, 0.05 if name != "monocyte" else 0.09) - far
    cover = _edge(body, 0.25) * (1 - taken)
    nucleus = _nucleus(rng, name, dy, dx, radius)
    inner = np.minimum(nucleus, body - 0.35)
    cover_nucleus = _edge(inner, 0.3) * (1 - taken)
    base = canvas.colour["blue" if name in ("lymphocyte", "monocyte") else "cytoplasm"]
    plasma = cover * (1 + 0.12 * canvas.grain(far.shape, 0.35)) * (1 - 0.85 * cover_nucleus)
    canvas.density[where] += np.maximum(plasma, 0)[..., None] * base
    _add_granules(canvas, name, where, cover, cover_nucleus)
    clumping = {"lymphocyte": 0.10, "monocyte": 0.13}.get(name, 0.08)
    strength = {"monocyte": 0.72, "basophil": 0.75}.get(name, 1.0) * (1 + clumping * canvas.grain(far.shape, 0.3))
    canvas.density[where] += (cover_nucleus * np.maximum(strength, 0.2))[..., None] * canvas.colour["nucleus"]
    mine = (body > 0) & (taken == 0)
    canvas.labels[where][mine] = number
    canvas.nuclei[where][mine & (inner > 0)] = number


def _nucleus(rng: np.random.Generator, name: str, dy: Float, dx: Float, radius: float) -> Float:
    """Signed distance inside the nucleus, micrometres, for the type's shape."""
    turn = rng.uniform(0, 2 * np.pi)
    if name == "lymphocyte":
        result: Float = 0.84 * radius * _wobble(rng, dy, dx, 0.04) - np.hypot(dy - 0.3, dx)
        return result
    if name == "monocyte":
        y, x = dy - 0.08 * radius * np.sin(turn), dx - 0.08 * radius * np.cos(turn)
        bean = 0.68 * radius * _wobble(rng, y, x, 0.06) - np.hypot(y, x)
        notch = np.hypot(y - 0.75 * radius * np.sin(turn), x - 0.75 * radius * np.cos(turn)) - 0.36 * radius
        result = np.minimum(bean, notch)
        return result
    count, bow, size = {"eosinophil": (2, 0.42, 0.36), "basophil": (2, 0.28, 0.44)}.get(
        name, (int(rng.integers(3, 5)), 0.48, 0.27)
    )
    steps = turn + np.arange(count) * (1.9 if count == 2 else rng.uniform(1.15, 1.4))
    centres = np.stack([np.sin(steps), np.cos(steps)], axis=1) * bow * radius
    centres += rng.normal(0, 0.03 * radius, centres.shape)
    lobes = [
        size * radius * rng.uniform(0.9, 1.1) * _wobble(rng, dy - y, dx - x, 0.08) - np.hypot(dy - y, dx - x)
        for y, x in centres
    ]
    for first, second in pairwise(centres):
        lobes.append(_bridge(dy, dx, first, second, 0.09 * radius))
    result = np.max(lobes, axis=0).astype(np.float32)
    return result


def _bridge(dy: Float, dx: Float, first: NDArray[np.float64], second: NDArray[np.float64], half: float) -> Float:
    """Signed distance inside a strand of chromatin between two lobes."""
    along = second - first
    share = ((dy - first[0]) * along[0] + (dx - first[1]) * along[1]) / max(float(along @ along), 1e-6)
    share = np.clip(share, 0, 1)
    result: Float = (half - np.hypot(dy - first[0] - share * along[0], dx - first[1] - share * along[1])).astype(
        np.float32
    )
    return result


def _add_granules(canvas: Canvas, name: str, where: tuple[slice, slice], cover: Float, nucleus: Float) -> None:
    """Strew granules: orange and packed, dark and coarse also over the nucleus, or fine and faint."""
    from scipy import ndimage as ndi

    density, size, strength, colour, over = {
        "eosinophil": (2.6, 0.30, 1.5, "eosin", 0.1),
        "basophil": (1.1, 0.36, 1.9, "basophil", 0.8),
        "neutrophil_segmented": (3.0, 0.14, 0.9, "cytoplasm", 0.0),
        "monocyte": (1.5, 0.14, 0.14, "basophil", 0.0),
        "lymphocyte": (0.05, 0.2, 0.3, "basophil", 0.0),
    }[name]
    px = canvas.pixel_um
    seeds = (canvas.rng.random(cover.shape) < density * px * px).astype(np.float32)
    sigma = max(size / px, 0.5)
    spots = ndi.gaussian_filter(seeds, sigma) * (2 * np.pi * sigma * sigma)
    amount = np.minimum(spots, 1.2) * cover * (1 - (1 - over) * nucleus) * strength
    canvas.density[where] += amount[..., None] * canvas.colour[colour]


def add_red_cells(canvas: Canvas, crowding: float) -> None:
    """Strew red cells up to the wanted cover; they overlap a little and lean against white cells."""
    rng, px = canvas.rng, canvas.pixel_um
    height, width = (n * px for n in canvas.labels.shape)
    free = float((canvas.labels == 0).sum()) * px * px
    wanted, tries = free * min(max(crowding, 0.0), 0.8), 0
    placed = np.empty((0, 3))
    covered = 0.0
    while covered < wanted and tries < 4000:
        tries += 1
        radius = float(rng.normal(3.75, 0.2))
        y, x = float(rng.uniform(-2, height + 2)), float(rng.uniform(-2, width + 2))
        near = np.hypot(placed[:, 0] - y, placed[:, 1] - x) / (placed[:, 2] + radius)
        if (near < (0.78 if rng.random() < 0.25 else 0.98)).any() or _hits_white(canvas, y, x, radius):
            continue
        placed = np.concatenate([placed, [[y, x, radius]]])
        covered += np.pi * radius**2
        _draw_red_cell(canvas, y, x, radius)


def _hits_white(canvas: Canvas, y: float, x: float, radius: float) -> bool:
    """Tell whether a red cell would lie on a white one by more than its rim."""
    where, dy, dx = canvas.window(y, x, radius)
    return bool(((canvas.labels[where] > 0) & (np.hypot(dy, dx) < radius - 0.35)).any())


def _draw_red_cell(canvas: Canvas, y: float, x: float, radius: float) -> None:
    """Draw a biconcave disc: thick rim, pale centre."""
    rng = canvas.rng
    where, dy, dx = canvas.window(y, x, 1.3 * radius)
    if 0 in canvas.labels[where].shape:
        return
    turn, squeeze = rng.uniform(0, np.pi), 1 + rng.normal(0, 0.06)
    along = (dy * np.sin(turn) + dx * np.cos(turn)) * squeeze
    across = (dy * np.cos(turn) - dx * np.sin(turn)) / squeeze
    far = np.hypot(along, across)
    limit = radius * _wobble(rng, dy, dx, 0.03)
    share = far / limit
    pallor = rng.uniform(0.35, 0.8) * np.exp(-((share / rng.uniform(0.38, 0.5)) ** 2))
    thick = _edge(limit - far, 0.35) * (1 - pallor) * rng.uniform(0.88, 1.1)
    canvas.density[where] += (thick * (canvas.labels[where] == 0))[..., None] * canvas.colour["red"]


def add_platelets(canvas: Canvas) -> None:
    """Strew platelets: small, granular, purple."""
    rng, px = canvas.rng, canvas.pixel_um
    height, width = (n * px for n in canvas.labels.shape)
    for _ in range(int(rng.poisson(height * width / 450))):
        y, x, radius = float(rng.uniform(0, height)), float(rng.uniform(0, width)), float(rng.uniform(0.8, 1.5))
        where, dy, dx = canvas.window(y, x, 1.5 * radius)
        if 0 in canvas.labels[where].shape or (canvas.labels[where] > 0).any():
            continue
        cover = _edge(radius * _wobble(rng, dy, dx, 0.12) - np.hypot(dy, dx), 0.4)
        grainy = np.clip(0.45 + 0.2 * canvas.grain(cover.shape, 0.25), 0.1, 1)
        canvas.density[where] += (cover * grainy)[..., None] * canvas.colour["basophil"]


def photograph(canvas: Canvas) -> NDArray[np.uint8]:
    """Turn absorbance into a picture: blur, uneven light, sensor noise."""
    from scipy import ndimage as ndi

    rng = canvas.rng
    height, width = canvas.labels.shape
    blur = max(rng.uniform(0.10, 0.20) / canvas.pixel_um, 0.3)
    density = ndi.gaussian_filter(canvas.density, (blur, blur, 0))
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    tilt = rng.normal(0, 0.025, 2)
    vignette = rng.uniform(0.0, 0.07)
    light = (1 + tilt[0] * y + tilt[1] * x - vignette * (y * y + x * x) / 2).astype(np.float32)
    picture = canvas.background * np.exp(-density) * light[..., None]
    dust = canvas.grain((height, width), 3.0)[..., None] * 0.8
    picture += dust + rng.normal(0, 1.6, picture.shape).astype(np.float32)
    result: NDArray[np.uint8] = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    return result
