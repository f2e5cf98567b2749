"""White cells of a generated smear: size, nucleus, cytoplasm and granules of each type.

Shapes and sizes after Bain, Blood Cells, 2015. The five types of normal blood are drawn by default; immature and
damaged ones on request.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.io.canvas import Canvas, Float, edge, wobble


@dataclass(frozen=True, kw_only=True, slots=True)
class Granules:
    """Granules of a type."""

    density: float
    """Granules per square micrometre."""
    size: float
    """Radius in micrometres."""
    strength: float
    """Absorbance, as a share of the colour's."""
    colour: str
    """Substance: a key of `Canvas.colour`."""
    over: float = 0.0
    """How far they also lie over the nucleus, 0 to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellType:
    """How a type looks."""

    radius_um: tuple[float, float]
    """Smallest and largest radius in a smear."""
    nucleus: Literal["round", "bean", "lobes", "band", "smudge"]
    """Shape."""
    nucleus_share: float = 0.84
    """Radius of a round nucleus as a share of the cell's; size of bean and smudge likewise."""
    lobes: tuple[int, float, float] = (0, 0.48, 0.27)
    """Lobes (0: three or four), their distance from the middle and radius as shares of the cell's radius."""
    plasma: str = "cytoplasm"
    """Substance of the cytoplasm: a key of `Canvas.colour`."""
    granules: Granules | None = None
    clumping: float = 0.08
    """Contrast of the chromatin."""
    strength: float = 1.0
    """Absorbance of the nucleus as a share of the stain's."""
    wobble: float = 0.05
    """How far the outline departs from a circle."""


_AZUROPHIL = Granules(density=1.6, size=0.22, strength=0.7, colour="basophil", over=0.5)
_NEUTROPHIL = Granules(density=3.0, size=0.14, strength=0.9, colour="cytoplasm")

CELL_TYPES: Mapping[str, CellType] = {
    "neutrophil_segmented": CellType(radius_um=(6.0, 7.0), nucleus="lobes", granules=_NEUTROPHIL),
    "eosinophil": CellType(
        radius_um=(6.2, 7.4),
        nucleus="lobes",
        lobes=(2, 0.42, 0.36),
        granules=Granules(density=2.6, size=0.30, strength=1.5, colour="eosin", over=0.1),
    ),
    "basophil": CellType(
        radius_um=(5.4, 6.4),
        nucleus="lobes",
        lobes=(2, 0.28, 0.44),
        granules=Granules(density=1.1, size=0.36, strength=1.9, colour="basophil", over=0.8),
        strength=0.75,
    ),
    "lymphocyte": CellType(
        radius_um=(4.2, 5.6),
        nucleus="round",
        plasma="blue",
        granules=Granules(density=0.05, size=0.2, strength=0.3, colour="basophil"),
        clumping=0.10,
    ),
    "monocyte": CellType(
        radius_um=(7.2, 8.8),
        nucleus="bean",
        nucleus_share=0.68,
        plasma="blue",
        granules=Granules(density=1.5, size=0.14, strength=0.14, colour="basophil"),
        clumping=0.13,
        strength=0.72,
        wobble=0.09,
    ),
    "neutrophil_band": CellType(radius_um=(6.0, 7.2), nucleus="band", granules=_NEUTROPHIL),
    "metamyelocyte": CellType(radius_um=(6.5, 7.6), nucleus="bean", nucleus_share=0.66, granules=_NEUTROPHIL),
    "myelocyte": CellType(radius_um=(6.8, 8.2), nucleus="round", nucleus_share=0.62, granules=_NEUTROPHIL),
    "promyelocyte": CellType(
        radius_um=(7.5, 10.0), nucleus="round", nucleus_share=0.72, plasma="blue", granules=_AZUROPHIL, strength=0.8
    ),
    "blast": CellType(
        radius_um=(6.0, 9.5),
        nucleus="round",
        nucleus_share=0.86,
        plasma="blue",
        clumping=0.05,
        strength=0.75,
        wobble=0.07,
    ),
    "lymphocyte_reactive": CellType(
        radius_um=(6.0, 9.0), nucleus="round", nucleus_share=0.64, plasma="blue", strength=0.85, wobble=0.12
    ),
    "plasma_cell": CellType(
        radius_um=(6.0, 8.0), nucleus="round", nucleus_share=0.56, plasma="blue", clumping=0.2, wobble=0.08
    ),
    "erythroblast": CellType(radius_um=(4.4, 6.0), nucleus="round", nucleus_share=0.6, plasma="mixed", clumping=0.12),
    "smudge": CellType(
        radius_um=(6.5, 10.0), nucleus="smudge", nucleus_share=0.97, clumping=0.2, strength=0.5, wobble=0.2
    ),
}
"""Every type that can be drawn."""


def draw_white_cell(canvas: Canvas, kind: CellType, spot: tuple[float, float], radius: float, number: int) -> None:
    """Draw one white cell: cytoplasm, granules, nucleus; and its truth.

    Parameters
    ----------
    canvas : Canvas
        What is drawn on.
    kind : CellType
        What is drawn.
    spot : tuple of float
        Centre y, x in micrometres.
    radius : float
        Micrometres.
    number : int
        Number in the canvas' labels.
    """
    rng = canvas.rng
    where, dy, dx = canvas.window(*spot, 1.35 * radius)
    far = np.hypot(dy, dx)
    taken = (canvas.labels[where] > 0).astype(np.float32)
    mood = _mood(canvas)
    body = radius * wobble(rng, dy, dx, kind.wobble * mood["wobble"]) - far
    cover = edge(body, 0.25) * (1 - taken)
    inner = np.minimum(_nucleus(rng, kind, dy, dx, radius), body - mood["rim"])
    cover_nucleus = edge(inner, 0.3) * (1 - taken)
    plasma = cover * (1 + 0.12 * canvas.grain(far.shape, 0.35)) * (1 - 0.85 * cover_nucleus)
    canvas.density[where] += mood["plasma"] * np.maximum(plasma, 0)[..., None] * _plasma(canvas, kind)
    if kind.granules is not None:
        _add_granules(canvas, kind.granules, where, cover * mood["granules"], cover_nucleus)
    strength = mood["nucleus"] * kind.strength * (1 + kind.clumping * canvas.grain(far.shape, 0.3))
    canvas.density[where] += (cover_nucleus * np.maximum(strength, 0.2))[..., None] * canvas.colour["nucleus"]
    mine = (body > 0) & (taken == 0)
    canvas.labels[where][mine] = number
    canvas.nuclei[where][mine & (inner > 0)] = number


def _mood(canvas: Canvas) -> dict[str, float]:
    """Factors of one cell; all at their usual values where the canvas wants no variety."""
    if not canvas.variety:
        return {"wobble": 1.0, "rim": 0.35, "plasma": 1.0, "granules": 1.0, "nucleus": 1.0}
    rng, much = canvas.rng, canvas.variety
    return {
        "wobble": float(rng.uniform(0.5, 1 + 2 * much)),
        "rim": float(rng.uniform(0.1, 0.5)),
        "plasma": float(np.exp(rng.uniform(-1.0, 0.5) * much)),
        "granules": float(np.exp(rng.uniform(-1.5, 0.3) * much)),
        "nucleus": float(np.exp(rng.uniform(-0.5, 0.3) * much)),
    }


def _plasma(canvas: Canvas, kind: CellType) -> Float:
    """Colour of the cytoplasm; that of erythroblasts lies anywhere between blue and red."""
    if kind.plasma != "mixed":
        return np.asarray(canvas.colour[kind.plasma])
    share = np.float32(canvas.rng.uniform(0, 1))
    mixed: Float = share * canvas.colour["blue"] + (1 - share) * canvas.colour["red"]
    return mixed


def _nucleus(rng: np.random.Generator, kind: CellType, dy: Float, dx: Float, radius: float) -> Float:
    """Signed distance inside the nucleus, micrometres, for the type's shape."""
    turn = rng.uniform(0, 2 * np.pi)
    if kind.nucleus == "round":
        off = min(0.3, 0.5 * (1 - kind.nucleus_share) * radius) if kind.nucleus_share > 0.8 else 0.18 * radius
        y, x = (dy - off, dx) if kind.nucleus_share > 0.8 else (dy - off * np.sin(turn), dx - off * np.cos(turn))
        result: Float = kind.nucleus_share * radius * wobble(rng, dy, dx, 0.04) - np.hypot(y, x)
        return result
    if kind.nucleus == "bean":
        y, x = dy - 0.08 * radius * np.sin(turn), dx - 0.08 * radius * np.cos(turn)
        bean = kind.nucleus_share * radius * wobble(rng, y, x, 0.06) - np.hypot(y, x)
        notch = np.hypot(y - 0.75 * radius * np.sin(turn), x - 0.75 * radius * np.cos(turn)) - 0.36 * radius
        result = np.minimum(bean, notch)
        return result
    if kind.nucleus == "smudge":
        result = kind.nucleus_share * radius * wobble(rng, dy, dx, 0.15) - np.hypot(dy, dx)
        return result
    return _lobed(rng, kind, dy, dx, radius, turn)


def _lobed(rng: np.random.Generator, kind: CellType, dy: Float, dx: Float, radius: float, turn: float) -> Float:
    """Signed distance inside lobes joined by strands, or a band of even width."""
    count, bow, size = kind.lobes
    if kind.nucleus == "band":
        count, size = 7, 0.24
        steps = turn + np.arange(count) * rng.uniform(0.4, 0.75)
        half = 0.9 * size * radius
    else:
        some = int(rng.integers(3, 5))  # drawn in any case, so that a seed's other cells do not depend on the type
        count = count or some
        steps = turn + np.arange(count) * (1.9 if count == 2 else rng.uniform(1.15, 1.4))
        half = 0.09 * radius
    centres = np.stack([np.sin(steps), np.cos(steps)], axis=1) * bow * radius
    centres += rng.normal(0, 0.03 * radius, centres.shape)
    parts = [
        size * radius * rng.uniform(0.9, 1.1) * wobble(rng, dy - y, dx - x, 0.08) - np.hypot(dy - y, dx - x)
        for y, x in centres
    ]
    for first, second in pairwise(centres):
        parts.append(_bridge(dy, dx, first, second, half))
    result: Float = np.max(parts, axis=0).astype(np.float32)
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


def _add_granules(canvas: Canvas, kind: Granules, where: tuple[slice, slice], cover: Float, nucleus: Float) -> None:
    """Strew granules over the cytoplasm and, as far as the type has it, the nucleus."""
    from scipy import ndimage as ndi

    px = canvas.pixel_um
    seeds = (canvas.rng.random(cover.shape) < kind.density * px * px).astype(np.float32)
    sigma = max(kind.size / px, 0.5)
    spots = ndi.gaussian_filter(seeds, sigma) * (2 * np.pi * sigma * sigma)
    amount = np.minimum(spots, 1.2) * cover * (1 - (1 - kind.over) * nucleus) * kind.strength
    canvas.density[where] += amount[..., None] * canvas.colour[kind.colour]
