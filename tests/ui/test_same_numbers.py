"""The same numbers everywhere: one sample by mouse and keys, by commands and in Python gives the same files.

Two patients with a generated smear each are run, gated, named and reported three times. All files of the three
studies and of their exports are compared, byte for byte where nothing is said in `MAY_DIFFER`.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QApplication, QFileDialog
from safetensors import safe_open
from typer.testing import CliRunner

import napari_dinobloom as nd
from napari_dinobloom.cli import app
from napari_dinobloom.explore.gate_export import write_fcs, write_gate_csv, write_gate_json
from napari_dinobloom.explore.study_gates import StudyGates
from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.io.smear import write_picture
from napari_dinobloom.io.tables import read_csv
from napari_dinobloom.pipeline.exports import KINDS, export
from napari_dinobloom.pipeline.hand_labels import name_cells
from napari_dinobloom.pipeline.patient_reports import iter_patient_reports
from napari_dinobloom.pipeline.settings import resolve
from napari_dinobloom.progress import drain
from napari_dinobloom.ui.session import session_of
from napari_dinobloom.ui.widgets.gallery_widget import GalleryWidget
from napari_dinobloom.ui.widgets.map_widget import MapWidget
from napari_dinobloom.ui.widgets.report_widget import ReportWidget
from napari_dinobloom.ui.widgets.study_widget import StudyWidget

pytestmark = [pytest.mark.gui, pytest.mark.slow]

_spec = importlib.util.spec_from_file_location("map_fixtures", Path(__file__).parent / "map" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
mice = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(mice)

LEFT = Qt.MouseButton.LeftButton
OWN = "Sézary cell"  # a class that no study knows: it gets a colour
GATE = "Gate 1"

# What may differ


def _without_id(path: Path) -> Any:
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found.pop("id")
    for step in ("differential", "report"):
        assert found["steps"][step].pop("key")
    return found


def _without_times(path: Path) -> Any:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        assert line.pop("when")
        for side in ("old", "new"):
            line[side].pop("label_at", None)
    return lines


def _without_label_at(path: Path) -> Any:
    return read_csv(path).drop(columns="label_at").to_csv(), path.read_bytes()[:40]


def _cells(path: Path) -> Any:
    found: dict[str, Any] = {}

    def take(name: str, node: Any) -> None:
        if name.startswith("obs/label_at"):
            return
        value = node[()] if isinstance(node, h5py.Dataset) else None
        plain = isinstance(value, np.ndarray) and value.dtype != object
        held = value.tobytes() if plain else str(np.asarray(value).tolist())
        value = (held, str(getattr(node, "dtype", "")), getattr(node, "shape", ()))
        found[name] = (value, {key: str(node.attrs[key]) for key in node.attrs})

    with h5py.File(path) as file:
        file.visititems(take)
    assert {"X", "obsm/X_umap", "obs/label"} <= set(found)
    return found


def _vectors(path: Path) -> Any:
    with safe_open(path, framework="np") as file:
        header = {key: value for key, value in file.metadata().items() if key != "written"}
        return header, {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118 - it is no dict


def _page(path: Path) -> Any:
    whole = path.read_text(encoding="utf-8")
    page, times = re.subn(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", whole)
    assert 1 <= times <= 2
    return re.sub(r"(edits\.jsonl</th><td[^>]*>)[0-9a-f]{64}", r"\1", page)


def _run(path: Path) -> Any:
    found = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in found.items() if key not in ("finished", "seconds")}, sorted(found["seconds"])


MAY_DIFFER: dict[str, tuple[Callable[[Path], Any], str]] = {
    "study.dinobloom/study.json": (
        _without_id,
        "the random id of the study; keys of steps that rest on the journal, which has times",
    ),
    "study.dinobloom/edits.jsonl": (_without_times, "when a person acted"),
    "study.dinobloom/cells.h5ad": (_cells, "when a cell was labelled; byte order of HDF5's own bookkeeping"),
    "study.dinobloom/embeddings/*": (_vectors, "when it was written, and the mark of the process in its name"),
    "study.dinobloom/runs/*": (_run, "times, and the time in its name"),
    "*.html": (_page, "when it was made, and the hash of the journal, which has times"),
    "*cells.csv": (_without_label_at, "when a cell was labelled"),
}
ONLY_WINDOWS = {"study.dinobloom/view.json"}  # camera, layers and what else a window is set to
NAMED_BY_TIME = {r"(embeddings/.*-\d{6})-[0-9a-f]{8}": r"\1", r"runs/\d{8}T\d{6}-\d+": "runs/run"}


def everything(folder: Path) -> dict[str, Any]:
    """What each file below a folder holds, less what may differ."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        read = next((how for pattern, (how, _) in MAY_DIFFER.items() if fnmatch(name, pattern)), Path.read_bytes)
        for pattern, instead in NAMED_BY_TIME.items():
            name = re.sub(pattern, instead, name)
        while name in found:
            name += "+"  # the second run
        found[name] = read(path)
    return found


# The three ways


@dataclass(frozen=True)
class Said:
    """What was done with the mouse, so that it can be done again in other ways."""

    vertices: list[tuple[float, float]]
    seen: tuple[str, ...]
    labels: list[tuple[str, str]]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A generated field of each of two patients."""
    for at, patient in enumerate(("anna", "bert")):
        made = generate_smear(at, height=220, width=260, n_white=4, pixel_size_um=0.12)
        path = tmp_path / "images" / patient / f"field{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, made.image, made.pixel_size_um)
    return tmp_path / "images"


@pytest.fixture
def person(make_napari_viewer_proxy: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Somebody at a viewer, who gives file dialogs the folder ``window``."""
    folder = tmp_path / "window"
    folder.mkdir()
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda _self, _title, name, _kind: (f"{folder / Path(name).name}", "")
    )
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder / "gates"))
    someone = Person(make_napari_viewer_proxy(strict_qt="raise", show=True), qtbot, folder, monkeypatch)
    yield someone
    someone.session.close_study()


class Person:
    """Uses the windows with mouse and keys."""

    def __init__(self, viewer: Any, qtbot: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.viewer, self.qtbot, self.folder, self.monkeypatch = viewer, qtbot, folder, monkeypatch
        self.session = session_of(viewer)
        viewer.window.resize(1300, 900)

    def dock(self, kind: Any, name: str) -> Any:
        widget = kind(self.viewer)
        self.viewer.window.add_dock_widget(widget, name=name)
        self.qtbot.waitExposed(widget)
        QApplication.processEvents()
        return widget

    def wait(self, *busy: Callable[[], bool]) -> None:
        self.qtbot.waitUntil(lambda: self.session.job is None and not any(one() for one in busy), timeout=300_000)

    def click(self, button: Any) -> None:
        assert button.isEnabled(), button.toolTip()
        self.qtbot.mouseClick(button, LEFT)

    def run(self, images: Path) -> None:
        """Drop the folder of images, make a study, do all steps."""
        widget = self.dock(StudyWidget, "Study")
        data = QMimeData()
        data.setUrls([QUrl.fromLocalFile(str(images))])
        widget.inputs.dropEvent(
            QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, data, LEFT, Qt.KeyboardModifier.NoModifier)
        )
        self.monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(self.folder / "study"), ""))
        self.click(widget.header.buttons["new"])
        self.wait(lambda: widget.inputs.lookup.busy, lambda: widget.steps.busy)
        self.click(widget.job.start)
        self.wait(lambda: widget.steps.busy)
        assert widget.steps.all_done, self.session.message

    def gate(self) -> Any:
        """Draw a polygon around the left half of the map, corner by corner."""
        widget = self.dock(MapWidget, "Map and gates")
        view, mouse = widget.view, mice.Mouse(widget.view)
        view.canvas.fit()
        x0, y0, x1, y1 = view.canvas.in_view
        middle, edge = float(np.median(view.places[:, 0])), 0.02 * (x1 - x0)
        mouse.key(Qt.Key.Key_P)
        for corner in ((x0 + edge, y0 + edge), (middle, y0 + edge), (middle, y1 - edge), (x0 + edge, y1 - edge)):
            mouse.move(*corner)
            mouse.click(*corner)
        mouse.key(Qt.Key.Key_Return)
        (key,) = view.gating.tree.keys
        assert 0 < view.gating.masks()[key].mean() < 1
        return view.gating.tree[key]

    def name(self) -> list[tuple[str, str]]:
        """Give the first cell a class by its key, and the second one a class of one's own."""
        widget = self.dock(GalleryWidget, "Gallery")
        view = widget.view
        self.qtbot.waitUntil(lambda: view.in_sight()[1] > 1, timeout=20_000)
        cells, classes = [widget.model.cell(place) for place in (0, 1)], widget.classes.names()
        place = view.visualRect(view.cells.index(0)).center()
        self.qtbot.mouseClick(view.viewport(), LEFT, pos=place)
        self.qtbot.keyClick(view, Qt.Key.Key_1)
        assert self.session.study.cells.obs.at[cells[0], "label"] == classes[0]
        place = view.visualRect(view.cells.index(1)).center()
        self.qtbot.mouseClick(view.viewport(), LEFT, pos=place)
        widget.classes.more.setEditText(OWN)
        self.click(widget.classes.assign)
        self.qtbot.waitUntil(lambda: not widget.thumbnails.busy, timeout=20_000)
        return [(cells[0], classes[0]), (cells[1], OWN)]

    def report(self) -> None:
        """Write the report with all pages, then export all there is to export."""
        widget = self.dock(ReportWidget, "Report")
        for name in ("per_patient", "cohort"):
            widget.pages[name].setChecked(True)
        self.click(widget.job.start)
        self.wait(lambda: widget.lookup.busy)
        for box in widget.exports.values():
            box.setChecked(True)
        self.monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(self.folder))
        self.click(widget.export)
        self.wait(lambda: widget.lookup.busy)
        (self.folder / "study-export").rename(self.folder / "export")

    def close(self) -> None:
        """Close the study."""
        (widget,) = [one for one in self.viewer.window.dock_widgets.values() if isinstance(one, StudyWidget)]
        self.wait(lambda: widget.steps.busy)
        self.click(widget.header.buttons["close"])

    def export_gates(self) -> None:
        """Export gates from the menu of the map's list."""
        (panel,) = [one.gates for one in self.viewer.window.dock_widgets.values() if isinstance(one, MapWidget)]
        self.monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(self.folder / "gates"))
        self.monkeypatch.setattr(
            QFileDialog, "getSaveFileName", lambda _self, _title, name, _kind: (str(self.folder / "gates" / name), "")
        )
        for kind in ("csv", "json", "fcs"):
            panel.actions_[kind].trigger()
            self.wait()


def by_window(person: Person, images: Path) -> Said:
    """The whole way by mouse and keys."""
    person.run(images)
    node = person.gate()
    assert isinstance(node.gate, nd.PolygonGate)
    assert node.gate.name == GATE
    labels = person.name()
    person.report()
    person.export_gates()
    person.close()
    return Said(np.asarray(node.gate.vertices).tolist(), tuple(node.seen), labels)


def by_command(folder: Path, images: Path, said: Said) -> None:
    """The same by commands."""
    folder.mkdir()
    study, gates = folder / "study.dinobloom", folder / "gates"

    def do(*words: object) -> None:
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output + done.stderr

    do("run", images, "-o", study)
    seen = [word for patient in said.seen for word in ("--seen", patient)]
    corners = " ".join(f"{x!r},{y!r}" for x, y in said.vertices)
    do(
        "gate",
        "add",
        study,
        "--name",
        GATE,
        "--type",
        "polygon",
        "--axes",
        "umap_1,umap_2",
        "--vertices",
        corners,
        *seen,
    )
    for cell, name in said.labels:
        table = folder.parent / "labels.csv"
        pd.DataFrame({"cell_id": [cell], "label": [name]}).to_csv(table, index=False)
        do("label", study, table)
    do("report", study, "--per-patient", "--cohort")
    do("export", study, "-o", folder / "export", "--geojson", "--labels")
    do("gate", "export", study, "--csv", gates, "--json", gates / "gates.json", "--fcs", gates / "gates.fcs")


def by_python(folder: Path, images: Path, said: Said) -> None:
    """The same in Python."""
    folder.mkdir()
    path, out = folder / "study.dinobloom", folder / "gates"
    nd.run(images, path).close()
    with nd.Study.open(path) as study:
        gates = StudyGates(study)
        gate = nd.PolygonGate(name=GATE, axes=("umap_1", "umap_2"), vertices=said.vertices)
        gates.add(gate, seen=said.seen)
        for cell, name in said.labels:
            name_cells(study, [cell], name)
    nd.run([], path).close()
    with nd.Study.open(path, read_only=True) as study:
        drain(iter_patient_reports(study))
        export(study, resolve(study.settings, {}), folder / "export", KINDS)
        gates = StudyGates(study)
        tables = gates.statistics()
        assert tables is not None
        write_gate_csv(out, tables)
        write_gate_json(out / "gates.json", tables, gates.tree)
        write_fcs(out / "gates.fcs", gates.table, gates=gates.tree)
        inside = gate.apply(gates.table)
        assert np.array_equal(inside, gates.masks()["g1"])


def test_windows_commands_and_python_write_the_same_files(person: Person, images: Path, tmp_path: Path) -> None:
    said = by_window(person, images)
    by_command(tmp_path / "command", images, said)
    by_python(tmp_path / "python", images, said)
    window, command, python = (everything(tmp_path / way) for way in ("window", "command", "python"))
    assert sum(name.endswith((".csv", ".tif", ".geojson", ".html", ".npz")) for name in python) == 19
    for other in (window, command):
        assert set(other) - ONLY_WINDOWS == set(python)
        assert [name for name in python if other[name] != python[name]] == []
