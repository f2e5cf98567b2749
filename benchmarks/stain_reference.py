"""The stain of the reference cells that come with the package, from the PBC pictures with split ``train``.

    python benchmarks/stain_reference.py

Writes ``src/napari_dinobloom/weights/stain_reference.json``: a few numbers, see `cells.stain_transfer.SlideStain`.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from pbc import DATA, ROOT

from napari_dinobloom.cells.crop import CropPolicy, resize_picture
from napari_dinobloom.cells.stain_transfer import SAMPLE, VERSION, estimate
from napari_dinobloom.io.smear import read_smear

PICTURES = 8 * SAMPLE


def main() -> None:
    """Estimate over some pictures of every class, and write."""
    rows = pd.read_csv(DATA / "pbc.csv", dtype=str).query("split == 'train'")
    files = rows["file"].iloc[np.linspace(0, len(rows) - 1, PICTURES).round().astype(int)]
    crops = [resize_picture(read_smear(DATA / file).load(), CropPolicy(kind="published")) for file in files]
    found = [estimate(np.stack(crops[start::8])) for start in range(8)]
    stains = [stain for stain in found if stain is not None]
    middle = {
        name: np.median([np.asarray(getattr(stain, name)) for stain in stains], axis=0).round(4).tolist()
        for name in ("light", "mean", "spread", "vectors", "top")
    }
    document = {
        "data": "PBC, Acevedo et al. 2020, doi:10.17632/snkd93bnjr.1, CC BY 4.0, split train",
        "pictures": len(files),
        "how": f"median of {len(stains)} estimates of {SAMPLE} pictures each",
        "version": VERSION,
        "stain": middle,
    }
    path = ROOT / "src" / "napari_dinobloom" / "weights" / "stain_reference.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
