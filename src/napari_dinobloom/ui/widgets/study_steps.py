"""The steps of a run: which are done, which are next, and the window that goes with each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QGridLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline.settings import STEPS
from napari_dinobloom.ui.lookup import Lookup
from napari_dinobloom.ui.session import Session
from napari_dinobloom.ui.texts import step_title, text, tip
from napari_dinobloom.ui.widgets.smear_form import narrow_box
from napari_dinobloom.ui.windows import show_window

if TYPE_CHECKING:
    from napari_dinobloom.pipeline.driver import StepState

WINDOWS: Mapping[str, str] = {
    "segment": "Segment and crop",
    "crop": "Segment and crop",
    "embed": "Embed",
    "map": "Map and gates",
    "classify": "Classify",
    "differential": "Report",
    "report": "Report",
}
"""Window of a step, by the name that the manifest gives it."""

SETTLED = 500
"""Milliseconds without an act of a person after which the states are looked up: a look reads the whole reference."""

MARKS = {"done": "✓", "stale": "↻", "missing": "○", "unknown": "?"}


class StudySteps(QWidget):
    """A line for each step with its state and a button, and the choice of the last step to do.

    Parameters
    ----------
    viewer : napari.Viewer or its proxy
        Its window shows the window of a step.
    session : Session
        Its study, job and revisions are followed.

    Attributes
    ----------
    changed : Signal
        The states are others.
    """

    changed = Signal()

    def __init__(self, viewer: Any, session: Session, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._session = viewer, session
        self.states: tuple[StepState, ...] = ()
        self.marks = {step: QLabel() for step in STEPS}
        self.notes = {step: QLabel() for step in STEPS}
        self.buttons: dict[str, QPushButton] = {}
        self.until, self.specimen = narrow_box(), narrow_box()
        for value in ("blood", "marrow"):
            self.specimen.addItem(text(f"run.specimen.{value}"), value)
        grid = QGridLayout()
        grid.setColumnStretch(2, 1)
        grid.setVerticalSpacing(2)
        for at, step in enumerate(STEPS):
            title = QLabel(step_title(step))
            self.marks[step].setAlignment(Qt.AlignmentFlag.AlignCenter)
            self.marks[step].setMinimumWidth(18)
            for place, part in enumerate((self.marks[step], title, self.notes[step])):
                grid.addWidget(part, at, place)
            if step in WINDOWS:
                grid.addWidget(self._button(step), at, 3)
            self.until.addItem(step_title(step), step)
        self.until.setCurrentIndex(len(STEPS) - 1)
        for at, (key, box) in enumerate({"run.specimen": self.specimen, "study.until": self.until}.items()):
            label = QLabel(text(key))
            label.setToolTip(tip(key))
            box.setToolTip(tip(key))
            grid.addWidget(label, len(STEPS) + at, 1)
            grid.addWidget(box, len(STEPS) + at, 2, 1, 2)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        title = QLabel(text("study.steps"))
        title.setStyleSheet("font-weight: bold")
        title.setToolTip(tip("study.steps"))
        column.addWidget(title)
        column.addLayout(grid)
        self.lookup = Lookup(_states, self)
        self.lookup.found.connect(self._show)
        self.settling = QTimer(self)
        self.settling.setSingleShot(True)
        self.settling.setInterval(SETTLED)
        self.settling.timeout.connect(self.refresh)
        self._slots = {"study": self.refresh, "job": self.refresh}
        self._slots |= dict.fromkeys(("revision", "gates_revision"), self._soon)
        for name, slot in self._slots.items():
            getattr(session.events, name).connect(slot)
        session.events.study.connect(self.take_over)
        session.events.progress.connect(self._follow)
        for box in (self.until, self.specimen):
            box.currentIndexChanged.connect(self.changed)
        self.take_over()
        self.refresh()

    def detach(self) -> None:
        """Stop listening to the session, which lives on."""
        for name, slot in self._slots.items():
            getattr(self._session.events, name).disconnect(slot, missing_ok=True)
        self._session.events.study.disconnect(self.take_over, missing_ok=True)
        self._session.events.progress.disconnect(self._follow, missing_ok=True)

    def take_over(self) -> None:
        """Show what was smeared, as the study has it."""
        study = self._session.study
        if study is not None:
            self.specimen.setCurrentIndex(max(self.specimen.findData(study.specimen), 0))

    def _button(self, step: str) -> QPushButton:
        """The button that opens the window of a step."""
        button = QPushButton(text("study.window"))
        button.setFixedHeight(button.fontMetrics().height() + 4)
        button.setStyleSheet("padding: 0px 8px")
        button.setToolTip(text("study.open_window", window=WINDOWS[step]))
        button.clicked.connect(lambda: self.open_window(step))
        self.buttons[step] = button
        return button

    def _soon(self, _event: object = None) -> None:
        """Look the states up when people have paused."""
        self.settling.start()

    @property
    def busy(self) -> bool:
        """Whether the states are about to be looked up."""
        return self.settling.isActive() or self.lookup.busy

    def refresh(self) -> None:
        """Look up the states, in a second thread; while a job is under way they stay as they were."""
        study = self._session.study
        self.settling.stop()
        if study is None:
            self.lookup.ask(None)
            self._show(())
        elif self._session.job is None:
            self.lookup.ask((study,))  # a question of its own, even where the study is that of before

    def _show(self, states: tuple[StepState, ...]) -> None:
        """Show the states; the first that is not done is the next one."""
        self.states = states
        known = {state.name: state for state in states}
        following = next((state.name for state in states if state.state != "done"), "")
        for step in STEPS:
            state = known.get(step)
            key = "none" if state is None else "next" if step == following and not state.why else state.state
            self.marks[step].setText("" if state is None else "→" if key == "next" else MARKS[state.state])
            self.notes[step].setText(text(f"study.state.{key}"))
            self.notes[step].setToolTip(state.why if state is not None and state.why else tip(f"study.state.{key}"))
            self.notes[step].setStyleSheet("font-weight: bold" if key == "next" else "")
        self.changed.emit()

    def _follow(self) -> None:
        """Show at which step a run is; those before it are done."""
        progress = self._session.progress
        if progress is None or progress.step not in STEPS:
            return
        at = STEPS.index(progress.step)
        for step in STEPS[: at + 1]:
            key = "now" if step == progress.step else "done"
            self.marks[step].setText("▸" if key == "now" else MARKS[key])
            self.notes[step].setText(text(f"study.state.{key}"))
            self.notes[step].setToolTip(tip(f"study.state.{key}"))
            self.notes[step].setStyleSheet("font-weight: bold" if key == "now" else "")

    @property
    def all_done(self) -> bool:
        """Whether nothing is left to do up to the chosen step."""
        wanted = self.states[: self.until.currentIndex() + 1]
        return bool(wanted) and all(state.state == "done" for state in wanted)

    def open_window(self, step: str) -> None:
        """Show the window of a step, as a tab of those that are docked already."""
        name = WINDOWS[step]
        try:
            show_window(self._viewer, name)
        except (KeyError, ValueError, ImportError, RuntimeError) as error:
            show_warning(text("study.why.no_window", window=name, problem=error))


def _states(asked: tuple[Study]) -> tuple[StepState, ...]:
    """How far a study is; in a second thread."""
    from napari_dinobloom.pipeline.driver import step_states

    return step_states(*asked)
