"""A map of 400 cells on the screen, and a mouse for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from napari.components import ViewerModel
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_dinobloom.io.celltable import complete
from napari_dinobloom.io.study import Study
from napari_dinobloom.ui.map.view import MapView
from napari_dinobloom.ui.session import Session

LEFT = Qt.MouseButton.LeftButton


def map_study(path: Path, n: int = 400) -> Study:
    """Half of the cells lie around (-3, 0) and are lymphocytes, half around (3, 0), neutrophils."""
    random = np.random.default_rng(0)
    right = np.arange(n) % 2 == 1
    obs = {
        "cell_id": [f"f:{i + 1:05d}" for i in range(n)],
        "field": "f",
        "patient": [f"p{i // 2 % 8}" for i in range(n)],
        "slide": [f"p{i // 2 % 8}-1" for i in range(n)],
        "area_px": random.integers(200, 600, n),
        "predicted": np.where(right, "neutrophil_segmented", "lymphocyte"),
        "confidence": random.random(n),
    }
    study = Study.create(path)
    adata = AnnData(X=np.zeros((n, 6), np.float32), obs=complete(pd.DataFrame(obs)))
    adata.obsm["X_umap"] = (random.normal(size=(n, 2)) + np.c_[np.where(right, 3, -3), np.zeros(n)]).astype("f4")
    adata.uns["dinobloom"] = {"projection": {"kind": "umap", "hash": "ab" * 32}}
    study.save_cells(adata)
    return study


class Mouse:
    """Real mouse and key events on a map, at places given in the units of its axes."""

    def __init__(self, view: MapView) -> None:
        self.view, self.native = view, view.canvas.native

    def at(self, x: float, y: float) -> QPoint:
        return QPoint(*(round(v) for v in self.view.canvas.to_pixel((x, y))))

    def drag(self, *path: tuple[float, float], release: bool = True) -> None:
        QTest.mousePress(self.native, LEFT, Qt.KeyboardModifier.NoModifier, self.at(*path[0]))
        for point in path[1:]:
            self._moved(point, LEFT)
        if release:
            QTest.mouseRelease(self.native, LEFT, Qt.KeyboardModifier.NoModifier, self.at(*path[-1]))
        self.settle()

    def move(self, x: float, y: float) -> None:
        self._moved((x, y))

    def _moved(self, point: tuple[float, float], held: Qt.MouseButton = Qt.MouseButton.NoButton) -> None:
        """Send a movement and wait until it is dealt with; vispy passes over those within 10 ms of each other."""
        QTest.qWait(12)
        at, far = QPointF(self.at(*point)), QPointF(self.native.mapToGlobal(self.at(*point)))
        move = QMouseEvent(
            QEvent.Type.MouseMove, at, far, Qt.MouseButton.NoButton, held, Qt.KeyboardModifier.NoModifier
        )
        QApplication.sendEvent(self.native, move)
        self.settle()

    def click(self, x: float, y: float, *, shift: bool = False) -> None:
        held = Qt.KeyboardModifier.ShiftModifier if shift else Qt.KeyboardModifier.NoModifier
        QTest.mouseClick(self.native, LEFT, held, self.at(x, y))
        self.settle()

    def double(self, x: float, y: float) -> None:
        QTest.mouseDClick(self.native, LEFT, Qt.KeyboardModifier.NoModifier, self.at(x, y))
        self.settle()

    def key(self, key: Qt.Key, held: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
        QTest.keyClick(self.native, key, held)
        self.settle()

    def settle(self) -> None:
        app = QApplication.instance()
        assert app is not None
        app.processEvents()


@pytest.fixture
def make_map(qtbot, tmp_path: Path) -> Iterator[Callable[..., SimpleNamespace]]:
    """Return a function that shows a study on a map."""
    made: list[tuple[MapView, Session]] = []

    def make(study: Study | None = None) -> SimpleNamespace:
        session, opened = Session(), []
        study = map_study(tmp_path / "s.dinobloom") if study is None else study
        session.show(study)
        view = MapView(ViewerModel(), session, opened.append)
        qtbot.addWidget(view)
        view.resize(760, 560)
        view.show()
        qtbot.waitExposed(view)
        QApplication.processEvents()
        view.canvas.fit()
        made.append((view, session))
        return SimpleNamespace(view=view, session=session, study=study, opened=opened, mouse=Mouse(view))

    yield make
    for view, session in made:
        view.detach()
        session.close_study()
