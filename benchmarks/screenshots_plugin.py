"""Pictures of the windows for study, encoder, patches and report; `screenshots.py` has the program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.io.smear import write_picture
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import run


def smears(folder: Path, fields: int = 2) -> Path:
    """Write generated smears of two patients, and a file that is no picture; return their folder."""
    for patient, seed in (("anna", 1), ("bert", 2)):
        (folder / patient).mkdir(parents=True)
        for number in range(fields):
            smear = generate_smear(10 * seed + number, n_white=8)
            write_picture(folder / patient / f"{patient}{number + 1}.png", smear.image, smear.pixel_size_um)
    (folder / "bert" / "torn.png").write_bytes(b"no picture at all")
    return folder


def study_window(studio: Any, image: Path | None, place: Path) -> None:
    """Study: empty, new, images to come, working, done with one that failed, out of date, held by another."""
    from screenshots import pump, rest

    from napari_dinobloom.ui import study_job

    widget = studio.dock("Study (start here)")
    studio.shoot("1-empty")
    folder = smears(place / "smears")
    study_job.start_create(studio.viewer, studio.session, place / "leukaemia.dinobloom", "blood")
    pump(lambda: studio.session.job is None)
    widget.inputs.add([str(folder)])
    pump(lambda: not widget.inputs.lookup.busy)
    studio.shoot("2-images")
    widget.job.start.click()
    pump(lambda: studio.session.progress is not None and studio.session.progress.step == "embed", 600)
    studio.shoot("3-working")
    pump(lambda: studio.session.job is None, 900)
    rest(1)
    studio.shoot("4-done")
    widget.steps.specimen.setCurrentIndex(1)
    studio.session.study.exclude(list(studio.session.study.cells.obs_names[:2]))
    studio.session.revision += 1
    rest(1)
    studio.shoot("5-out-of-date")
    study_job.close(studio.viewer, studio.session)
    with Study.open(place / "leukaemia.dinobloom"):
        widget.header.open_path(place / "leukaemia.dinobloom")
        pump(lambda: studio.session.job is None)
        rest(1)
        studio.shoot("6-held")
    study_job.close(studio.viewer, studio.session)
    widget.header.open_path(place / "nothing.dinobloom")
    pump(lambda: studio.session.job is None)
    studio.shoot("7-error")


def finished(place: Path) -> Path:
    """A finished study of one generated smear."""
    smear = generate_smear(seed=7)
    (place / "smears").mkdir()
    write_picture(place / "smears" / "field.png", smear.image, smear.pixel_size_um)
    run(place / "smears", place / "smear.dinobloom").close()
    return place / "smear.dinobloom"


def embed_window(studio: Any, image: Path | None, place: Path) -> None:
    """Embed: empty, an encoder that is not here, terms, working, done, a device that is not there."""
    from screenshots import pump, rest

    from napari_dinobloom.ui import study_job

    path = finished(place)
    widget = studio.dock("Embed")
    studio.shoot("1-empty")
    study_job.start_open(studio.viewer, studio.session, path)
    pump(lambda: studio.session.job is None)
    rest(1)
    studio.shoot("2-study")
    widget.form.encoder.setCurrentIndex(widget.form.encoder.findData("DinoBloom-B"))
    studio.shoot("3-absent")
    widget.form.encoder.setCurrentIndex(widget.form.encoder.findData("Phikon"))
    studio.shoot("4-terms")
    widget.form.encoder.setCurrentIndex(0)
    widget.form.boxes["pooling"].setCurrentIndex(2)
    widget.job.start.click()
    pump(lambda: studio.session.progress is not None)
    studio.shoot("5-working")
    pump(lambda: studio.session.job is None, 300)
    rest(1)
    studio.shoot("6-done")
    widget.form.boxes["device"].setCurrentText("cuda:7")
    widget.job.start.click()
    pump(lambda: studio.session.job is None, 300)
    studio.shoot("7-error")


def patches_window(studio: Any, image: Path | None, place: Path) -> None:
    """Patches: empty, a study, working, colours, similarity, all patches, nothing selected."""
    from qtpy.QtCore import QPoint
    from screenshots import pump, rest

    from napari_dinobloom.ui import study_job

    path = finished(place)
    widget = studio.dock("Patches")
    studio.shoot("1-empty")
    study_job.start_open(studio.viewer, studio.session, path)
    pump(lambda: studio.session.job is None)
    rest(1)
    widget.job.start.click()
    pump(lambda: studio.session.progress is not None)
    studio.shoot("2-working")
    pump(lambda: studio.session.job is None, 300)
    studio.shoot("3-colours")
    spot = widget.sheet.spots[0].rect
    widget.sheet.picked.emit(*widget.sheet.patch_at(spot.center() + QPoint(3, 3)))
    studio.shoot("4-similar")
    widget.buttons["colours"].click()
    widget.rule.setCurrentIndex(0)
    pump(lambda: studio.session.job is None, 300)
    studio.shoot("5-all-patches")
    widget.scope.setCurrentIndex(1)
    studio.shoot("6-nothing-selected")


def report_window(studio: Any, image: Path | None, place: Path) -> None:
    """Report: empty, a study, working, pages written, exported, held by another."""
    from screenshots import pump, rest

    from napari_dinobloom.ui import reporting, study_job

    path = finished(place)
    widget = studio.dock("Report")
    studio.shoot("1-empty")
    study_job.start_open(studio.viewer, studio.session, path)
    pump(lambda: studio.session.job is None)
    rest(1)
    studio.shoot("2-study")
    for box in widget.pages.values():
        box.setChecked(True)
    widget.job.start.click()
    pump(lambda: studio.session.progress is not None)
    studio.shoot("3-working")
    pump(lambda: studio.session.job is None, 300)
    rest(1)
    studio.shoot("4-written")
    for box in widget.exports.values():
        box.setChecked(True)
    reporting.start_export(studio.session, place / "exported", list(widget.exports))
    pump(lambda: studio.session.job is None, 300)
    studio.shoot("5-exported")
    study_job.close(studio.viewer, studio.session)
    with Study.open(path):
        study_job.start_open(studio.viewer, studio.session, path)
        pump(lambda: studio.session.job is None)
        rest(1)
        studio.shoot("6-held")


def sample_window(studio: Any, image: Path | None, place: Path) -> None:
    """The sample study with its map, and the windows of its steps as tabs beside each other."""
    from screenshots import pump, rest

    studio.dock("Map and gates")
    widget = studio.dock("Study (start here)")
    studio.viewer.open_sample("napari-dinobloom", "ready_study")
    pump(lambda: studio.session.study is not None and studio.session.job is None, 900)
    rest(2)
    studio.shoot("1-opened")
    widget.steps.buttons["report"].click()
    studio.shoot("2-report")


def preferences_window(studio: Any, image: Path | None, place: Path) -> None:
    """The plugin's page of napari's preferences."""
    from napari._qt.dialogs.preferences_dialog import PreferencesDialog
    from screenshots import rest

    dialog = PreferencesDialog(studio.viewer.window._qt_window)
    dialog.show()
    rows = range(dialog._list.count())
    dialog._list.setCurrentRow(next(row for row in rows if dialog._list.item(row).text() == "DinoBloom"))
    rest(1)
    dialog.grab().save(str(studio.folder / "1-page.png"))
    dialog.close()


WINDOWS = {
    "study": study_window,
    "embed": embed_window,
    "patches": patches_window,
    "report": report_window,
    "sample": sample_window,
    "preferences": preferences_window,
}
"""Windows by the name that the program takes."""
