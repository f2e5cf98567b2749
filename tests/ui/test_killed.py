"""A viewer whose process is killed: every act that was finished is there, and can be taken back."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from acting import state
from napari.components import ViewerModel

from napari_dinobloom.io.study import Study
from napari_dinobloom.ui import study_job
from napari_dinobloom.ui.correction import Correction
from napari_dinobloom.ui.session import session_of

pytestmark = pytest.mark.gui

Acting = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def acting(make_study: Callable[..., Study]) -> tuple[Path, Acting]:
    """A study of eighteen cells, and a function that has somebody act on it in another process, which is killed."""
    study = make_study(*range(6))
    path = study.path
    study.close()
    script = str(Path(__file__).with_name("acting.py"))

    def act(*, until: int = 0, tear: int = 0) -> list[dict[str, Any]]:
        words = [sys.executable, script, str(path), *([str(tear)] if tear else [])]
        done: list[dict[str, Any]] = []
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            limit = threading.Timer(120, process.kill)  # of one that hangs, the test fails
            limit.start()
            for line in process.stdout:
                if line.endswith("\n"):
                    done.append(json.loads(line))
                if until and len(done) == until:
                    process.kill()  # what it has printed until it is dead is read, too
            limit.cancel()
        assert done, "it never began"
        return done

    return path, act


def test_no_finished_act_is_lost(acting: tuple[Path, Acting], qtbot: Any) -> None:
    path, act = acting
    before = act(until=20)
    with Study.open(path) as study:
        assert not study.read_only, "the lock of a process that is dead is taken over"
        found = state(study)
        if found["acts"] > before[-1]["acts"]:  # it was on the disk, and it was killed before it could say so
            assert found["acts"] == before[-1]["acts"] + 1
        else:
            assert found == before[-1]
    done = act(tear=8)
    assert done[0]["acts"] == found["acts"] + 1
    assert len(done) == 7
    viewer = ViewerModel()
    session = session_of(viewer)
    study_job.start_open(viewer, session, path)
    qtbot.waitUntil(lambda: session.job is None, timeout=20_000)
    study = session.study
    assert study is not None
    assert not study.read_only
    assert state(study) == done[-1], "half a line is no act"
    correction = Correction(viewer, session)
    without = [{key: value for key, value in one.items() if key != "acts"} for one in done]
    assert correction.why_not("undo") == ""
    correction.undo()
    assert {key: value for key, value in state(study).items() if key != "acts"} == without[-2]
    correction.redo()
    assert {key: value for key, value in state(study).items() if key != "acts"} == without[-1]
    session.close_study()
