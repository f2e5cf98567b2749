"""Pictures of the pages of a report for the docs, of generated smears only.

``python benchmarks/screenshots_report.py pages FOLDER`` writes the pages of the study of `screenshots_predict.py`,
after a model of patients was trained on it. ``xvfb-run -a -s "-screen 0 1400x1100x24" python
benchmarks/screenshots_report.py shoot FOLDER IMAGES`` takes the pictures in Chromium; it needs nothing but
``PyQt6-WebEngine`` and ``pypdfium2``, which the package does not depend on, so that a Python of its own can run it.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

READER = "Reader 1"
PAGES = {"report-patient": ("A1.html", ""), "report-cohort": ("cohort.html", "patients")}
"""Picture, and the page with the part of it that is shown; one that is shown from its top is printed too."""
SCREEN = (1280, 1000)
WAIT = 1500
"""Milliseconds until a page is drawn."""


def pages(folder: Path) -> None:
    """Make the study and its pages."""
    from screenshots_predict import drawn_study

    from napari_dinobloom.pipeline.crops import iter_crop_study
    from napari_dinobloom.pipeline.patient_groups import keep_groups
    from napari_dinobloom.pipeline.patient_reports import patient_reports
    from napari_dinobloom.pipeline.patients import iter_train_patients
    from napari_dinobloom.pipeline.settings import resolve
    from napari_dinobloom.progress import drain

    with drawn_study(folder / "Generated.dinobloom") as study:
        study.update(settings={"atlas": "none"})
        drain(iter_crop_study(study, resolve(study.settings, {})))
        adata = study.cells
        adata.obs["abstained"] = (adata.obs["confidence"] < 0.6).to_numpy()
        study.save_cells(adata)
        mine = adata.obs_names[(adata.obs["patient"] == "A1").to_numpy()]
        study.label(mine[:9], [str(name) for name in adata.obs.loc[mine[:9], "predicted"]], who=READER)
        study.label(mine[9:11], "blast", who=READER)
        groups = {str(name): f"group {str(name)[0]}" for name in adata.obs["patient"].unique()}
        keep_groups(study, groups)
        drain(iter_train_patients(study, groups, folds=3, repeats=2, permutations=2))
        for pseudonyms in (False, True):
            made = patient_reports(study, pseudonyms=pseudonyms)
            sys.stdout.write("\n".join(map(str, made.paths)) + "\n")


def shoot(folder: Path, images: Path) -> None:
    """Take a picture of each page on screen, and of its first page on paper."""
    os.environ.setdefault("QTWEBENGINE_DISABLE_SANDBOX", "1")
    os.environ.setdefault("QTWEBENGINE_CHROMIUM_FLAGS", "--disable-gpu")
    from PyQt6.QtCore import QMarginsF, QTimer, QUrl
    from PyQt6.QtGui import QPageLayout, QPageSize
    from PyQt6.QtWebEngineWidgets import QWebEngineView
    from PyQt6.QtWidgets import QApplication

    app, view = QApplication(sys.argv[:1]), QWebEngineView()
    view.resize(*SCREEN)
    view.show()
    margins = QMarginsF(14, 14, 14, 17)  # those of the style sheet, which Qt does not read
    paper = QPageLayout(
        QPageSize(QPageSize.PageSizeId.A4), QPageLayout.Orientation.Portrait, margins, QPageLayout.Unit.Millimeter
    )
    left = list(PAGES.items())

    def go() -> None:
        if left:
            file, part = left[0][1]
            url = QUrl.fromLocalFile(str((folder / "Generated.dinobloom" / "reports" / file).resolve()))
            url.setFragment(part)
            view.load(url)
        else:
            app.quit()

    def loaded(_: bool) -> None:
        QTimer.singleShot(WAIT, take)

    def take() -> None:
        name, (_, part) = left[0]
        view.grab().save(str(images / f"{name}-screen.png"))
        if part:
            after()
        else:
            view.page().printToPdf(str(images / f"{name}.pdf"), paper)

    def printed(path: str, _: bool) -> None:
        first_page(Path(path))
        after()

    def after() -> None:
        left.pop(0)
        go()

    view.loadFinished.connect(loaded)
    view.page().pdfPrintingFinished.connect(printed)
    go()
    app.exec()


def first_page(path: Path) -> None:
    """Draw the first page of a PDF as PNG and delete the PDF."""
    import pypdfium2

    document: Any = pypdfium2.PdfDocument(path)
    document[0].render(scale=1.5).to_pil().save(path.with_suffix(".png"), optimize=True)
    document.close()
    path.unlink()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["pages", "shoot"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("images", type=Path, nargs="?")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.what == "pages":
        pages(given.folder)
    else:
        shoot(given.folder, given.images or given.folder)


if __name__ == "__main__":
    main()
