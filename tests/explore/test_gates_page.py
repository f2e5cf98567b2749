"""The example of docs/gates.md runs and finds what the table was made with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "gates.md"


def test_the_example_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    scope: dict[str, Any] = {}
    exec(code, scope)
    found = scope["compare_groups"](scope["tables"].counts, scope["tree"], scope["groups"]).set_index("gate")
    assert found["p"]["blasts"] < 0.01
    assert found["delta"]["blasts"] > 0.8 > -0.8 > found["delta"]["others"]
    assert found["p"]["blasts/large"] > 0.05
    assert not found["exploratory"].any()
    assert scope["tree"].path("g1") == "blasts"
    assert len(scope["suggest_gates"](scope["table"], ("umap_1", "umap_2"))) == 2
