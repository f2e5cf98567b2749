"""Tasks for workers, which have to find them by name: some fail, one is deadly."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class Poison:
    """A segmenter that ends its process."""

    name, key, licence = "poison", "poison", ""

    def iter_find(self, *_: Any, **__: Any) -> Any:
        os._exit(1)

    def tiled(self, *_: Any) -> Poison:
        return self


def fickle(path: str) -> str:
    """Raise three times, then succeed."""
    tries = len(list(Path(path).glob("*")))
    (Path(path) / str(tries)).touch()
    if tries < 3:
        raise RuntimeError("not yet")
    return "done"


def broken(item: int) -> int:
    """Raise for one item."""
    if item == 2:
        raise RuntimeError("never")
    return item * 10
