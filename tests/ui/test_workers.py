"""Long tasks in a second thread."""

from __future__ import annotations

import errno
import sys
import threading

import pytest
from napari.utils.notifications import notification_manager
from napari.utils.progress import progress

from napari_dinobloom.errors import StudyHeldError
from napari_dinobloom.progress import Progress
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.workers import BAR_AFTER, JobError, explain, start

pytestmark = pytest.mark.gui


class Steps:
    """A generator of three reports that waits to be let go, and notes in which thread it was closed."""

    def __init__(self, error=None):
        self.go = threading.Event()
        self.error = error
        self.closed_in = None

    def __call__(self, result):
        try:
            yield Progress(1, 3, "one", "count")
            assert self.go.wait(20)
            if self.error is not None:
                raise self.error
            yield Progress(2, 3, "two", "count")
            yield Progress(3, 3, "three", "count")
            return result
        finally:
            self.closed_in = threading.current_thread()


@pytest.fixture
def run(qtbot):
    """Start steps in a session; collects the outcome."""
    session, outcomes = Session(), []

    def run(steps, result="result"):
        return start(session, "Count", steps, result, on_end=outcomes.append)

    run.session, run.outcomes = session, outcomes
    run.wait = lambda: qtbot.waitUntil(lambda: bool(outcomes) and session.job is None, timeout=20_000)
    return run


def bars(title="Count"):
    """Those of the activity dock; the description is that of the step as soon as there is one."""
    return [bar for bar in progress._all_instances if bar.desc.lower().startswith(title.lower())]


def test_result_progress_and_job(run, qtbot):
    steps, seen = Steps(), []
    run.session.events.progress.connect(seen.append)
    run(steps)
    assert run.session.job is not None
    assert run.session.job.title == "Count"
    qtbot.waitUntil(lambda: run.session.progress == Progress(1, 3, "one", "count"), timeout=20_000)
    qtbot.waitUntil(lambda: len(bars()) == 1, timeout=20_000)
    (bar,) = bars()
    assert (bar.n, bar.total) == (1, 3)
    steps.go.set()
    run.wait()
    (outcome,) = run.outcomes
    assert (outcome.status, outcome.result, outcome.error) == ("done", "result", None)
    assert seen[-2:] == [Progress(3, 3, "three", "count"), None]
    assert bar not in progress._all_instances
    assert run.session.progress is None


def test_a_second_start_is_refused_and_said(run):
    first, second = Steps(), Steps()
    run(first)
    before = len(notification_manager.records)
    assert run(second) is None
    assert notification_manager.records[before].message == text("job.refused", job="Count", title="Count")
    first.go.set()
    run.wait()
    assert len(run.outcomes) == 1
    assert second.closed_in is None


def test_cancel_closes_the_generator_in_its_own_thread(run, qtbot):
    steps = Steps()
    run(steps)
    qtbot.waitUntil(lambda: run.session.progress is not None, timeout=20_000)
    run.session.job.cancel()
    steps.go.set()
    run.wait()
    assert run.outcomes[0].status == "cancelled"
    assert run.outcomes[0].result is None
    assert steps.closed_in not in (None, threading.main_thread())


def test_the_cancel_button_of_the_activity_dock_cancels(run, qtbot):
    steps = Steps()
    run(steps)
    qtbot.waitUntil(lambda: len(bars()) == 1, timeout=20_000)
    bars()[0].cancel()
    steps.go.set()
    run.wait()
    assert run.outcomes[0].status == "cancelled"


@pytest.mark.parametrize("error", [StudyHeldError("held by process 7. Close it there."), RuntimeError("CUDA went")])
def test_an_error_becomes_a_notification_that_says_what_to_do(run, error):
    steps = Steps(error)
    steps.go.set()
    before = len(notification_manager.records)
    run(steps)
    run.wait()
    (outcome,) = run.outcomes
    assert outcome.status == "failed"
    shown = notification_manager.records[before]
    assert shown.message == str(outcome.error)
    assert str(error) in shown.message
    assert "Traceback" in shown.as_text() or type(error).__name__ in shown.as_text()
    assert run.session.job is None


def test_errors_of_the_system_are_explained():
    full = explain("Run", OSError(errno.ENOSPC, "No space left on device", "/data/x"))
    assert str(full) == text("error.disk_full", folder="/data/x")
    denied = explain("Run", PermissionError(errno.EACCES, "Permission denied", "/data/x"))
    assert str(denied) == text("error.permission", folder="/data/x")
    assert str(explain("Run", MemoryError())) == text("error.memory")
    odd = explain("Run", ZeroDivisionError("by zero"))
    assert isinstance(odd, JobError)
    assert isinstance(odd.__cause__, ZeroDivisionError)
    assert "ZeroDivisionError: by zero" in str(odd)
    ours = StudyHeldError("held")
    assert explain("Run", ours) is ours


def test_many_reports_do_not_flood_the_window(run):
    def chatter(result):
        for done in range(5_000):
            yield Progress(done, 5_000, "", "count")
        return result

    seen = []
    run.session.events.progress.connect(seen.append)
    run(chatter)
    run.wait()
    assert len(seen) < 500
    assert run.outcomes[0].status == "done"


def test_a_job_that_cannot_begin_leaves_the_session_free(qtbot):
    session = Session()

    def before():
        raise ValueError("a listener")

    with pytest.raises(ValueError, match="a listener"):
        start(session, "Count", Steps(), "result", on_end=lambda _: None, before=before)
    assert session.job is None
    assert not bars()


def test_threads_take_short_turns_while_a_job_is_under_way(run, qtbot):
    before = sys.getswitchinterval()
    other, outcomes = Session(), []
    first, second = Steps(), Steps()
    run(first)
    start(other, "Count too", second, "", on_end=outcomes.append)
    qtbot.waitUntil(lambda: sys.getswitchinterval() < before)
    first.go.set()
    run.wait()
    assert sys.getswitchinterval() < before, "the other job is still under way"
    second.go.set()
    qtbot.waitUntil(lambda: bool(outcomes) and sys.getswitchinterval() == before)


def test_a_job_that_ends_at_once_leaves_no_bar(run, qtbot):
    def nothing():
        return "result"
        yield

    start(run.session, "Nothing", nothing, on_end=run.outcomes.append)
    run.wait()
    qtbot.wait(BAR_AFTER + 50)
    assert not bars("Nothing")
