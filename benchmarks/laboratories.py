"""Pictures of other laboratories whose classes PBC has too: cells of SSLSeg d2, and of BCCD cut out of their fields."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
from PIL import Image

from napari_dinobloom.predict.pictures import LabelledPicture

FOUR = {
    "neutrophil_segmented": "neutrophil",
    "neutrophil_band": "neutrophil",
    "lymphocyte": "lymphocyte",
    "monocyte": "monocyte",
    "eosinophil": "eosinophil",
}
"""Classes of PBC that the other sets have too, by their names there."""


def sslseg(data: Path) -> list[LabelledPicture]:
    """The pictures of d2 with one of the four classes."""
    with (data / "sslseg.csv").open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    named = set(FOUR.values())
    return [
        LabelledPicture(data / row["file"], row["cell_type"])
        for row in rows
        if "/d2/" in row["file"] and row["cell_type"] in named
    ]


def bccd(data: Path, folder: Path) -> list[LabelledPicture]:
    """Cells cut out of the fields of BCCD into `folder`."""
    with (data / "bccd" / "types.csv").open(newline="", encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if row["cell_types"] in set(FOUR.values())]
    found = []
    for row in rows:
        field = data / row["file"]
        objects = ET.parse(data / "bccd" / "boxes" / f"{field.stem}.xml").iter("object")
        boxes = [o.find("bndbox") for o in objects if o.findtext("name") == "WBC"]
        if len(boxes) != 1 or boxes[0] is None:
            continue
        x0, y0, x1, y1 = (int(boxes[0].findtext(side, "0")) for side in ("xmin", "ymin", "xmax", "ymax"))
        half = max(x1 - x0, y1 - y0)
        if half < 10:
            continue
        with Image.open(field) as picture:
            image = np.pad(np.asarray(picture.convert("RGB")), ((half, half), (half, half), (0, 0)), mode="reflect")
        y, x = (y0 + y1) // 2, (x0 + x1) // 2  # of the padded picture's square: its corner
        Image.fromarray(image[y : y + 2 * half, x : x + 2 * half]).save(folder / f"{field.stem}.png")
        found.append(LabelledPicture(folder / f"{field.stem}.png", row["cell_types"]))
    return found
