"""The pictures of windows in the docs: which scene of `screenshots.py` each of them is.

``python benchmarks/screenshots_docs.py PICTURES`` takes them from a folder with a folder for each window, made by
``xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/screenshots.py PICTURES/map --window map`` and so on, with
``--theme dark light``, and writes them small enough for a page into ``docs/images``.
Those of the tutorial go there by themselves (`screenshots_tutorial.py`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parents[1] / "docs" / "images"
SCENES = {
    "map-hover": "map/map-01-hover-dark-1366x768",
    "map-lasso": "map/map-02-lasso-dark-1366x768",
    "map-tree": "map/map-10-tree-dark-1366x768",
    "map-light": "map/map-10-tree-light-1366x768",
    "map-by-gate": "map/map-11-by-gate-dark-1366x768",
    "map-patients": "map/map-13-counts-dark-1366x768",
    "map-quadrants": "map/map-19-quadrants-dark-1366x768",
    "map-compare": "map/map-20-compare",
    "map-dense": "map/map-21-dense-dark-1366x768",
    "plugin": "count/5-selected-light-1366x768",
    "segment": "segment/4-selected-dark-1366x768",
    "classify": "classify/classify-3-named-dark-1366x768",
    "window-study": "study/4-done-dark-1366x768",
    "window-embed": "embed/6-done-dark-1366x768",
    "window-patches": "patches/3-colours-dark-1366x768",
    "window-report": "report/4-written-dark-1366x768",
}
"""Picture of the docs, and the file that it is made of; all are taken in both themes."""


def small(picture: Path, to: Path) -> None:
    """Write a picture with 256 colours."""
    with Image.open(picture) as taken:
        few = taken.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    few.save(to, optimize=True)


def main() -> None:
    """Write those whose scene was taken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    pictures = parser.parse_args().pictures
    for name, scene in SCENES.items():
        if (pictures / f"{scene}.png").is_file():
            small(pictures / f"{scene}.png", IMAGES / f"{name}.png")


if __name__ == "__main__":
    main()
