"""The canvas of a generated smear: stain colours of six made-up laboratories, absorbance and truth while painting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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


class Canvas:
    """Absorbance and truth of a field while it is painted; one random generator for all of it.

    Attributes
    ----------
    density : numpy.ndarray
        (Y, X, 3) float32 absorbance so far.
    labels, nuclei : numpy.ndarray
        (Y, X) int32 white cells and their nuclei, numbered from 1.
    colour : dict
        Name of a substance to its (3,) absorbance at full thickness.
    background : numpy.ndarray
        (3,) light behind, 0 to 255.
    variety : float
        0: cells as in a textbook; up to 1: cells of one type differ in strength and shape as they do between slides.
    pallor : tuple of float
        Share of its thickness that a red cell lacks in its middle: least and most.
    """

    variety = 0.0
    pallor = (0.35, 0.8)

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


def wobble(rng: np.random.Generator, dy: Float, dx: Float, amount: float) -> Float:
    """Radius factor by direction: 1 plus a few random harmonics."""
    angle = np.arctan2(dy, dx)
    result: Float = np.ones_like(angle)
    for order in (2, 3, 4, 5):
        size, phase = rng.normal(0, amount / order), rng.uniform(0, 2 * np.pi)
        result += (size * np.cos(order * angle + phase)).astype(np.float32)
    return result


def edge(inside: Float, soft: float) -> Float:
    """Cover of a shape: 0 outside to 1 inside over `soft`, from a signed distance that is positive inside."""
    result: Float = np.clip(inside / soft + 0.5, 0, 1).astype(np.float32)
    return result
