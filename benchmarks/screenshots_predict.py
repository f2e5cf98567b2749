"""Scenes of the Classify, Patients and Gallery windows for `screenshots.py`, on generated smears.

Classify: eight smears that went the whole way with the starter encoder. Patients: the smears of `screenshots_map.py`,
half of whose patients have fewer neutrophils, with embeddings drawn around one point for each class; a model is trained
on them. The gallery shows the same cells.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData
from qtpy.QtCore import Qt
from screenshots_map import smear_study

from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.io.smear import write_picture
from napari_dinobloom.io.study import Study

if TYPE_CHECKING:
    from screenshots import Studio

WIDTH = 0.36
"""Share of the window that the dock gets."""


def run_study(place: Path, fields: int = 8) -> Path:
    """Generated smears that went the whole way up to their map."""
    from napari_dinobloom.pipeline.driver import iter_outcome
    from napari_dinobloom.progress import drain

    for at in range(fields):
        smear = generate_smear(at, n_white=12, width=720, height=540)
        file = place / f"slide-{at // 2 + 1}" / f"field-{at % 2 + 1}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_picture(file, smear.image, smear.pixel_size_um)
    path = place / "run.dinobloom"
    drain(iter_outcome([place], path, until="map", map_method="pca"))
    return path


def classify_window(studio: Studio, _image: Path | None, place: Path) -> None:
    """Classify: empty, chosen, named, a cell in focus, labels given, next to label with the gallery beside it."""
    from screenshots import pump, rest

    session = studio.session
    dock, widget = studio.viewer.window.add_plugin_dock_widget("napari-dinobloom", "Classify")
    studio.shoot("classify-1-empty")
    window = dock.window()
    window.resizeDocks([dock], [int(WIDTH * window.width())], Qt.Orientation.Horizontal)
    studio.viewer.open(run_study(place), plugin="napari-dinobloom")
    pump(lambda: session.study is not None and session.job is None)
    rest(1)
    studio.shoot("classify-2-chosen")
    widget.job.start.click()
    pump(lambda: session.job is None)
    obs = session.study.cells.obs
    sure = obs.index[~obs["abstained"]]
    session.select(str(sure[0]))
    pump(lambda: not widget.cell.lookup.busy)
    studio.shoot("classify-3-named")
    unsure = obs.index[obs["abstained"]]
    session.select(str(unsure[0] if len(unsure) else sure[-1]))
    pump(lambda: not widget.cell.lookup.busy)
    studio.shoot("classify-4-unsure")
    truth = {name: list(obs.index[obs["predicted"] == name][:3]) for name in sorted(set(obs["predicted"]))}
    for name, cells in truth.items():
        session.study.label(cells, name)
    session.revision += 1
    widget.labels.name.setText("generated")
    scroll_to_end(widget)
    studio.shoot("classify-5-labels")
    studio.viewer.window.add_plugin_dock_widget("napari-dinobloom", "Gallery", tabify=True)
    widget.labels.next.click()
    pump(lambda: session.job is None)
    rest(1)
    studio.shoot("classify-6-next")


def drawn_study(path: Path) -> Study:
    """The smears of the map, with embeddings drawn around one point for each class."""
    study, random = smear_study(path), np.random.default_rng(0)
    before = study.cells
    names = sorted(set(before.obs["predicted"]))
    centres = random.normal(scale=2.0, size=(len(names), 32))
    at = [names.index(name) for name in before.obs["predicted"]]
    x = (centres[at] + random.normal(size=(len(at), 32))).astype(np.float32)
    notes = {"encoder": "drawn", "encoder_sha256": "0" * 64, "pooling": "class"}
    uns = {"dinobloom": dict(before.uns["dinobloom"]) | notes}
    adata = AnnData(X=x, obs=before.obs, obsm=dict(before.obsm), uns=uns)
    study.save_cells(adata)
    study.finish_step("embed", "drawn", ("cells.h5ad",))
    return study


def patients_window(studio: Studio, _image: Path | None, place: Path) -> None:
    """Patients: empty, groups given, trained, a patient with its top cells, attention on map, image and gallery."""
    from screenshots import pump, rest

    session = studio.session
    dock, widget = studio.viewer.window.add_plugin_dock_widget("napari-dinobloom", "Patients")
    studio.shoot("patients-1-empty")
    window = dock.window()
    window.resizeDocks([dock], [int(WIDTH * window.width())], Qt.Orientation.Horizontal)
    session.show(drawn_study(place / "smears.dinobloom"))
    groups = {one: "few" if one.startswith("B") else "many" for one in widget.cohort.cells().index}
    widget.cohort.put(groups)
    widget.refresh()
    studio.shoot("patients-2-groups")
    widget.cohort.train(preset="gated", folds=3, repeats=1, permutations=1, epochs=10, members=2)  # a short one
    pump(lambda: session.progress is not None)
    studio.shoot("patients-3-training")
    pump(lambda: session.job is None, 600)
    studio.shoot("patients-4-trained")
    widget.table.choose("B1")
    widget.attention.colour.click()
    scroll_to_end(widget)
    studio.shoot("patients-5-attention")
    for number, title in ((6, "Map and gates"), (7, "Gallery")):
        studio.viewer.window.add_plugin_dock_widget("napari-dinobloom", title, tabify=True)
        widget.attention.select()
        rest(1)
        studio.shoot(f"patients-{number}-{title.split()[0].lower()}")


def gallery_window(studio: Studio, _image: Path | None, place: Path) -> None:
    """Gallery alone: empty, all cells, some selected, one class, cells of a gate that is empty, two readers."""
    from screenshots import pump, rest

    session = studio.session
    widget = studio.dock("Gallery")
    studio.shoot("gallery-1-empty")
    study = drawn_study(place / "smears.dinobloom")
    session.show(study)
    rest(1)
    pump(lambda: not widget.thumbnails.busy)
    studio.shoot("gallery-2-cells")
    cells = [str(cell) for cell in study.cells.obs.index]
    study.label(cells[:6], "blast")
    study.label(cells[3:9], "monocyte", who="second")
    session.revision += 1
    session.select(*cells[:4])
    rest(1)
    pump(lambda: not widget.thumbnails.busy)
    studio.shoot("gallery-3-selected")
    for number, at in ((4, widget.choice.show_.count() - 1), (5, 2)):
        widget.choice.show_.setCurrentIndex(at)
        rest(1)
        pump(lambda: not widget.thumbnails.busy)
        studio.shoot(f"gallery-{number}-{'class' if number == 4 else 'none'}")
    widget.choice.show_.setCurrentIndex(0)
    widget.tabs.setCurrentIndex(1)
    rest(1)
    studio.shoot("gallery-6-readers")


def scroll_to_end(widget: object) -> None:
    """Bring the last part of a column into sight."""
    from qtpy.QtWidgets import QScrollArea, QWidget

    if isinstance(widget, QWidget):
        bar = widget.findChildren(QScrollArea)[0].verticalScrollBar()
        if bar is not None:
            bar.setValue(bar.maximum())
