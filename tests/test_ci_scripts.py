"""The scripts that tox and CI call: they say what they run, and what to run where they may not."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from napari_dinobloom import doctor

SCRIPTS = Path(__file__).parents[1] / ".ci"


def _load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location(f"ci_{name}", SCRIPTS / f"{name}.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Calls:
    """A stand-in for `subprocess.run` that notes commands; those of which a word is in `failing` fail."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        self.commands.append(list(command))
        return subprocess.CompletedProcess(command, int(any(word in self.failing for word in command)))


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Packages that this machine is made to lack, until `apt-get install` has been called."""
    missing = ["libabsent1", "xvfb"]
    monkeypatch.setattr(doctor, "missing_packages", lambda *, tests=False: list(missing))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    return missing


def test_nothing_is_installed_where_nothing_is_missing(lacking: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    lacking.clear()
    calls = Calls()
    monkeypatch.setattr(subprocess, "run", calls)
    assert _load("system_packages", monkeypatch).main() == 0
    assert calls.commands == []


def test_root_installs_what_is_missing(lacking: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        if "install" in command:
            lacking.clear()
        return calls(command, **options)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    assert _load("system_packages", monkeypatch).main() == 0
    assert calls.commands == [
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-y", "-q", "--no-install-recommends", "libabsent1", "xvfb"],
    ]


@pytest.mark.parametrize(("user", "failing"), [(1000, "sudo"), (0, "install")])
def test_where_it_is_not_permitted_or_fails_the_command_is_printed(
    lacking: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], user: int, failing: str
) -> None:
    monkeypatch.setattr(subprocess, "run", Calls(failing))
    monkeypatch.setattr(os, "geteuid", lambda: user, raising=False)
    assert _load("system_packages", monkeypatch).main() == 1
    assert doctor.apt_command(lacking) in capsys.readouterr().out


def test_an_environment_keeps_all_but_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _load("share_environment", monkeypatch)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    script.main()
    note = tmp_path / ".tox-info.json"
    note.write_text(json.dumps({"ToxEnv": {"name": "demo"}, "RunToxEnv": {"req": ["a"]}}))
    script.main()
    assert json.loads(note.read_text()) == {"RunToxEnv": {"req": ["a"]}}


def test_the_demo_draws_a_sample_or_takes_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    monkeypatch.setattr(subprocess, "run", calls)
    demo = _load("demo", monkeypatch)
    assert demo.main([]) == 0
    assert demo.main(["../data/bccd/images", "one.png"]) == 0
    assert calls.commands == [
        ["napari-dinobloom", "sample", "-o", "demo/sample"],
        ["napari-dinobloom", "run", "demo/sample/images", "-o", "demo/demo.dinobloom"],
        ["napari-dinobloom", "run", "../data/bccd/images", "one.png", "-o", "demo/bccd-images.dinobloom"],
    ]
