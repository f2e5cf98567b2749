"""The example of docs/patients.md runs, and the cells that tell are those with the most attention."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import napari_dinobloom as nd

PAGE = Path(__file__).parents[3] / "docs" / "patients.md"


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(code, scope)
    bags, told = scope["bags"], len(scope["bags"][1]) // 4
    assert np.mean(scope["attention"].top(told, column=0) < told) > 0.5, "a quarter by chance"
    again = nd.AttentionMIL.load("patients.safetensors")
    np.testing.assert_array_equal(again.predict_proba(bags), scope["model"].predict_proba(bags))
