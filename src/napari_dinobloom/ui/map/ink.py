"""The colours in which the map is drawn on a dark and on a light theme."""

from __future__ import annotations

from dataclasses import dataclass

LIGHT_PAPER = "#ffffff"
DIM = 70
"""Luminance, 0 to 255, below which a line or a disc is hard to see on a dark background."""


@dataclass(frozen=True, slots=True)
class Ink:
    """Colours of a theme: background, text and axes, and what lies around lines so that they stand out."""

    paper: str
    text: str
    halo: str

    def seen(self, colour: str) -> str:
        """A colour for thin lines and small discs: on a dark background a dark one is made lighter."""
        red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
        light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        if self.paper == LIGHT_PAPER or light > DIM:
            return colour
        return "#" + "".join(f"{round(value + 0.45 * (255 - value)):02x}" for value in (red, green, blue))


DARK = Ink("#14161b", "#e8e8e8", "#000000")
LIGHT = Ink(LIGHT_PAPER, "#202020", "#ffffff")


def rgba(colour: str, opacity: float) -> tuple[float, float, float, float]:
    """``#rrggbb`` as four floats from 0 to 1."""
    r, g, b = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return r, g, b, opacity
