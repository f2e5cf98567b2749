"""Writes how a study is left in a second thread, so that no window waits for a slow disk or network share."""

from __future__ import annotations

import threading

from napari_dinobloom.io.study import Study
from napari_dinobloom.io.view import View, keep_view


class ViewWriter:
    """One view at a time is written, and of those that wait the latest; the program ends when all is written."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: tuple[Study, View] | None = None
        self._thread: threading.Thread | None = None

    def put(self, study: Study, view: View) -> None:
        """Have a view written soon. `flush` before the study is closed, or another one is written."""
        with self._lock:
            self._waiting = (study, view)
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="view of a study")  # no daemon: it ends first
                self._thread.start()

    def flush(self) -> None:
        """Wait until all is written."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _write(self) -> None:
        """Write until nothing waits; a view that could not be written is said by `keep_view`."""
        while True:
            with self._lock:
                waiting, self._waiting = self._waiting, None
                if waiting is None:
                    self._thread = None
                    return
            try:
                keep_view(*waiting)
            except BaseException:
                with self._lock:
                    self._thread = None
                raise
