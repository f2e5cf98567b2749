"""The example of docs/map.md runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "map.md"


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(code, scope)
    cells, other, projection = scope["cells"], scope["other"], scope["projection"]
    assert other.uns["dinobloom"]["projection"]["hash"] == projection.hash
    kinds = [cells.obsm["X_umap"][np.arange(300) % 3 == one].mean(0) for one in range(3)]
    near = [np.linalg.norm(other.obsm["X_umap"] - kind, axis=1) for kind in kinds]
    assert (np.argmin(near, axis=0) == np.arange(40) % 3).all()
