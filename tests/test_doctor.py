"""The examination of a machine, and of machines that lack something."""

from __future__ import annotations

import builtins
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from napari_dinobloom import doctor
from napari_dinobloom.doctor import Finding, SystemNeed, apt_command, examine, missing_packages


def _by_topic(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.topic: finding for finding in findings}


def test_this_machine_is_fit(tmp_path: Path) -> None:
    findings = examine([tmp_path])
    found = _by_topic(findings)
    assert {"Python", "Memory", "torch", "Device", "napari", "Starter encoder", "Data folder", "Folder"} <= set(found)
    assert found["torch"].status == "ok"
    assert metadata.version("torch").split("+")[0] in found["torch"].value
    assert str(tmp_path) in found["Folder"].value
    assert all(bool(finding.remedy) == (finding.status != "ok") for finding in findings)


def test_a_broken_torch_is_a_finding_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def broken(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist\nmore lines")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)
    finding = _by_topic(examine())["torch"]
    assert finding.status == "problem"
    assert finding.value == "does not import: operator torchvision::nms does not exist"
    assert "pip install" in finding.remedy


def test_a_missing_qt_binding_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "QT_BINDINGS", ("NoSuchBinding",))
    finding = _by_topic(examine())["napari"]
    assert (finding.status, "napari-dinobloom[all]" in finding.remedy) == ("note", True)


def test_missing_system_packages_come_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = (
        SystemNeed("libc6", ("libc.so.6",)),
        SystemNeed("libabsent1", ("libabsent.so.1",)),
        SystemNeed("absent-tool", program="no-such-program", tests_only=True),
        SystemNeed("absent-files", files=("no/such/*.file",)),
    )
    monkeypatch.setattr(doctor, "SYSTEM_NEEDS", needs)
    monkeypatch.setattr(sys, "platform", "linux")
    assert missing_packages() == ["libabsent1", "absent-files"]
    assert missing_packages(tests=True) == ["libabsent1", "absent-tool", "absent-files"]
    finding = _by_topic(examine())["System libraries"]
    assert finding.status == "note"
    assert finding.remedy.endswith(apt_command(["libabsent1", "absent-files"]))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert missing_packages(tests=True) == []
    assert "System libraries" not in _by_topic(examine())


@pytest.mark.parametrize(("user", "sudo"), [(0, ""), (1000, "sudo ")])
def test_the_command_asks_for_rights_only_where_needed(monkeypatch: pytest.MonkeyPatch, user: int, sudo: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user, raising=False)
    expected = f"{sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends a b"
    assert apt_command(["a", "b"]) == expected


def test_a_full_disk_and_a_read_only_folder_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 2**20))
    missing = tmp_path / "not" / "there"
    assert _by_topic(examine([missing]))["Folder"].status == "note"
    monkeypatch.setattr(os, "access", lambda *_: False)
    finding = _by_topic(examine([missing]))["Folder"]
    assert finding.status == "problem"
    assert str(tmp_path) in finding.remedy


def test_encoders_that_are_here_are_listed_with_their_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_dinobloom.encoders.ledger import Ledger, iter_seen
    from napari_dinobloom.progress import drain

    monkeypatch.setenv("NAPARI_DINOBLOOM_CACHE", str(tmp_path / "weights"))
    assert _by_topic(examine())["Encoders"] == Finding("Encoders", "ok", "none beside the starter")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "pytorch_model_s.bin").write_bytes(b"some weights")
    found = _by_topic(examine())
    assert (found["Encoders"].status, found["Encoders"].value) == ("note", "DinoBloom-S (unchecked)")
    assert str(tmp_path / "weights") in found["Weights folder"].value
    file = tmp_path / "weights" / "pytorch_model_s.bin"
    seen = drain(iter_seen(file))
    with Ledger.change(tmp_path / "weights") as ledger:
        ledger.remember(file, seen)
        ledger.pin(file, seen.sha256, "DinoBloom-S")  # as loading does, once it was read
    assert _by_topic(examine())["Encoders"].value == "DinoBloom-S (unverified)"
    (tmp_path / "weights" / "weights.json").write_text("torn")
    damaged = _by_topic(examine())["Encoders"]
    assert (damaged.status, "weights.json" in damaged.value) == ("problem", True)


def test_it_needs_nothing_installed_until_it_is_asked() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import napari_dinobloom.doctor as d; d.missing_packages()"
    source = Path(doctor.__file__).parents[1]
    subprocess.run([sys.executable, "-S", "-I", "-c", code, str(source)], check=True, timeout=60)


def test_the_speed_is_measured_and_advice_follows_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_dinobloom.encoders import speed

    monkeypatch.setattr(speed, "measure_speed", lambda **_: [_speed("float32", 12.5), _speed("bf16", 30.0)])
    found = doctor.measure()
    assert found[0].value == "DinoBloom-S on cpu in float32: 12 cells per second, 13.3 min for 10,000"
    advice = _by_topic(found)["Number format"]
    assert "--precision bf16 is 2.4 times as fast" in advice.remedy
    monkeypatch.setattr(speed, "measure_speed", lambda **_: [_speed("float32", 12.5)])
    assert "Number format" not in _by_topic(doctor.measure())
    monkeypatch.setattr(speed, "measure_speed", lambda **_: 1 / 0)
    assert doctor.measure() == [
        Finding("Speed", "problem", "could not be measured: division by zero", "See torch, Device.")
    ]


def _speed(precision: Any, per_second: float) -> Any:
    from napari_dinobloom.encoders.speed import Speed

    return Speed("DinoBloom-S", "cpu", precision, per_second)


def test_a_measured_speed_is_that_of_the_network_asked_for() -> None:
    from napari_dinobloom.encoders.speed import measure_speed

    [tiny, *_] = measure_speed("starter", "cpu", 0.2)
    [small, *_] = measure_speed("DinoBloom-S", "cpu", 0.2)
    assert tiny.precision == small.precision == "float32"
    assert tiny.per_second > small.per_second  # a quarter of the products
