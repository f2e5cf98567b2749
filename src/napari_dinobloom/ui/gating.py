"""Acts of a person on the gates of a viewer's study: done in the study, and told to all who listen to the session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pandas as pd
from napari.utils.notifications import show_info, show_warning

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.explore.gate_masks import ordered
from napari_dinobloom.explore.gate_statistics import GateTables
from napari_dinobloom.explore.gate_tree import Act, GateTree
from napari_dinobloom.explore.gates import BooleanGate, Gate, GateError, PolygonGate
from napari_dinobloom.explore.gates.base import Mask
from napari_dinobloom.explore.gates.boolean import BoolType
from napari_dinobloom.explore.study_gates import Edit, StudyGates, free_name
from napari_dinobloom.progress import Steps
from napari_dinobloom.ui import workers
from napari_dinobloom.ui.correction import Correction, why_closed
from napari_dinobloom.ui.session import Session, viewer_of
from napari_dinobloom.ui.texts import text

T = TypeVar("T")

_NO_CELLS = pd.DataFrame()

FIXED = ("change", "rename", "move", "delete")
"""Acts that a locked gate refuses."""


class Gating:
    """Everything that a person can do to the gates of the session's study; one for each session, see `gating_of`.

    An act that cannot be done becomes a warning of napari and changes nothing.

    Parameters
    ----------
    session : Session
        Its study is changed, its `gate` is the chosen one; its `gates_revision` grows with every act.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._gates: StudyGates | None = None
        self._said = ""
        session.events.gates_revision.connect(self._let_go)
        session.events.study.connect(self._leave)

    @property
    def gates(self) -> StudyGates | None:
        """The gates of the open study; None where none is open."""
        study = self._session.study
        if study is None:
            self._gates = None
        elif self._gates is None or self._gates.study is not study:
            self._gates = StudyGates(study)
        return self._gates

    @property
    def tree(self) -> GateTree | None:
        """The tree of the map in use, as the journal has it now; change it by this object only."""
        return self._read(lambda gates: gates.tree, None)

    @property
    def table(self) -> pd.DataFrame:
        """Cells with all columns that gates are drawn on, row for row as ``study.cells``; empty where none is open."""
        return self._read(lambda gates: gates.table, _NO_CELLS)

    def masks(self) -> dict[str, Mask]:
        """Cells of each gate, (n,) bool over the rows of `table`; the same array as long as it holds the same."""
        return self._read(lambda gates: gates.masks(), {})

    def tables(self) -> GateTables | None:
        """Statistics of the tree, computed again only where something changed; None where there is no gate."""
        return self._read(lambda gates: gates.statistics(), None)

    def shares(self) -> dict[str, float]:
        """Percent of the parent's cells by gate; gates below an empty one are left out."""
        return {key: 100 * n / of for key, (n, of, _) in self.totals().items() if of}

    def totals(self) -> dict[str, tuple[int, int, int]]:
        """Cells of each gate, of its parent and of all; the quick part of `tables`."""
        return self._read(lambda gates: gates.totals(), {})

    def _read(self, what: Callable[[StudyGates], T], nothing: T) -> T:
        """Something of the open study's gates; that they cannot be read is said, but not again and again."""
        gates = self.gates
        if gates is None:
            return nothing
        try:
            return what(gates)
        except DinoBloomError as error:
            if str(error) != self._said:
                self._said = str(error)
                show_warning(self._said)
            return nothing

    def why_not(self, act: str, key: str | None = None) -> str:
        """Why an act cannot be done now, in words; empty when it can.

        Parameters
        ----------
        act : str
            Name of a method: "add", "change", "rename", "recolour", "hide", "lock", "move", "delete", "suggest",
            "combine", "undo", "redo".
        key : str, optional
            The gate; by default the chosen one.
        """
        session = self._session
        if session.study is None:
            return text("gates.why.no_study")
        if why := why_closed(session):  # a job may change the map under the gates
            return why
        if act in ("undo", "redo"):
            return Correction(None, session).why_not(act)
        if act in ("add", "combine"):
            return "" if len(self.table) else text("gates.why.no_cells")
        if act == "suggest":
            return self._why_no_map()
        tree, key = self.tree, session.gate if key is None else key
        if tree is None or key not in tree:
            return text("gates.why.choose")
        if act in FIXED and tree[key].locked:
            return text("gates.why.locked", name=tree[key].gate.name)
        return ""

    def _why_no_map(self) -> str:
        return "" if {"umap_1", "umap_2"} <= set(self.table.columns) else text("gates.why.no_map")

    def add(self, gate: Gate, parent: str | None = None, *, seen: Sequence[str] | None = None) -> str:
        """Add a gate and choose it; return its key, "" where that was refused.

        Parameters
        ----------
        gate : Gate
            The region.
        parent : str, optional
            Gate to put it under, "" for the top; by default the population that the map shows.
        seen : sequence of str, optional
            Patients whose cells were in view; by default all of the table.
        """
        return next(iter(self.add_all([gate], parent, seen=seen)), "")

    def add_all(
        self, gates: Sequence[Gate], parent: str | None = None, *, seen: Sequence[str] | None = None
    ) -> list[str]:
        """Add several gates in one act, as `add`; a name that is taken gets a number. Return their keys."""
        if why := self.why_not("add"):
            show_warning(why)
            return []
        of = self.gates
        below = self._session.population if parent is None else parent
        looked = of.patients if seen is None and of is not None else seen

        def edit(tree: GateTree) -> list[Act]:
            names = [(one, below if below in tree else "") for one in gates]
            return [tree.add(one.renamed(free_name(tree, one.name, at)), parent=at, seen=looked) for one, at in names]

        act = self.do(edit)
        keys = list(act["new"]) if act else []
        if keys:
            self._session.gate = keys[-1]
        return keys

    def combine(self, bool_type: BoolType, keys: Sequence[str]) -> str:
        """Add a gate made of others, below the gate they have in common; return its key, "" where that was refused."""
        tree = self.tree
        if tree is None or any(key not in tree for key in keys):
            show_warning(text("gates.why.choose"))
            return ""
        name = text(f"gates.name.{bool_type}", names=f" {bool_type} ".join(tree[key].gate.name for key in keys))
        parents = {tree[key].parent for key in keys}
        try:
            gate = BooleanGate(name=name[:80].strip(), bool_type=bool_type, gate_refs=list(keys))
        except GateError as error:
            show_warning(str(error))
            return ""
        return self.add(gate, parents.pop() if len(parents) == 1 else "")

    def change(self, key: str, gate: Gate) -> bool:
        """Give a gate another region; return whether it was done."""
        return self.do(lambda tree: tree.change(key, gate)) is not None

    def rename(self, key: str, name: str) -> bool:
        """Give a gate another name."""
        return self.do(lambda tree: tree.rename(key, name)) is not None

    def recolour(self, key: str, colour: str) -> bool:
        """Give a gate another colour, ``#rrggbb``."""
        return self.do(lambda tree: tree.recolour(key, colour)) is not None

    def hide(self, key: str, hidden: bool = True) -> bool:
        """Hide a gate or show it."""
        return self.do(lambda tree: tree.hide(key, hidden)) is not None

    def lock(self, key: str, locked: bool = True) -> bool:
        """Lock a gate or free it."""
        return self.do(lambda tree: tree.lock(key, locked)) is not None

    def move(self, key: str, parent: str, before: str | None = None) -> bool:
        """Move a gate with its children below another, "" for the top."""
        return self.do(lambda tree: tree.move(key, parent, before=before)) is not None

    def move_all(self, keys: Sequence[str], parent: str, before: str | None = None) -> bool:
        """Move several gates in one act; one that goes along with a gate above it keeps its place there."""

        def edit(tree: GateTree) -> list[Act]:
            return [tree.move(key, parent, before=before) for key in _tops(tree, keys)]

        return self.do(edit) is not None

    def delete(self, *keys: str) -> bool:
        """Delete gates with their children, in one act; of gates that are made of others those first."""

        def edit(tree: GateTree) -> list[Act]:
            tops = set(_tops(tree, keys))
            order = reversed(ordered({key: tree[key] for key in tree.keys}))
            return [tree.delete(key) for key in order if key in tops]

        return self.do(edit) is not None

    def undo(self) -> None:
        """Take the last act back, be it on gates or on cells."""
        Correction(viewer_of(self._session), self._session).undo()

    def redo(self) -> None:
        """Do again what was taken back last."""
        Correction(viewer_of(self._session), self._session).redo()

    def do(self, edit: Edit) -> Act | None:
        """Change the tree; return the act, or None where it was refused, which is said."""
        gates = self.gates
        if why := self.why_not("add"):
            show_warning(why)
        if gates is None or why:
            return None
        try:
            act = gates.do(edit)
        except DinoBloomError as error:
            show_warning(str(error))
            return None
        if act["old"] != act["new"]:
            self._session.gates_revision += 1
        return act

    def suggest(self, axes: tuple[str, str] | None = None, parent: str | None = None) -> workers.StepsWorker | None:
        """Look for dense clusters in a second thread and add a gate around each, in one act.

        Parameters
        ----------
        axes : (str, str), optional
            By default those of the map.
        parent : str, optional
            Only its cells are looked at, and the gates are put under it; by default as `add`.
        """
        if why := self.why_not("suggest"):
            show_warning(why)
            return None
        study, tree = self._session.study, self.tree
        below = self._session.population if parent is None else parent
        within = self.masks().get(below) if tree is not None and below in tree else None
        table = self.table if within is None else _rows(self.table, within)

        def end(outcome: workers.Outcome[list[PolygonGate]]) -> None:
            if outcome.result is None or self._session.study is not study:
                return
            if outcome.result:
                self.add_all(outcome.result, below)
            else:
                show_info(text("gates.none_suggested"))

        pair = ("umap_1", "umap_2") if axes is None else axes
        return workers.start(self._session, text("job.suggest"), _iter_suggest, table, pair, on_end=end)

    def _let_go(self, _event: object = None) -> None:
        """Choose no gate, and show all cells, where the one that was chosen or shown is there no more."""
        tree = self.tree
        for name in ("population", "gate"):
            key = getattr(self._session, name)
            if key and (tree is None or key not in tree):
                setattr(self._session, name, "")

    def _leave(self, _event: object = None) -> None:
        """Forget the study that was open."""
        self._gates = None
        self._let_go()


def gating_of(session: Session) -> Gating:
    """Return the one `Gating` of a session, made on first use."""
    found: Gating = session.part("gating", lambda: Gating(session))
    return found


def _iter_suggest(table: pd.DataFrame, axes: tuple[str, str]) -> Steps[list[PolygonGate]]:
    """Suggest gates; scikit-learn is loaded with the first one."""
    from napari_dinobloom.explore.suggest import iter_suggest_gates

    return (yield from iter_suggest_gates(table, axes))


def _rows(table: pd.DataFrame, mask: Mask) -> pd.DataFrame:
    part = table.loc[mask]
    part.attrs = dict(table.attrs)
    return part


def _tops(tree: GateTree, keys: Sequence[str]) -> list[str]:
    """Those of some gates that lie below no other of them."""
    below = {one for key in keys for one in tree.descendants(key)}
    return [key for key in dict.fromkeys(keys) if key not in below]
