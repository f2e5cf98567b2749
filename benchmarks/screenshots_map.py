"""Scenes of the Map and gates window for `screenshots.py`: every tool in use, on generated smears.

The cells are those of generated smears with their true classes as predictions; their places on the map are drawn at
random around one point for each class, as no encoder is run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mouse import Mouse
from qtpy.QtCore import Qt
from qtpy.QtGui import QCursor

from napari_dinobloom.explore.gates import BooleanGate, EllipseGate, PolygonGate, RangeGate, RectangleGate
from napari_dinobloom.io.celltable import complete
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.io.masks import FieldMasks
from napari_dinobloom.io.study import Study
from napari_dinobloom.ui.gating import gating_of

if TYPE_CHECKING:
    from screenshots import Studio

XY = ("umap_1", "umap_2")
CENTRES = {
    "neutrophil_segmented": (4.0, 0.5),
    "eosinophil": (5.0, 4.5),
    "basophil": (-0.5, 5.0),
    "lymphocyte": (-5.0, -0.5),
    "monocyte": (-1.0, -4.0),
}
FIELDS, OF_PATIENT = 48, 4


def smear_study(path: Path, fields: int = FIELDS) -> Study:
    """A study of generated smears, four a patient; half of the patients have fewer neutrophils."""
    study, records, parts, masks = Study.create(path), [], [], []
    for at in range(fields):
        few = (at // OF_PATIENT) % 2
        shares = {"neutrophil_segmented": 0.3 if few else 0.5, "lymphocyte": 0.35 if few else 0.25}
        rest = {"monocyte": 0.12, "eosinophil": 0.08, "basophil": 0.05}
        smear = generate_smear(at, n_white=14, width=720, height=540, composition=_summed(shares | rest))
        file = study.keep_picture(f"smear-{at:02d}", smear.image, smear.pixel_size_um)
        place = {"slide": f"{'AB'[few]}{at // OF_PATIENT // 2 + 1}-{at % OF_PATIENT // 2 + 1}"}
        place["patient"] = place["slide"].split("-")[0]
        record = FieldRecord(
            file.stem, f"fields/{file.name}", "study", hashlib.sha256(file.read_bytes()).hexdigest(),
            *smear.image.shape[:2], smear.pixel_size_um, **place,
        )  # fmt: skip
        records.append(record)
        masks.append(FieldMasks.from_labels(smear.labels, smear.nuclei))
        ids = {"cell_id": [f"{record.id}:{number:05d}" for number in smear.table["label"]], "field": record.id}
        parts.append(smear.table.rename(columns={"class": "predicted"}).drop(columns="label").assign(**ids, **place))
    study.update(fields=records)
    for record, mask in zip(records, masks, strict=True):
        study.save_masks(record.id, mask, "{}", "generated")
    study.save_cells(_cells(pd.concat(parts, ignore_index=True)))
    return study


def many_cells(path: Path, count: int = 240_000) -> Study:
    """More cells than are drawn one by one, on the same map; there are no pictures."""
    study, random = Study.create(path), np.random.default_rng(0)
    names = random.choice(list(CENTRES), size=count, p=(0.5, 0.08, 0.04, 0.26, 0.12))
    patient = np.sort(random.integers(0, 12, count))
    table = pd.DataFrame({"field": "f", "predicted": names, "area_px": random.integers(3000, 12000, count)})
    table["cell_id"] = [f"f:{number:07d}" for number in range(1, count + 1)]
    table["patient"] = table["slide"] = np.array([f"P{i + 1}" for i in range(12)])[patient]
    study.save_cells(_cells(table))
    return study


def _summed(shares: dict[str, float]) -> dict[str, float]:
    """Shares of one."""
    return {name: share / sum(shares.values()) for name, share in shares.items()}


def _cells(table: pd.DataFrame) -> AnnData:
    """A cell table with places on a map and a confidence, which is less for cells far from their centre."""
    random, n = np.random.default_rng(0), len(table)
    away = random.normal(size=(n, 2)) * random.choice((0.7, 1.3), size=(n, 1))
    sure = 0.98 - 0.16 * np.hypot(*away.T) - 0.05 * random.random(n)
    table = table.assign(confidence=np.clip(sure, 0.2, 1).astype(np.float32), quality="ok")
    if "nucleus_area_px" in table:
        table["nc_ratio"] = (table["nucleus_area_px"] / table["area_px"]).astype(np.float32)
    adata = AnnData(X=np.zeros((n, 1), np.float32), obs=complete(table))
    adata.obsm["X_umap"] = (np.array([CENTRES[name] for name in table["predicted"]]) + away).astype(np.float32)
    adata.uns["dinobloom"] = {"projection": {"kind": "umap", "hash": "ab" * 32}}
    return adata


def around(x: float, y: float, reach: float, turns: float = 1.0) -> list[tuple[float, float]]:
    """The path of a hand around a place."""
    angle = np.linspace(0, 2 * np.pi * turns, 40)
    far = reach * (1 + 0.12 * np.sin(3 * angle))
    return [(x + float(d * np.cos(a)), y + float(d * np.sin(a))) for a, d in zip(angle, far, strict=True)]


class Scenes:
    """The window in a viewer, and how to bring it into its states."""

    def __init__(self, studio: Studio, place: Path) -> None:
        self.studio, self.session, self.place = studio, studio.session, place
        self.dock, self.widget = studio.viewer.window.add_plugin_dock_widget("napari-dinobloom", "Map and gates")
        self.gating, self.view = gating_of(self.session), self.widget.view
        self.mouse = Mouse(self.view)
        self.keys: dict[str, str] = {}

    def show(self, study: Study) -> None:
        """Open a study."""
        from screenshots import rest

        self.session.show(study)
        rest(0.5)
        self.view.canvas.fit()
        rest(0.3)

    def draw(self, tool: str, *path: tuple[float, float], release: bool = True) -> None:
        """Use a tool, and leave the pointer where it ends."""
        self.mouse.key(getattr(Qt.Key, f"Key_{tool}"))
        self.mouse.drag(path, release=release)

    def point_at(self, row: int) -> None:
        """Put the pointer on a cell of the map."""
        self.mouse.key(Qt.Key.Key_V)
        QCursor.setPos(self.view.canvas.native.mapToGlobal(self.mouse.at(self.view.places[row])))

    def empty(self) -> None:
        """No study; then the dock is made wider, as people do."""
        self.studio.shoot("map-00-empty")
        window = self.dock.window()
        window.resizeDocks([self.dock], [int(0.45 * window.width())], Qt.Orientation.Horizontal)

    def hover(self) -> None:
        """The card of a cell; its field is open."""
        self.show(smear_study(self.place / "smears.dinobloom"))
        table = self.view.table
        row = int(np.flatnonzero(table["predicted"] == "eosinophil")[3])
        self.view.open_cell(row)
        self.studio.viewer.reset_view()
        self.point_at(row)
        self.studio.shoot("map-01-hover")
        self.mouse.move((20, 20))

    def drawing(self) -> None:
        """Tools while they draw, each dropped by Escape."""
        self.draw("L", *around(-5, -0.5, 2.2, 0.7), release=False)
        self.studio.shoot("map-02-lasso")
        self.mouse.release((-5, -0.5))
        self.gating.undo()
        self.mouse.key(Qt.Key.Key_P)
        for corner in ((2, -2), (6, -2), (7, 1), (5, 2.5)):
            self.mouse.click(corner)
        self.mouse.move((2.5, 2.8))
        self.studio.shoot("map-03-polygon")
        self.mouse.key(Qt.Key.Key_Escape)
        for at, tool in enumerate("REXY", start=4):
            self.draw(tool, (-7, -2.5), (-5, 0), (-2.5, 2), release=False)
            self.studio.shoot(f"map-{at:02d}-{tool}")
            self.mouse.release((-2.5, 2))
            self.gating.undo()

    def tree(self) -> None:
        """Gates several levels deep, coloured by gate, with the tables of the chosen one."""
        add = self.gating.add
        add(EllipseGate(name="Lymphoid", axes=XY, center=(-5, -0.5), half_axes=(3.2, 2.2), angle=25), "")
        lymphoid = self.session.gate
        self.draw("L", *around(4.4, 1.8, 3.9))
        granulocytes = self.session.gate
        self.gating.rename(granulocytes, "Granulocytes")
        corners = [(3.2, 2.7), (7, 2.7), (6.5, 6.5), (3.6, 6.4)]
        eosinophils = add(PolygonGate(name="Eosinophils", axes=XY, vertices=corners), granulocytes)
        sure = add(RangeGate(name="Sure", axes=("confidence",), range_min=0.85), eosinophils)
        add(
            RectangleGate(name="Large", axes=("area_px", "nc_ratio"), range_min=(13000, None), range_max=(None, 0.5)),
            sure,
        )
        add(EllipseGate(name="Monocytes", axes=XY, center=(-1, -4), half_axes=(2.4, 2)), "")
        both = BooleanGate(name="Lymphoid or eosinophils", bool_type="or", gate_refs=[lymphoid, eosinophils])
        add(both, "")
        self.keys = {"granulocytes": granulocytes, "eosinophils": eosinophils, "sure": sure}
        self.session.gate = granulocytes
        self.session.axes = XY
        self.mouse.key(Qt.Key.Key_V)
        self.studio.shoot("map-10-tree")
        self.session.colour_by = "gate"
        self.studio.shoot("map-11-by-gate")
        for at, name in enumerate(("means", "counts"), start=12):
            self.widget.gates.details.tabs.setCurrentIndex(at - 11)
            self.studio.shoot(f"map-{at}-{name}")
        self.widget.gates.details.tabs.setCurrentIndex(0)

    def parts(self) -> None:
        """Selection, legend, population, another pair of axes, colours by a number."""
        self.session.colour_by = "class"
        self.draw("S", *around(-5, -0.5, 1.2))
        self.studio.shoot("map-14-selected")
        self.session.select()
        self.mouse.key(Qt.Key.Key_V)
        self.view.legend.list.item(0).setCheckState(Qt.CheckState.Unchecked)
        self.studio.shoot("map-15-legend")
        self.view.legend.show_all()
        self.session.population = self.keys["granulocytes"]
        self.studio.shoot("map-16-population")
        self.session.population = ""
        self.session.colour_by = "confidence"
        self.studio.shoot("map-17-by-number")
        self.session.colour_by = "density"
        self.studio.shoot("map-18-by-density")
        self.session.colour_by = "class"
        self.session.gate = ""
        self.session.axes = ("area_px", "nc_ratio")
        self.view.canvas.fit()
        self.mouse.key(Qt.Key.Key_Q)
        self.mouse.click((13000, 0.5))
        self.studio.shoot("map-19-quadrants")
        self.mouse.key(Qt.Key.Key_V)

    def compare(self) -> None:
        """Two groups of patients."""
        from screenshots import pump, rest

        self.session.axes = XY
        panel = self.widget.gates
        panel.act("compare")
        dialog = panel.compared
        patients = sorted(set(self.view.table["patient"]))
        dialog.take({patient: "few" if patient.startswith("B") else "many" for patient in patients})
        dialog.compare()
        pump(lambda: self.session.job is None and dialog.save.isEnabled())
        rest(0.5)
        dialog.grab().save(str(self.studio.folder / "map-20-compare.png"))
        dialog.close()

    def dense(self) -> None:
        """More cells than are drawn one by one."""
        self.session.gate = ""
        self.show(many_cells(self.place / "many.dinobloom"))
        self.gating.add(EllipseGate(name="Lymphoid", axes=XY, center=(-5, -0.5), half_axes=(3.2, 2.2), angle=25), "")
        self.studio.shoot("map-21-dense")


SCENES: tuple[str, ...] = ("empty", "hover", "drawing", "tree", "parts", "compare", "dense")


def map_window(studio: Studio, _image: Path | None, place: Path) -> None:
    """Map and gates: all scenes, one after the other."""
    scenes: Any = Scenes(studio, place)
    for name in SCENES:
        scene: Callable[[], None] = getattr(scenes, name)
        scene()
