"""The example of docs/gates.md runs and finds what the table was made with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from gated import gated_study

PAGE = Path(__file__).parents[2] / "docs" / "gates.md"


def blocks() -> list[str]:
    """What the page shows in Python."""
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_example_runs() -> None:
    code, _ = blocks()
    scope: dict[str, Any] = {}
    exec(code, scope)
    found = scope["compare_groups"](scope["tables"].counts, scope["tree"], scope["groups"]).set_index("gate")
    assert found["p"]["blasts"] < 0.01
    assert found["delta"]["blasts"] > 0.8 > -0.8 > found["delta"]["others"]
    assert found["p"]["blasts/large"] > 0.05
    assert not found["exploratory"].any()
    assert scope["tree"].path("g1") == "blasts"
    assert len(scope["suggest_gates"](scope["table"], ("umap_1", "umap_2"))) == 2


def test_the_example_of_a_study_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with gated_study(tmp_path / "smears.dinobloom") as study:
        cells = study.cells
        cells.obs["area_px"] *= 30  # as large as cells of a smear
        study.save_cells(cells)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(blocks()[1], scope)
    gates, key = scope["gates"], scope["key"]
    assert gates.tree[key].colour == "#0072b2", "the second act was taken back"
    assert gates.tree[key].seen == gates.patients
    inside = gates.table["area_px"] >= 12_000
    assert inside.any()
    assert not inside.all()
    assert gates.masks()[key].tolist() == inside.tolist()
