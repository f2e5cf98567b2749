"""The map as a picture file: PNG of what is on the canvas, SVG of the cells and gates in sight."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from qtpy.QtGui import QImage, QPixmap

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.atomic import disk_errors, replacing
from napari_dinobloom.ui.map.colouring import hexed
from napari_dinobloom.ui.texts import text

if TYPE_CHECKING:
    from napari_dinobloom.ui.map.view import MapView

MOST_IN_SVG = 20_000
"""Cells that an SVG holds; programs that show it are slow with more."""


def pixmap_of(view: MapView) -> QPixmap:
    """The canvas as it is."""
    pixels = view.canvas.picture()
    height, width = pixels.shape[:2]
    return QPixmap.fromImage(QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888))


def write(view: MapView, path: Path) -> str:
    """Write the map into a file, SVG where its name says so and else PNG; return a line for people.

    What stood there stays whole where the disk refuses.
    """
    try:
        if path.suffix.lower() == ".svg":
            rows = view.rows_in_sight()
            if len(rows) > MOST_IN_SVG:
                return text("map.too_many_svg", most=MOST_IN_SVG, count=len(rows))
            with disk_errors(path), replacing(path) as part:
                part.write_text(svg(view), encoding="utf-8")
        else:
            path = path if path.suffix else path.with_suffix(".png")
            with disk_errors(path), replacing(path) as part, part.open("wb") as file:
                Image.fromarray(view.canvas.picture()).save(file, "PNG")
    except (OSError, DinoBloomError) as error:
        return text("map.not_saved", path=path, problem=error)
    return text("map.saved", path=path)


def svg(view: MapView) -> str:
    """The cells and gates in sight as an SVG document, in pixels of the canvas."""
    canvas, rows = view.canvas, view.rows_in_sight()
    left, top, width, height = (float(v) for v in (*canvas.view.pos, *canvas.view.size))
    places = np.array([canvas.to_pixel(place) for place in view.places[rows].tolist()]).reshape(-1, 2)
    codes, table = view.colours
    size, opacity = canvas.look
    ink = canvas.ink
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="{left:.1f} {top:.1f} {width:.1f} {height:.1f}" font-family="sans-serif" font-size="11">',
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{ink.paper}"/>',
    ]
    for code in np.unique(codes[rows]):
        here = places[codes[rows] == code]
        discs = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size / 2:.1f}"/>' for x, y in here.tolist())
        lines.append(f'<g fill="{hexed(table[code])}" fill-opacity="{opacity:.2f}">{discs}</g>')
    for shape in view.gate_shapes():
        for line in shape.lines:
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (canvas.to_pixel(p) for p in line.tolist()))
            lines.append(f'<polyline points="{points}" fill="none" stroke="{shape.colour}" stroke-width="2"/>')
        x, y = canvas.to_pixel(shape.place)
        lines.append(
            f'<text x="{x:.1f}" y="{y - 4:.1f}" fill="{ink.text}" text-anchor="middle">{escape(shape.label)}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])
