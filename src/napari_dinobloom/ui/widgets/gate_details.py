"""What is in the chosen gate: its classes, its mean measurements, and its share in each patient and slide."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QTabWidget, QVBoxLayout, QWidget

from napari_dinobloom.cells.taxonomy import describe
from napari_dinobloom.explore.gate_statistics import GateTables
from napari_dinobloom.ui.texts import measure_title, text, tip
from napari_dinobloom.ui.widgets.frame_table import FrameTable, Shown, figure, span

TABS = ("classes", "means", "counts")

CLASSES = (
    Shown("gates.class", lambda row: describe(row["class"]).title, "class", right=False),
    Shown("gates.cells", lambda row: f"{row['n']:,}", "n"),
    Shown("gates.percent", lambda row: figure(row["percent"]), "percent"),
    Shown("gates.interval", lambda row: span(row["low"], row["high"]), "low"),
)
MEANS = (
    Shown("gates.measurement", lambda row: measure_title(row["measurement"]), "measurement", right=False),
    Shown("gates.mean", lambda row: figure(row["mean"], 2 if abs(row["mean"]) < 100 else 0), "mean"),
    Shown("gates.known", lambda row: f"{row['n']:,}", "n"),
)
COUNTS = (
    Shown("gates.place", lambda row: place(row), "patient", right=False),
    Shown("gates.cells", lambda row: f"{row['n']:,}", "n"),
    Shown("gates.of_parent", lambda row: figure(row["percent_of_parent"]), "percent_of_parent"),
    Shown("gates.interval", lambda row: span(row["parent_low"], row["parent_high"]), "parent_low"),
    Shown("gates.of_all_cells", lambda row: figure(row["percent_of_all"]), "percent_of_all"),
)


class GateDetails(QWidget):
    """Three tables of one gate."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.tables = {name: FrameTable(columns) for name, columns in zip(TABS, (CLASSES, MEANS, COUNTS), strict=True)}
        self.tabs = QTabWidget()
        self.tabs.setAccessibleName(text("gates.details"))
        for at, name in enumerate(TABS):
            self.tabs.addTab(self.tables[name], text(f"gates.tab.{name}"))
            self.tabs.setTabToolTip(at, tip(f"gates.tab.{name}"))
        self.none = QLabel()
        self.none.setWordWrap(True)
        self.none.setTextFormat(Qt.TextFormat.PlainText)
        self.none.setAlignment(Qt.AlignmentFlag.AlignTop)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.none)
        column.addWidget(self.tabs, 1)

    def fill(self, tables: GateTables | None, key: str, palette: Mapping[str, str]) -> None:
        """Show the gate `key`, or ask to choose one.

        Parameters
        ----------
        tables : GateTables or None
            Of the tree.
        key : str
            The gate; "" for none.
        palette : mapping of str to str
            ``#rrggbb`` by class; classes without an entry take that of the taxonomy.
        """
        there = tables is not None and bool((tables.counts["key"] == key).any())
        self.tabs.setVisible(there)
        self.none.setVisible(not there)
        self.none.setText(text("gates.choose"))
        if tables is None or not there:
            return
        mine = {name: _of(getattr(tables, name), key) for name in TABS}
        classes, means, counts = (mine[name] for name in TABS)
        classes = classes[classes["level"] == "all"].sort_values("n", ascending=False, kind="stable")
        colours = [palette.get(name) or describe(name).colour for name in classes["class"]]
        self.tables["classes"].fill(classes, colours)
        self.tables["means"].fill(means[(means["level"] == "all") & (means["n"] > 0)])
        self.tables["counts"].fill(_by_place(counts[counts["level"] != "all"]))


def place(row: Mapping[str, object]) -> str:
    """A patient, or a slide below its patient."""
    return f"    {row['slide']}" if row["slide"] else str(row["patient"])


def _of(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    return frame[frame["key"] == key]


def _by_place(counts: pd.DataFrame) -> pd.DataFrame:
    """Each patient, and below it its slides where there are several."""
    slides = counts[counts["level"] == "slide"].groupby("patient")["slide"].transform("size")
    alone = slides.index[slides == 1]
    return counts.drop(index=alone).sort_values(["patient", "slide"], kind="stable")
