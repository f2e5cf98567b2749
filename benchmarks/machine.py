"""What the figures of a benchmark were measured with, and where they are written."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("napari-dinobloom", "torch", "numpy", "scipy", "scikit-image", "scikit-learn", "umap-learn", "anndata")


def machine() -> dict[str, object]:
    """Processor, cores, system and versions."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        name = lines[0].split(":", 1)[1].strip() if lines else name
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": name,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {package: metadata.version(package) for package in PACKAGES},
    }


def command() -> str:
    """The command line of this benchmark as it is kept: a path that starts at the root by its last name alone."""
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(_without_place, sys.argv[1:])])


def _without_place(argument: str) -> str:
    name, equals, value = argument.rpartition("=")
    return f"{name}{equals}{Path(value).name}" if Path(value).is_absolute() else argument
