"""Run the main job: on the images given, or on a sample of smears that is drawn first. Prints each command."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path


def main(images: list[str]) -> int:
    """Run on `images`; the study lies in the folder ``demo`` and carries the name of the first of them."""
    if not images:
        failed = _run("napari-dinobloom", "sample", "-o", "demo/sample")
        if failed:
            return failed
        images = ["demo/sample/images"]
        name = "demo"
    else:
        name = "-".join(Path(images[0]).resolve().parts[-2:]) or "images"
    return _run("napari-dinobloom", "run", *images, "-o", f"demo/{name}.dinobloom")


def _run(*command: str) -> int:
    """Print and run `command`; its exit status."""
    print("$", shlex.join(command), flush=True)
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
