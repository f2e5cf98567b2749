"""How fast the window answers: first widget, longest stall during a run, recolouring 5,000 cells at 4096 x 4096.

Run it with ``xvfb-run -a python benchmarks/window.py``; writes ``benchmarks/results/window.json``. The stall is the
longest time between two turns of the event loop; the part of it that napari needs for its own drawing is not taken off.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import napari
import numpy as np
import pandas as pd
from machine import RESULTS, machine
from napari.layers import Labels
from qtpy.QtWidgets import QApplication

from napari_dinobloom.ui import layers
from napari_dinobloom.ui.session import session_of

CLASSES = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")


def milliseconds(begun: float) -> float:
    """Time since `begun`."""
    return round(1000 * (time.perf_counter() - begun), 1)


def stalls(until: object) -> list[float]:
    """Milliseconds of each turn of the event loop while `until` is not yet true."""
    turns = []
    while not until():  # type: ignore[operator]
        begun = time.perf_counter()
        QApplication.processEvents()
        turns.append(milliseconds(begun))
        time.sleep(0.002)
    return turns


def recolouring(viewer: napari.Viewer) -> dict[str, float]:
    """Time to give 5,000 cells new colours, and of the draw beside it."""
    side, step = 4096, 57
    labels = np.zeros((side, side), np.uint16)
    corners = [(y, x) for y in range(0, side - step, step) for x in range(0, side - step, step)][:5000]
    for number, (y, x) in enumerate(corners, start=1):
        labels[y : y + 40, x : x + 40] = number
    names = np.random.default_rng(0).choice(CLASSES, size=len(corners))
    features = pd.DataFrame({"index": np.arange(1, len(corners) + 1)})
    colormap = layers.lookup(features["index"].to_numpy(), names, {})
    layer: Labels = viewer.add_labels(labels, features=features, colormap=colormap)
    viewer.screenshot(flash=False)
    begun = time.perf_counter()
    layers.recolour(layer, names[::-1], {})
    recolour = milliseconds(begun)
    begun = time.perf_counter()
    viewer.screenshot(flash=False)
    return {"recolour_ms": recolour, "draw_ms": milliseconds(begun)}


def main() -> None:
    """Measure and write."""
    viewer = napari.Viewer(show=True)
    begun = time.perf_counter()
    _, widget = viewer.window.add_plugin_dock_widget("napari-dinobloom", "Count white cells")
    QApplication.processEvents()
    figures: dict[str, object] = {"first_widget_ms": milliseconds(begun), "torch_imported": "torch" in sys.modules}
    viewer.open_sample("napari-dinobloom", "generated")
    session = session_of(viewer)
    with tempfile.TemporaryDirectory() as place:
        for name in ("first_run", "second_run"):
            widget.form.folder.setText(str(Path(place) / "smear.dinobloom"))
            begun = time.perf_counter()
            widget.job.start.click()
            turns = stalls(lambda: session.job is None)
            longest = sorted(turns)[-3:][::-1]
            figures[name] = {"seconds": round(milliseconds(begun) / 1000, 2), "longest_turns_ms": longest}
        session.close_study()
    viewer.layers.clear()
    figures |= recolouring(viewer)
    RESULTS.mkdir(exist_ok=True)
    result = {"machine": machine(), "napari": napari.__version__, **figures}
    (RESULTS / "window.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))
    viewer.close()


if __name__ == "__main__":
    main()
