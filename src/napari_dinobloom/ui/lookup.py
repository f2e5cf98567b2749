"""A question that is answered in a second thread, so that the window never waits for a disk or a long sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Signal

from napari_dinobloom.ui.texts import text
from napari_dinobloom.ui.workers import explain


class Lookup(QObject):
    """Answers one question at a time; of those that come in the meantime only the last one.

    Parameters
    ----------
    answer : callable
        Called in the second thread with the question. What it raises is no answer and becomes a notification of napari.

    Attributes
    ----------
    found : Signal
        The answer to the last question.
    failed : Signal
        There is no answer to the last question.
    """

    found = Signal(object)
    failed = Signal()

    def __init__(self, answer: Callable[[Any], Any], parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._answer = answer
        self._asked: Any = None
        self._at_work: Any = None
        self._worker: Any = None

    @property
    def busy(self) -> bool:
        """Whether a question is being answered."""
        return self._worker is not None

    def ask(self, question: Any) -> None:
        """Ask something; None takes the question back."""
        self._asked = question
        if question is not None and self._worker is None:
            self._at_work = question
            self._worker = create_worker(self._answered, question)
            self._worker.returned.connect(self._take)
            self._worker.errored.connect(self._fail)
            self._worker.start()

    def _answered(self, question: Any) -> tuple[Any, Any]:
        """Answer in the second thread; what goes wrong is said in words, with the cause behind them."""
        try:
            return question, self._answer(question)
        except Exception as error:
            raise explain(text("job.look_up"), error, "error.look_up") from error

    def _take(self, found: tuple[Any, Any]) -> None:
        """Give the answer away, if it is still wanted."""
        self._worker = self._at_work = None
        question, answer = found
        if question is self._asked:
            self.found.emit(answer)
        else:
            self.ask(self._asked)

    def _fail(self, _error: Exception) -> None:
        """There is no answer; a question that came in the meantime is asked."""
        self._worker = None
        if self._asked is self._at_work:
            self.failed.emit()
        else:
            self.ask(self._asked)
