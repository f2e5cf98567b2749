"""The workflow file covers what the package promises, and calls what exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    """Jobs of the workflow by name."""
    return dict(yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"])


def test_every_python_and_system_of_the_classifiers_is_tested(jobs: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stated = {text.rsplit(" ", 1)[-1] for text in project["classifiers"] if re.search(r":: 3\.\d+$", text)}
    matrix = jobs["test"]["strategy"]["matrix"]
    assert set(matrix["python"]) == stated
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}


def test_the_tox_environments_that_it_runs_exist(jobs: dict[str, Any]) -> None:
    lines = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    called = {name for line in lines for name in re.findall(r"tox run -e ([\w-]+)", line)}
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    assert called
    assert called <= set(re.findall(r"^\[testenv:([\w-]+)\]", tox, re.MULTILINE))
    assert ".ci/run" in lines


def test_the_oldest_napari_that_is_tested_is_the_oldest_that_is_allowed() -> None:
    (lowest,) = set(re.findall(r"napari(?:\[all\])?>=([\d.]+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8")))
    assert f"napari=={lowest}\n" in (ROOT / "tox.ini").read_text(encoding="utf-8")
