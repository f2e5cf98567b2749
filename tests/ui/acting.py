"""Somebody at a viewer in a process of their own, who labels, gates, corrects and groups until the process is killed.

    python acting.py STUDY [TEAR]

After each act it prints what the study holds then, as one line. With TEAR the process kills itself within that act,
when half of its line in the journal is on the disk.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path
from typing import Any

from napari_dinobloom.explore.gates import RangeGate
from napari_dinobloom.explore.study_gates import StudyGates
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline.patient_groups import groups_of


def state(study: Study) -> dict[str, Any]:
    """What people said of a study."""
    obs = study.cells.obs
    return {
        "acts": len(study.acts),
        "label": obs["label"].tolist(),
        "reviewed": obs["reviewed"].tolist(),
        "deleted": obs["deleted"].tolist(),
        "excluded": obs["excluded"].tolist(),
        "cells": [len(study.masks(record.id)) for record in study.fields],
        "gates": StudyGates(study).tree.to_dict(),
        "groups": groups_of(study),
    }


def act(session: Any, correction: Any, number: int) -> None:
    """Do the act of this number."""
    from napari_dinobloom.ui.gating import gating_of
    from napari_dinobloom.ui.patients import cohort_of

    obs = session.study.cells.obs
    living = obs.index[~obs["deleted"].to_numpy(bool)]
    session.select(str(living[number % len(living)]))
    kind = number % 6
    if kind == 0:
        correction.label(("monocyte", "blast", "")[number // 6 % 3])
    elif kind == 1:
        gating_of(session).add(RangeGate(name=f"gate {number}", axes=("x0",), range_min=float(number % 50)))
    elif kind == 2:
        correction.delete()
    elif kind == 3:
        cohort_of(session).put({"patient1": f"group {number}"})
    elif kind == 4:
        correction.exclude()
    else:
        correction.undo()


def tear(at: int) -> None:
    """Have the line of an act written in half, and this process killed."""
    import psutil

    from napari_dinobloom.io import journal

    class Torn:
        """A file that takes half of a line."""

        def __init__(self, handle: Any) -> None:
            self._handle = handle

        def __enter__(self) -> Torn:
            return self

        def __exit__(self, *_: object) -> None:
            self._handle.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._handle, name)

        def write(self, line: bytes) -> None:
            written.append(line)
            if len(written) < at:
                self._handle.write(line)
                return
            self._handle.write(line[: len(line) // 2])
            self._handle.flush()
            psutil.Process().kill()
            time.sleep(60)

    written: list[bytes] = []
    journal.open = lambda *args: Torn(open(*args))  # type: ignore[attr-defined]  # noqa: SIM115


def main() -> None:
    """Open the study in a viewer, and act."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_dinobloom.ui import study_job
    from napari_dinobloom.ui.correction import Correction
    from napari_dinobloom.ui.session import session_of

    viewer = napari.Viewer(show=False)
    session = session_of(viewer)
    study_job.start_open(viewer, session, Path(sys.argv[1]))
    while session.job is not None:
        QApplication.processEvents()
        time.sleep(0.005)
    correction = Correction(viewer, session)
    if len(sys.argv) > 2:
        tear(int(sys.argv[2]))
    for number in itertools.count():
        act(session, correction, number)
        QApplication.processEvents()
        print(json.dumps(state(session.study)), flush=True)  # noqa: T201 - it is how it says what is done


if __name__ == "__main__":
    main()
