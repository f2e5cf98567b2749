"""Long tasks in a second thread: any ``iter_*`` generator as a cancellable napari worker with a progress bar.

The bar stands in napari's activity dock with a Cancel button; the status goes to the session, where any widget may
show it. Only one task per session: a second start is refused and says so. An error becomes a napari notification that
says what to do, with the traceback behind its button.
"""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Generic, Literal, TypeVar

from napari.qt.threading import GeneratorWorkerSignals, WorkerBase, create_worker
from napari.utils import cancelable_progress
from napari.utils.notifications import Notification, notification_manager, show_warning
from qtpy.QtCore import QEventLoop, QTimer, Signal
from qtpy.QtWidgets import QApplication

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.progress import Progress, Steps, drain
from napari_dinobloom.ui import preferences, torch_loading
from napari_dinobloom.ui.session import Job, Session
from napari_dinobloom.ui.texts import step_title, text

T = TypeVar("T")

REPORT_EVERY = 0.1
"""Seconds between two reports that reach the window; more would only keep it busy drawing bars."""

BAR_AFTER = 200
"""Milliseconds after which a task gets a bar; napari takes a tenth of a second to show the first."""


class JobError(DinoBloomError):
    """A task stopped by something that its own code did not foresee; the cause is chained."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """How a task ended.

    Attributes
    ----------
    status : {"done", "cancelled", "failed"}
        Whether there is a result.
    seconds : float
        Time that it took.
    result : T or None
        What the generator returned, when done.
    error : DinoBloomError or None
        What went wrong, when failed, in words for the user.
    """

    status: Literal["done", "cancelled", "failed"]
    seconds: float
    result: T | None = None
    error: DinoBloomError | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A generator to be made in the second thread.

    Attributes
    ----------
    title : str
        What it does; napari shows it when a window is closed while the task runs.
    make : callable
        Returns the generator.
    """

    title: str
    make: Callable[[], Steps[Any]]

    def __str__(self) -> str:
        return self.title


class _ShortTurns:
    """While tasks are under way, a thread that computes gives the interpreter away after 1 ms instead of 5.

    Each of the hundred small calls of a drawing gives it away, and has to wait for it to come back.
    """

    SECONDS = 0.001

    def __init__(self) -> None:
        self._lock, self._tasks, self._before = threading.Lock(), 0, 0.0

    def __enter__(self) -> None:
        with self._lock:
            self._tasks += 1
            if self._tasks == 1:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(min(self.SECONDS, self._before))

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._tasks -= 1
            if not self._tasks:
                sys.setswitchinterval(self._before)


_short_turns = _ShortTurns()


class _StepsSignals(GeneratorWorkerSignals):
    ended = Signal(object)  # an Outcome, exactly once, before `finished`


class StepsWorker(WorkerBase):
    """Worker that drains an ``iter_*`` generator and closes it in its own thread.

    napari's own generator worker leaves a cancelled generator suspended, so that its ``finally`` blocks, which give
    locks back and sweep up, run whenever the garbage collector comes by, and it swallows every `RuntimeError`, which
    is what torch raises. This one does neither.

    Parameters
    ----------
    task : Task
        Called in the worker's thread; its title stands in messages.
    """

    def __init__(self, task: Task) -> None:
        super().__init__(SignalsClass=_StepsSignals)
        self._task = task

    def work(self) -> None:
        """Drain the generator; emit throttled reports, then `ended`."""
        begun = time.monotonic()
        try:
            with _short_turns:
                finished, result = self._drain()
        except Exception as error:
            failure = explain(self._task.title, error)
            # Not raised: with PySide6, napari 0.9 cannot take its own signal of an error, and says so to the user.
            self.ended.emit(Outcome("failed", time.monotonic() - begun, error=failure))
            return
        status: Literal["done", "cancelled"] = "done" if finished else "cancelled"
        if not finished:
            self.aborted.emit()
        self.ended.emit(Outcome(status, time.monotonic() - begun, result))

    def _drain(self) -> tuple[bool, Any]:
        """Return whether the generator came to its end, and its result."""
        steps = self._task.make()
        last, step = 0.0, None
        try:
            while not self.abort_requested:
                try:
                    report = next(steps)
                except StopIteration as stop:
                    return True, stop.value
                now = time.monotonic()
                if report.step != step or report.done == report.total or now - last >= REPORT_EVERY:
                    last, step = now, report.step
                    self.yielded.emit(report)
            return False, None
        finally:
            steps.close()


class _Bar(cancelable_progress):
    """A bar of the activity dock whose Cancel button works without an iterable."""

    def cancel(self) -> None:
        """Ask the task to stop."""
        super().cancel()
        if self.cancel_callback is not None:
            self.cancel_callback()

    def show(self, report: Progress) -> None:
        """Show one report."""
        self.total = report.total
        self.n = min(report.done, report.total)
        self.events.value(value=self.n)
        self.set_description(step_title(report.step) or report.message)


def explain(title: str, error: Exception, unexpected: str = "error.unexpected") -> DinoBloomError:
    """Return `error` as one that tells the user what to do; errors that do so already come back as they are.

    What no rule fits has the text of the key `unexpected`.
    """
    if isinstance(error, DinoBloomError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        message = text("error.disk_full", folder=error.filename or "")
    elif isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        message = text("error.permission", folder=error.filename or "")
    elif isinstance(error, FileNotFoundError):
        message = text("error.gone", path=error.filename or "")
    elif isinstance(error, MemoryError):
        message = text("error.memory")
    else:
        message = text(unexpected, title=title, kind=type(error).__name__, error=error)
    explained = JobError(message)
    explained.__cause__ = error
    return explained


def start(
    session: Session,
    title: str,
    steps: Callable[..., Steps[T]],
    /,
    *args: Any,
    on_end: Callable[[Outcome[T]], None],
    notify: bool = True,
    before: Callable[[], object] = lambda: None,
    **kwargs: Any,
) -> StepsWorker | None:
    """Run a generator in a second thread as the one job of `session`.

    Parameters
    ----------
    session : Session
        Its `job` is set until the end, its `progress` at every report.
    title : str
        What the task does, for people.
    steps : callable
        An ``iter_*`` function; called in the second thread with the remaining arguments.
    on_end : callable
        Called on the main thread with the `Outcome`, after the job was cleared and any error shown.
    notify : bool
        Whether an error becomes a notification here; else `on_end` has to say it.
    before : callable
        Called when the job is that of the session, before its first step: nothing else can begin in between.

    Returns
    -------
    StepsWorker or None
        None, and a warning is shown, when another job is under way.
    """
    if session.job is not None:
        show_warning(text("job.refused", job=session.job.title, title=title))
        return None
    preferences.apply()
    torch_loading.load_beside()
    task = Task(title, partial(steps, *args, **kwargs))
    worker: StepsWorker = create_worker(task, _worker_class=StepsWorker, _ignore_errors=True, _start_thread=False)
    job = Job(title, worker.quit)

    @cache
    def bar() -> _Bar:
        return _Bar(total=0, desc=title, cancel_callback=worker.quit)

    def open_bar() -> None:
        if session.job is job:
            bar()
            if session.progress is not None:
                bar().show(session.progress)

    def report(progress: Progress) -> None:
        session.progress = progress
        if bar.cache_info().currsize:
            bar().show(progress)

    def end(outcome: Outcome[T]) -> None:
        if bar.cache_info().currsize:
            bar().close()
        session.progress = None
        session.job = None
        if outcome.error is not None and notify:
            notification_manager.dispatch(Notification.from_exception(outcome.error))
        on_end(outcome)

    worker.yielded.connect(report)
    worker.ended.connect(end)
    session.job = job
    try:
        before()
        worker.start()
    except BaseException:  # else the session would be busy for ever
        session.job = None
        raise
    QTimer.singleShot(BAR_AFTER, open_bar)
    return worker


def finish(title: str, steps: Callable[[], Steps[T]]) -> T:
    """Run a generator in a second thread and wait for its result, with the window alive and a bar that can cancel.

    For callers that must return a value, such as sample data; everything else takes `start`.

    Raises
    ------
    DinoBloomError
        What went wrong, or that the user cancelled.
    """
    if QApplication.instance() is None:
        return drain(steps())
    loop, outcomes = QEventLoop(), list[Outcome[T]]()

    def end(outcome: Outcome[T]) -> None:
        outcomes.append(outcome)
        loop.quit()

    start(Session(), title, steps, on_end=end, notify=False)
    if not outcomes:
        loop.exec()
    (outcome,) = outcomes
    if outcome.status == "done":
        return outcome.result  # type: ignore[return-value]
    raise outcome.error or DinoBloomError(text("job.cancelled", title=title))
