"""From smear images to a differential count, without a window.

    python examples/count_smears.py [FOLDER]

Draws three fields of a smear into FOLDER (default: example-output), runs the whole way on them and prints the count.
Run it twice: the second time there is nothing left to do.
"""

from __future__ import annotations

import sys
from pathlib import Path

import napari_dinobloom as nd
from napari_dinobloom.io.generate import write_smears


def main(folder: Path) -> Path:
    """Return the study folder that was made in `folder`."""
    images = write_smears(folder / "sample", n=3, seed=1)
    with nd.run(images, folder / "smears.dinobloom", specimen="blood") as study:
        counts = nd.differential(study.cells, by=("slide",))
        print(counts.loc[counts["n"] > 0, ["slide", "class", "n", "percent", "low", "high"]].to_string(index=False))
        print(f"{study.cells.n_obs} cells; the report is {study.path / 'report.html'}")
        return study.path


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "example-output"))
