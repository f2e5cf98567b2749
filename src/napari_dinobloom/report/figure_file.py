"""What all figures that are files share: their endings, resolution and lines of text, and how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg", "jpg")
"""Endings that a figure may have."""

DPI = 200


def check_files(figure: Path, *others: Path | None) -> None:
    """Raise InputError unless a figure of this name can be written, and the other files beside it, if any."""
    if figure.suffix[1:].lower() not in FORMATS:
        raise InputError(f"{figure}: a figure ends in {', '.join(f'.{name}' for name in FORMATS)}.")
    for path in filter(None, (figure, *others)):
        if not path.parent.is_dir():
            raise InputError(f"{path}: the folder {path.parent} is not there. Make it, or choose another.")


def one_line(text: str, longest: int = 60) -> str:
    """Text of a file as one line that can be drawn."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def write_figure(figure: Figure, path: Path) -> Path:
    """Replace `path` by a figure, whole or not at all; its ending is one of `FORMATS`."""
    with replacing(path) as part:
        figure.savefig(part, format=path.suffix[1:].lower(), dpi=DPI)
    return path
