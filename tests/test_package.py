"""The package as a whole: what importing it costs, what it holds, and whether its papers tell the truth."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import pytest

import napari_dinobloom as nd

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchvision", "timm", "umap", "numba", "sklearn", "skimage", "anndata", "matplotlib", "scipy")
WINDOWS = ("napari", "qtpy", "magicgui", "superqt", "vispy", "PyQt5", "PyQt6", "PySide2", "PySide6")


def _python(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, outside the checkout's folder."""
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, cwd=Path(sys.prefix))


# What importing costs


def test_the_import_is_fast_and_loads_nothing_heavy() -> None:
    code = "import sys, napari_dinobloom; print(*sys.modules)"
    seconds = []
    for _ in range(3):
        done = _python(code, "-X", "importtime")
        line = next(line for line in done.stderr.splitlines() if line.endswith("| napari_dinobloom"))
        seconds.append(int(line.split("|")[1]) / 1e6)
    assert min(seconds) < 0.3
    assert not {"numpy", "pandas", *HEAVY, *WINDOWS} & set(done.stdout.split())


def test_the_command_line_starts_without_anything_heavy() -> None:
    done = _python("import sys, napari_dinobloom.cli; print(*sys.modules)")
    assert not {*HEAVY, *WINDOWS} & set(done.stdout.split())


def test_all_but_the_windows_works_where_napari_and_qt_are_not_installed() -> None:
    code = f"""
import importlib, sys
from pathlib import Path  # whose listing imports nothing, as walking packages would
for name in {WINDOWS}:
    sys.modules[name] = None
import napari_dinobloom
root = Path(napari_dinobloom.__file__).parent
files = [p.relative_to(root.parent).with_suffix("") for p in sorted(root.rglob("*.py"))]
names = [".".join(p.parts).removesuffix(".__init__") for p in files]
names = [n for n in names if ".ui" not in n and not n.endswith("__main__")]
late = [n for n in names if ".training" in n or ".encoders.networks" in n or n.endswith(".network")]
for name in (n for n in names if n not in late):
    importlib.import_module(name)
print(*sys.modules)
for name in late:
    importlib.import_module(name)
print(len(names))
"""
    loaded, count = _python(code).stdout.splitlines()
    assert not ({*HEAVY} - {"scipy"}) & set(loaded.split()), (
        "imported at module level outside training, vit and network"
    )
    assert int(count) > 40


def test_the_contracts_between_rooms_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

    monkeypatch.chdir(ROOT)
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == EXIT_STATUS_SUCCESS


# What it offers


def test_every_public_name_is_there() -> None:
    for name in nd.__all__:
        assert getattr(nd, name) is not None
    assert dir(nd) == nd.__all__
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = nd.no_such_name


def test_type_checkers_and_the_interpreter_see_the_same_names() -> None:
    tree = ast.parse(Path(nd.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    typed = {
        alias.name: str(node.module).removeprefix("napari_dinobloom.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == nd._ROOMS
    assert {*typed, "__version__"} == set(nd.__all__)


def test_the_manifest_is_valid_and_all_it_names_can_be_imported() -> None:
    from npe2 import PluginManifest

    manifest = PluginManifest.from_distribution("napari-dinobloom")
    assert manifest.name == "napari-dinobloom"
    manifest.validate_imports()


def test_the_installed_package_holds_its_data() -> None:
    folder = resources.files("napari_dinobloom")
    reports = ("report/schemes.yaml", "report/templates/report.html.j2")
    for name in ("napari.yaml", "py.typed", *reports, "weights/starter.json"):
        assert folder.joinpath(name).is_file(), name
    weights = folder.joinpath("weights")
    for name in ("starter", "atlas-starter-context", "atlas-starter-published"):
        assert weights.joinpath(f"{name}.safetensors").is_file(), name
    encoder = weights.joinpath("starter.safetensors").read_bytes()
    assert len(encoder) <= 12_000_000, "the encoder may take at most 12 MB of the wheel"


def test_the_version_is_stated_once() -> None:
    assert metadata.version("napari-dinobloom") == nd.__version__


# What the project's files promise


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_dependencies_have_no_upper_bounds_and_no_qt_binding(project: dict[str, Any]) -> None:
    for requirement in project["project"]["dependencies"]:
        assert not re.search(r"<|==|~=", requirement), requirement
        assert not requirement.startswith(("PyQt", "PySide", "napari[")), requirement


@pytest.mark.parametrize("link", ["training", "napari.yaml"])
def test_the_links_at_the_top_lead_into_the_package(link: str) -> None:
    path = ROOT / link
    if os.name == "nt" and path.is_file():
        assert path.read_text(encoding="utf-8").strip() == f"src/napari_dinobloom/{link}"
    else:
        assert os.readlink(path) == f"src/napari_dinobloom/{link}"
        assert path.exists()


def _readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_ci_runs_the_very_test_line_of_the_readme() -> None:
    line = next(line.strip() for line in _readme().splitlines() if line.strip().endswith("tox run -e test"))
    assert line in [step.strip() for step in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()]


def test_tox_environments_of_the_readme_exist() -> None:
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    environments = set(re.findall(r"^\[testenv:([\w-]+)\]", tox, re.MULTILINE))
    assert environments >= {"demo", "test", "pyside", "oldest-napari", "coverage", "lint", "types", "imports", "build"}
    assert set(re.findall(r"tox run -e ([\w-]+)", _readme())) <= environments


def test_python_in_the_readme_names_what_exists() -> None:
    code = "\n".join(re.findall(r"```python\n(.*?)```", _readme(), re.DOTALL))
    names = {
        node.attr
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "nd"
    }
    assert len(names) > 4
    assert names <= set(nd.__all__)


def test_no_file_names_a_place_on_some_machine() -> None:
    private = re.compile("|".join(["/wor" + "k/", "/tm" + "p/", "/hom" + "e/", "C:" + r"\\Users"]))
    folders = ("src", "tests", "docs", "examples", "benchmarks", ".ci")
    endings = {".py", ".md", ".toml", ".ini", ".yaml", ".json", ".j2", ""}
    files = [p for folder in folders for p in (ROOT / folder).rglob("*") if p.is_file() and p.suffix in endings]
    files += [p for p in ROOT.iterdir() if p.is_file() and p.suffix in endings]
    assert len(files) > 100
    for path in files:
        found = private.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path.relative_to(ROOT)}: {found.group() if found else ''}"
