"""Objects of a generated smear, painted as absorbance: white cells, red cells, platelets; and the camera."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.io.canvas import Canvas, Float, edge, wobble
from napari_dinobloom.io.cell_types import CELL_TYPES, draw_white_cell

RIM_UM = 0.35
"""How deep a red cell may reach under a white one; deeper where the canvas wants variety, as if pressed against it."""


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
        radius = float(rng.uniform(*CELL_TYPES[name].radius_um))
        spot = _free_spot(rng, placed, radius, (height, width), bool(placed) and rng.random() < touching)
        if spot is None:
            continue
        placed.append((*spot, radius))
        classes.append(name)
        draw_white_cell(canvas, CELL_TYPES[name], spot, radius, len(classes))
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
        deep = float(rng.uniform(0.35, 3.0)) if canvas.variety and rng.random() < 0.5 else RIM_UM
        if (near < (0.78 if rng.random() < 0.25 else 0.98)).any() or _hits_white(canvas, y, x, radius - deep):
            continue
        placed = np.concatenate([placed, [[y, x, radius]]])
        covered += np.pi * radius**2
        draw_red_cell(canvas, y, x, radius)


def _hits_white(canvas: Canvas, y: float, x: float, radius: float) -> bool:
    """Tell whether a white cell comes nearer than `radius` micrometres to a point."""
    where, dy, dx = canvas.window(y, x, radius)
    return bool(((canvas.labels[where] > 0) & (np.hypot(dy, dx) < radius)).any())


def draw_red_cell(canvas: Canvas, y: float, x: float, radius: float) -> None:
    """Draw a biconcave disc: thick rim, pale centre."""
    rng = canvas.rng
    where, dy, dx = canvas.window(y, x, 1.3 * radius)
    if 0 in canvas.labels[where].shape:
        return
    turn, squeeze = rng.uniform(0, np.pi), 1 + rng.normal(0, 0.06)
    along = (dy * np.sin(turn) + dx * np.cos(turn)) * squeeze
    across = (dy * np.cos(turn) - dx * np.sin(turn)) / squeeze
    far = np.hypot(along, across)
    limit = radius * wobble(rng, dy, dx, 0.03)
    share = far / limit
    palest = rng.uniform(*canvas.pallor)
    if canvas.variety and rng.random() < 0.3:  # thick parts of a smear have red cells without a pale centre
        palest = 0.1
    pallor = palest * np.exp(-((share / rng.uniform(0.38, 0.5)) ** 2))
    thick = edge(limit - far, 0.35) * (1 - pallor) * rng.uniform(0.88, 1.1)
    colour = canvas.colour["red"]
    if canvas.variety:
        thick, colour = _odd_red_cell(canvas, thick, share)
    canvas.density[where] += (thick * (canvas.labels[where] == 0))[..., None] * colour


def _odd_red_cell(canvas: Canvas, thick: Float, share: Float) -> tuple[Float, Float]:
    """Vary a red cell: thinner or denser, blueish when young, with a refractile ring or spot where it dried badly."""
    rng = canvas.rng
    thick = thick * np.float32(rng.uniform(1 - 0.45 * canvas.variety, 1 + 0.45 * canvas.variety))
    young = rng.uniform(0.1, 0.5) * canvas.variety if rng.random() < 0.12 else 0.0
    colour: Float = (1 - young) * canvas.colour["red"] + young * canvas.colour["blue"]
    kind = rng.random()
    if kind < 0.10:  # a bright ring with a dark rim around the middle
        place = rng.uniform(0.1, 0.6)
        thick = thick * (1 - 0.9 * np.exp(-(((share - place) / 0.08) ** 2)))
        thick = thick + 0.6 * np.exp(-(((share - place - 0.14) / 0.06) ** 2))
    elif kind < 0.16:  # a target cell
        thick = thick + 0.5 * np.exp(-((share / 0.25) ** 2))
    return np.asarray(thick, np.float32), colour


def add_platelets(canvas: Canvas) -> None:
    """Strew platelets: small, granular, purple."""
    rng, px = canvas.rng, canvas.pixel_um
    height, width = (n * px for n in canvas.labels.shape)
    for _ in range(int(rng.poisson(height * width / 450))):
        y, x, radius = float(rng.uniform(0, height)), float(rng.uniform(0, width)), float(rng.uniform(0.8, 1.5))
        where, dy, dx = canvas.window(y, x, 1.5 * radius)
        if 0 in canvas.labels[where].shape or (canvas.labels[where] > 0).any():
            continue
        cover = edge(radius * wobble(rng, dy, dx, 0.12) - np.hypot(dy, dx), 0.4)
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
