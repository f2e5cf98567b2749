"""Open a study in scanpy: cluster its cells on the stored neighbours and draw them on the stored map.

    python examples/cluster_with_scanpy.py STUDY.dinobloom [PICTURE.png]

The cell table is an AnnData, so that nothing has to be converted.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import pandas as pd
import scanpy as sc

import napari_dinobloom as nd


def main(study_folder: Path, picture: Path) -> pd.DataFrame:
    """Return a table of clusters against predicted classes; draw the map into `picture`."""
    with nd.Study.open(study_folder, read_only=True) as study:
        cells = study.cells.copy()
    cells = cells[~cells.obs["deleted"].to_numpy(bool)].copy()
    sc.tl.leiden(cells, resolution=0.5, flavor="igraph", n_iterations=2, random_state=0)
    cells.obs["class"] = cells.obs["predicted"].astype(str).replace("", "unclassified")
    figure = sc.pl.umap(cells, color=["leiden", "class"], show=False, return_fig=True)
    figure.savefig(picture, bbox_inches="tight")
    table = pd.crosstab(cells.obs["leiden"], cells.obs["class"])
    print(table.to_string())
    return table


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) > 2 else "clusters.png"))
