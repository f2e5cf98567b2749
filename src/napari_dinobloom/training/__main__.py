"""Train from a terminal: ``python -m napari_dinobloom.training --config dinobloom-paper data.store=FOLDER``.

Many cards: ``torchrun --nproc-per-node 8 -m napari_dinobloom.training --config dinobloom-paper data.store=FOLDER``.
"""

from __future__ import annotations

import argparse
import sys

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.training.budget import budget
from napari_dinobloom.training.config import load, presets
from napari_dinobloom.training.loop import train


def main(arguments: list[str] | None = None) -> int:
    """Run a training; gives the exit code."""
    parser = argparse.ArgumentParser(prog="python -m napari_dinobloom.training", description=__doc__)
    parser.add_argument("--config", default="dinobloom-paper", help=f"{', '.join(presets())}, or a YAML file")
    parser.add_argument("--dry-run", type=int, metavar="PROCESSES", help="only print what it takes on so many cards")
    parser.add_argument("settings", nargs="*", help="any key, as in batch.total=512 run.out=FOLDER")
    asked = parser.parse_intermixed_args(arguments)
    try:
        config = load(asked.config, asked.settings)
        if asked.dry_run is not None:
            print(budget(config, asked.dry_run))  # noqa: T201 - it was asked for
            return 0
        path = train(config)
    except (DinoBloomError, ValueError) as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print(path, file=sys.stderr)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
