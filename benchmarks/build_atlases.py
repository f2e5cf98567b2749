"""Build the two atlases that come with the package, with the command line that anyone has.

Run it with ``python benchmarks/build_atlases.py [--data ../shared/data]`` after a change of encoder, segmentation or
crops; tests/pipeline/test_bundled.py fails until then. About 15 minutes on two cores. With ``--recalibrate`` the cells
stay as they are, and only what held-out cells teach (temperature, threshold, distance limit, confusion) is found anew.
Either way the atlases say that their stain is that of `cells.stain_transfer.reference`: recoloured cells meet them.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

WEIGHTS = Path(__file__).parents[1] / "src" / "napari_dinobloom" / "weights"
ORIGIN = "PBC, Acevedo et al. 2020, doi:10.17632/snkd93bnjr.1, CC BY 4.0, split train"


def recalibrate() -> None:
    """Measure both atlases again on the cells that they hold, and say whose stain they have."""
    from napari_dinobloom.predict.abstention import calibrate
    from napari_dinobloom.predict.atlas import Atlas
    from napari_dinobloom.predict.classifier import REFERENCE_STAIN

    for kind in ("context", "published"):
        path = WEIGHTS / f"atlas-starter-{kind}.safetensors"
        old = Atlas.load(path)
        found = calibrate(old.X, old.y, old.source, old.held_out, k=old.k, metric=old.metric, weights=old.weights)
        new = replace(old, info={**old.info, "stain": REFERENCE_STAIN}).calibrated(found)
        new.save(path)
        for name in ("hash", "threshold", "distance_limit", "info"):
            print(kind, name, getattr(old, name), "->", getattr(new, name), flush=True)


def main() -> None:
    """Print and run one command for each kind of crops."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--recalibrate", action="store_true", help="keep the cells, measure on them again")
    options = parser.parse_args()
    if options.recalibrate:
        recalibrate()
        return
    for kind in ("context", "published"):
        name = f"starter-{kind}"
        command = ["napari-dinobloom", "atlas", "build", str(options.data / "pbc.csv"), "--split", "train"]
        command += [
            "--crops",
            kind,
            "--name",
            name,
            "--origin",
            ORIGIN,
            "-o",
            str(WEIGHTS / f"atlas-{name}.safetensors"),
        ]
        print("$", shlex.join(command), flush=True)
        subprocess.run([sys.executable, "-m", "napari_dinobloom", *command[1:]], check=True)
    recalibrate()


if __name__ == "__main__":
    main()
