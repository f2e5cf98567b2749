"""The source archive and the wheel built from it: what they hold, and that they work where the checkout is not.

The empty environment has this package from the wheel and nothing else; then a line in a ``.pth`` file shows it what the
environment of the tests has besides. A path that comes in so is not searched for ``.pth`` files of its own, so that an
editable installation of the checkout stays out of sight.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # builds, installs and runs
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "napari_dinobloom"
TOP = {"README.md", "CHANGELOG.md", "LICENSE", "NOTICE", "pyproject.toml", "tox.ini", "PKG-INFO"}


def _call(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints; it is an error when it fails."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        check=False,
        cwd=cwd,
        encoding="utf-8",
        env=kept | environment,
        timeout=500,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def ours() -> set[str]:
    """Every file of the package in the checkout, relative to ``src``."""
    files = (path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(SOURCE.parent).as_posix() for path in files}


@pytest.fixture(scope="module")
def built(ours: set[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive, and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    _call(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (archive,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return archive, wheel


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folder of an environment that has the package from the wheel, and the folder of its programs."""
    folder = tmp_path_factory.mktemp("installed") / "environment"
    venv.create(folder, symlinks=os.name != "nt")
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    python = programs / ("python.exe" if os.name == "nt" else "python")
    _call(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", built[1], cwd=folder)
    place = _call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    others = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(place, "others.pth").write_text("\n".join(sorted(others)) + "\n", encoding="utf-8")
    return folder, programs


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(built: tuple[Path, Path], ours: set[str]) -> None:
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        notes = {name.partition(".dist-info/")[2] for name in names if ".dist-info/" in name}
        assert {name for name in names if ".dist-info/" not in name} == ours
        assert {"licenses/LICENSE", "licenses/NOTICE", "entry_points.txt", "METADATA"} <= notes
        for name in ("napari.yaml", "py.typed", "report/schemes.yaml", "weights/starter.safetensors"):
            assert wheel.read(f"napari_dinobloom/{name}") == (SOURCE / name).read_bytes()


def test_the_source_archive_holds_what_is_needed_to_build_test_and_read(
    built: tuple[Path, Path], ours: set[str]
) -> None:
    with tarfile.open(built[0]) as archive:
        members = archive.getmembers()
    assert all(member.isfile() or member.isdir() for member in members), "a link does not unpack on Windows"
    names = {member.name.partition("/")[2] for member in members if member.isfile()}
    assert {name.removeprefix("src/") for name in names if name.startswith("src/")} == ours
    assert names >= TOP
    assert {"tests/conftest.py", "docs/windows.md", ".ci/run", "benchmarks/screenshots.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".dinobloom"))]


def test_the_package_runs_from_the_wheel(installed: tuple[Path, Path], tmp_path: Path) -> None:
    folder, programs = installed
    where = "import napari_dinobloom as nd; print(nd.__file__, nd.__version__)"
    place, version = _call(programs / "python", "-c", where, cwd=tmp_path).split()
    assert Path(place).resolve().is_relative_to(folder.resolve())
    assert version in next(folder.rglob("napari_dinobloom-*.dist-info")).name
    home = {"NAPARI_DINOBLOOM_HOME": str(tmp_path / "home"), "NAPARI_DINOBLOOM_OFFLINE": "1"}
    _call(programs / "napari-dinobloom", "sample", "-o", "sample", "-n", "1", cwd=tmp_path, **home)
    _call(programs / "napari-dinobloom", "run", "sample/images", "-o", "one.dinobloom", cwd=tmp_path, **home)
    report = (tmp_path / "one.dinobloom" / "report.html").read_text(encoding="utf-8")
    assert "neutrophil" in report.lower()


def test_napari_finds_the_plugin_of_the_wheel(installed: tuple[Path, Path], tmp_path: Path) -> None:
    folder, programs = installed
    code = """
import napari_dinobloom
from npe2 import PluginManager
manager = PluginManager()
manager.discover()
manifest = manager.get_manifest("napari-dinobloom")
manifest.validate_imports()
print(napari_dinobloom.__file__)
print(*(widget.display_name for widget in manifest.contributions.widgets), sep="|")
"""
    place, windows = _call(programs / "python", "-c", code, cwd=tmp_path, QT_QPA_PLATFORM="offscreen").splitlines()[-2:]
    assert Path(place).resolve().is_relative_to(folder.resolve())
    assert {"Study (start here)", "Map and gates", "Gallery", "Report"} <= set(windows.split("|"))
    validated = "from npe2.cli import main; main()"
    told = _call(programs / "python", "-c", validated, "validate", "napari-dinobloom", cwd=tmp_path)
    assert "valid" in told.lower()
